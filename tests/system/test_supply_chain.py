# ruff: noqa: PLR0913, PLR0917  # fixtures are arguments
"""What is attached to images, on Debian's docker-registry with TLS and passwords, signed by cosign; cosign and oras read it without us."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import stat
import subprocess
import uuid
from pathlib import Path

import msgspec
import pytest
import zstandard

from tests import programs, registries
from tests.parts import CODEC
from tests.registries import Authority
from tests.released import OS_FILES, compose, record_of, result
from torchstrata.attestations import documents, examination, key_pair, seals, signing
from torchstrata.attestations.documents import CYCLONEDX, KINDS, PROVENANCE, RECORD, SPDX, VERIFICATION, Document, Published
from torchstrata.attestations.signing import BUNDLE, Signer, Trust
from torchstrata.commands import signatures
from torchstrata.commands.release_options import AttestOptions, KeyOptions, VerifyReleaseOptions
from torchstrata.errors import SigningError, UntrustedError, UnverifiedError
from torchstrata.image import oci
from torchstrata.image.compose import canonical, sha256
from torchstrata.registry.parts import PartRepository
from torchstrata.registry.push import Publication, Pusher
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.registry.upload import Source as Content
from torchstrata.store.store import Store
from torchstrata.verification import evidence

REPOSITORY = "team/pytorch-cuda"
TAG = "x-20261124.1"


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """Let programs find cosign, and this process's settings be those of the test alone."""
    with programs.alone(tmp_path_factory, "correct horse") as patch:
        yield patch


def keys(directory: Path) -> Path:
    """Make a pair of keys; return the private one."""
    return key_pair.make_key(directory / "cosign").with_suffix(".key")


@pytest.fixture(scope="module")
def key(tmp_path_factory, environment):
    """Make the team's key pair."""
    return keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer(key):
    """Return the team."""
    return Signer.find(str(key))


@pytest.fixture(scope="module")
def trust(key):
    """Return the trust in the team."""
    return Trust.find(str(key.with_suffix(".pub")))


@pytest.fixture(scope="module")
def authority(tmp_path_factory, environment):
    """Make an authority, which is known to this process."""
    made = Authority.make(tmp_path_factory.mktemp("authority"))
    environment.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory, authority):
    """Run a registry with TLS and passwords."""
    with registries.registry(tmp_path_factory.mktemp("registry"), authority=authority, passwords=True) as served:
        registries.login(Path(os.environ["DOCKER_CONFIG"]), served.host)
        yield served


@pytest.fixture(scope="module")
def registry(served):
    """Return the client."""
    return Registry(served.host)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a content store."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def composed(store, tmp_path_factory):
    """Return a small image."""
    return compose(store, tmp_path_factory.mktemp("wheels"))


def push(registry, repository, composed, store, tag=TAG):
    """Push an image; return it as it is in the registry."""
    Pusher(registry=registry, repository=repository, open_blob=store.open_blob).push([Publication(image=composed.image, tags=(tag,))])
    return Published(registry=registry, repository=repository, name=composed.image.name, manifest=composed.image.manifest)


def attached(composed, store, *, passed: bool = True):
    """Return the documents of an image that was tested."""
    return documents.of(record_of(composed, store), {}, result(composed.image.digest, passed=passed))


@pytest.fixture(scope="module")
def released(registry, composed, store, signer):
    """Push an image with all its documents, signed."""
    image = push(registry, REPOSITORY, composed, store)
    assert documents.attach(image, attached(composed, store), signer) == len(KINDS) + 1
    return image


@pytest.fixture
def image(registry, composed, store):
    """Push the image to a repository of the test's own, with nothing attached."""
    return push(registry, f"test/{uuid.uuid4().hex}", composed, store)


def program(name: str, *words: str) -> str:
    """Run an independent reader that knows nothing of ours; return what it prints."""
    done = subprocess.run([name, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(image, trust):
    """Return the problem of each part of an image's evidence, where there is one."""
    seen = examination.examine(image.registry, Reference(host=image.registry.host, repository=image.repository, tag=TAG), trust)
    return {finding.part: finding.problem for finding in seen.findings if finding.problem}


# What there is


def test_everything_holds_of_an_image_that_was_released(released, trust):
    """Each part says something, and nothing is missing."""
    seen = examination.examine(released.registry, released.reference, trust)
    assert {finding.part: finding.problem for finding in seen.findings} == dict.fromkeys([examination.SIGNATURE, *(kind.name for kind in KINDS)], "")
    assert all(finding.says and finding.proves for finding in seen.findings)
    seen.require()


def test_the_verb_shows_what_each_part_proves(released, key, capsys):
    """One command, one table, all of it true."""
    signatures.verify_release(VerifyReleaseOptions(image=f"{released.registry.host}/{REPOSITORY}:{TAG}", key=str(key.with_suffix(".pub"))))
    shown = capsys.readouterr().out
    assert released.digest in shown
    assert shown.count("holds") == len(KINDS) + 2
    assert "everything holds" in shown


def test_attaching_again_signs_nothing(released, composed, store, signer):
    """What is signed stays as it is, also when a later push would word it otherwise."""
    before = released.referrers()
    other = documents.of(record_of(composed, store), {"GITHUB_ACTIONS": "true", "GITHUB_WORKFLOW_REF": "x/y@z"}, result(composed.image.digest))
    assert documents.attach(released, other, signer) == 0
    assert released.referrers() == before


# What others read


def test_cosign_verifies_the_signature(released, key, authority):
    """With the public key alone, as an admission controller would; version 3 counts the attestations as well."""
    words = ("--key", str(key.with_suffix(".pub")), "--insecure-ignore-tlog=true", "--registry-cacert", str(authority.certificate))
    claims = json.loads(program("cosign", "verify", *words, "--output=json", str(released.reference)))
    assert {claim["critical"]["image"]["docker-manifest-digest"] for claim in claims} == {released.digest}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
def test_cosign_verifies_attestations(released, key, authority, tmp_path, kind, composed, store):
    """Each document is a signed statement about the image, found by its type."""
    (tmp_path / "root.json").write_bytes(signing.NO_ROOT)
    words = ("--key", str(key.with_suffix(".pub")), "--insecure-ignore-tlog=true", "--registry-cacert", str(authority.certificate))
    words += ("--new-bundle-format", "--trusted-root", str(tmp_path / "root.json"), "--type", kind.predicate)
    shown = program("cosign", "verify-attestation", *words, str(released.reference))
    statements = [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in shown.splitlines() if line.strip()]
    (statement,) = [each for each in statements if each["predicateType"] == kind.predicate]
    (document,) = [each for each in attached(composed, store) if each.kind == kind]
    assert statement["subject"][0]["digest"]["sha256"] == released.digest.removeprefix("sha256:")
    assert statement["predicate"] == json.loads(document.predicate)


def test_oras_discovers_every_document(released, authority):
    """Documents under their own types, bundles under sigstore's."""
    shown = json.loads(program("oras", "discover", "--ca-file", str(authority.certificate), "--format", "json", str(released.reference)))
    listed = [each["artifactType"] for each in shown.get("manifests") or shown["referrers"]]
    assert sorted(listed) == sorted([*(kind.media_type for kind in KINDS), *[BUNDLE] * len(KINDS)])


def test_oras_pulls_a_bill_of_materials(released, authority, tmp_path, composed, store):
    """It gets the file under the name that people expect."""
    (bill,) = released.registry.referrers(released.repository, released.digest, CYCLONEDX.media_type)
    program("oras", "pull", "--ca-file", str(authority.certificate), "--output", str(tmp_path), f"{released.registry.host}/{REPOSITORY}@{bill.digest}")
    (document,) = [each for each in attached(composed, store) if each.kind == CYCLONEDX]
    assert (tmp_path / "sbom.cdx.json").read_bytes() == document.content


# What is refused


def test_an_image_without_anything_is_refused(image, trust):
    """Each part that is missing has its line."""
    problems = found(image, trust)
    assert set(problems) == {examination.SIGNATURE, *(kind.name for kind in KINDS)}
    assert "no signatures found" in problems[examination.SIGNATURE]
    assert problems[RECORD.name] == "there is none that is signed"


def test_another_key_is_refused(released, tmp_path):
    """Signatures of somebody else count for nothing."""
    problems = found(released, Trust.find(str(keys(tmp_path).with_suffix(".pub"))))
    assert set(problems) == {examination.SIGNATURE, *(kind.name for kind in KINDS)}


def test_an_image_that_is_not_as_locked_is_refused(registry, store, signer, trust, tmp_path):
    """It is signed and passed its tests: it says that its packages have drifted, and so do its record and the result of its tests."""
    drifted = compose(store, tmp_path / "wheels", drift="libexample1 1.0-1 -> 1.0-2+b1")
    image = push(registry, f"test/{uuid.uuid4().hex}", drifted, store)
    made = documents.of(record_of(drifted, store), {}, result(drifted.image.digest, drift=("libexample1 1.0-1 -> 1.0-2+b1",)))
    documents.attach(image, made, signer)
    says = "its OS packages are not as locked: libexample1 1.0-1 -> 1.0-2+b1"
    assert found(image, trust) == {RECORD.name: says, VERIFICATION.name: says}
    with pytest.raises(UntrustedError, match="not as locked") as caught:
        examination.examine(registry, image.reference, trust).require()
    assert caught.value.code == 35


def test_missing_verification_is_refused_with_a_code_of_its_own(image, composed, store, signer, trust):
    """Everything else holds, so the error says that it is about the tests."""
    documents.attach(image, documents.of(record_of(composed, store), {}), signer)
    seen = examination.examine(image.registry, image.reference, trust)
    with pytest.raises(UnverifiedError, match="verification: there is none that is signed"):
        seen.require()


def test_failed_verification_is_refused(image, composed, store, signer, trust):
    """A signed result that says that a test failed counts, even beside one that says otherwise."""
    documents.attach(image, attached(composed, store), signer)
    assert found(image, trust) == {}
    documents.attach(image, [documents.result(result(composed.image.digest, passed=False))], signer)
    assert found(image, trust) == {VERIFICATION.name: "the image did not pass: base/test_x.py::test_y failed"}


def test_verification_of_another_image_is_refused(image, composed, store, signer, trust):
    """What a signed result is about is read in it."""
    plain = documents.of(record_of(composed, store), {})
    documents.attach(image, [*plain, documents.result(result("sha256:" + "1" * 64))], signer)
    assert found(image, trust) == {VERIFICATION.name: "it is about another image"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.file)
def test_changed_document_is_refused(image, composed, store, signer, trust, kind):
    """A file that is attached and is not what was signed has a line with its name, though the signed one is there."""
    documents.attach(image, attached(composed, store), signer)
    (document,) = [each for each in attached(composed, store) if each.kind == kind]
    changed = document.content.replace(b"2026", b"2027").replace(b"team", b"evil")
    changed = changed if changed != document.content else document.content.replace(b"unattested", b"github")
    image.registry.attach(image.repository, image.digest, kind.media_type, [Attachment(content=changed, media_type=kind.media_type)])
    problems = found(image, trust)
    assert set(problems) == {kind.name}
    assert "is not what was signed" in problems[kind.name]


def test_removed_document_is_refused(image, composed, store, signer, trust):
    """Tools that look for the file would not find it."""
    documents.attach(image, attached(composed, store), signer)
    (bill,) = image.registry.referrers(image.repository, image.digest, SPDX.media_type)
    image.registry.delete(image.repository, bill.digest)
    assert found(image, trust) == {SPDX.name: "sbom.spdx.json is not attached"}


def test_documents_of_another_image_are_refused(image, store, signer, trust, tmp_path, registry):
    """Signed by the right key, attached to the wrong image: the bundles are about another digest."""
    other = compose(Store(tmp_path / "store"), tmp_path / "wheels", os_files={**OS_FILES, "etc/other": b"x"})
    theirs = push(registry, image.repository, other, Store(tmp_path / "store"), "other")
    documents.attach(theirs, attached(other, Store(tmp_path / "store")), signer)
    for referrer in theirs.referrers():
        content = theirs.content(referrer)
        image.registry.attach(
            image.repository, image.digest, referrer.artifact_type, [Attachment(content=content, media_type=referrer.artifact_type)], referrer.annotations
        )
    seen = examination.examine(registry, image.reference, trust)
    problems = {finding.part: finding.problem for finding in seen.findings if finding.problem}
    assert set(problems) == {examination.SIGNATURE, *(kind.name for kind in KINDS)}
    assert all("does not hold" in problems[kind.name] for kind in KINDS)


@pytest.mark.parametrize("kind", [CYCLONEDX, SPDX], ids=lambda kind: kind.file)
def test_a_bill_of_another_image_is_refused_though_it_is_signed_for_this_one(image, composed, store, signer, trust, tmp_path, kind):
    """Whoever signs the wrong file by mistake is told."""
    other = compose(Store(tmp_path / "store"), tmp_path / "wheels", os_files={**OS_FILES, "etc/other": b"x"})
    (wrong,) = [each for each in attached(other, Store(tmp_path / "store")) if each.kind == kind]
    documents.attach(image, [wrong if each.kind == kind else each for each in attached(composed, store)], signer)
    problems = found(image, trust)
    assert set(problems) == {kind.name}
    assert problems[kind.name].startswith(f"its image is not the image's: {other.image.digest}")


def test_a_record_that_lies_is_refused_though_it_is_signed(image, composed, store, signer, trust):
    """Its layers and labels are compared with the manifest and the config."""
    true = record_of(composed, store)
    lies = {
        "label torchstrata.lock": msgspec.structs.replace(true, inputs=msgspec.structs.replace(true.inputs, lock="0" * 64)),
        "layers": msgspec.structs.replace(true, layers=true.layers[::-1]),
        "user": msgspec.structs.replace(true, user="0:0"),
    }
    for field, lie in lies.items():
        wrong = Document(kind=RECORD, content=lie.encode(), predicate=lie.encode())
        documents_of = {"document": oci.manifest(image.manifest, "it"), "config": oci.read(composed.image.config, oci.ImageConfig, "it")}
        subject = examination.ExaminedImage(image=image, **documents_of, referrers=(), trust=trust)
        with pytest.raises(UntrustedError, match=f"its {field} is not the image's"):
            examination.CHECKS[RECORD.name](subject, json.loads(wrong.predicate))


def test_a_bundle_that_was_changed_is_refused(image, composed, store, signer, trust):
    """One letter in what is signed is enough."""
    (document,) = [each for each in attached(composed, store) if each.kind == RECORD]
    bundle = json.loads(signer.attest(image.name, image.manifest, RECORD.predicate, document.predicate))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"torch"', b'"torsh"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(UntrustedError, match="an attestation does not hold"):
        trust.check_attestation(canonical(bundle), image.manifest)


def test_a_bundle_that_passes_for_another_kind_is_refused(image, composed, store, signer, trust):
    """The annotation is not signed; the type in the statement is."""
    documents.attach(image, [each for each in attached(composed, store) if each.kind != VERIFICATION], signer)
    bundle = signer.attest(image.name, image.manifest, "urn:example:other:v1", result(composed.image.digest))
    marks = {documents.PREDICATE: VERIFICATION.predicate}
    image.registry.attach(image.repository, image.digest, BUNDLE, [Attachment(content=bundle, media_type=BUNDLE)], marks)
    assert found(image, trust) == {VERIFICATION.name: "what is marked as verification is urn:example:other:v1"}


# Signing


def test_a_wrong_password_is_told(key, monkeypatch):
    """The line says which variable to set."""
    monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
    with pytest.raises(SigningError) as caught:
        Signer.find(str(key)).sign_blob(b"x")
    assert "COSIGN_PASSWORD" in caught.value.fix


def test_the_result_of_tests_is_attached_later(image, composed, store, signer, trust, tmp_path, key):
    """An image is pushed, tested and then attested: ``inv attest``."""
    documents.attach(image, documents.of(record_of(composed, store), {}), signer)
    tested = msgspec.json.decode(result(composed.image.digest), type=evidence.Evidence)
    evidence.write(tested, evidence.folder(tmp_path, tested.cell, tested.flavour))
    signatures.attest(AttestOptions(image=str(image.reference), key=str(key)), tmp_path)
    assert found(image, trust) == {}


# Parts


@pytest.fixture
def part_repository(registry, store):
    """Return a repository of parts of the test's own."""
    return PartRepository(registry=registry, repository=f"parts/{uuid.uuid4().hex}", store=store)


@pytest.fixture
def parts(part_repository, composed, store):
    """Return the parts, pushed."""
    known = {item.identity: store.known(item.identity) for item in composed.plan.items}
    pusher = Pusher(registry=part_repository.registry, repository=part_repository.repository, open_blob=store.open_blob, part_repository=part_repository)
    pusher.push([], known)
    return known


def test_parts_are_believed_once_they_are_sealed(part_repository, parts, signer, trust, registry, tmp_path):
    """One signature covers all of them, and sealing again does nothing."""
    verify = seals.verifier(registry, part_repository.repository, trust)
    other = PartRepository(registry=registry, repository=part_repository.repository, store=Store(tmp_path / "other"), verify=verify)
    with pytest.raises(UntrustedError, match="it is not sealed"):
        other.find(parts)
    assert seals.seal(part_repository, parts, signer) == len(parts)
    assert seals.seal(part_repository, parts, signer) == 0
    assert other.find(parts) == parts


def test_a_part_that_somebody_else_has_pushed_is_not_believed(part_repository, parts, signer, trust, registry, tmp_path):
    """The seal names the digest of the manifest, so that another manifest under the tag has none."""
    seals.seal(part_repository, parts, signer)
    identity = next(iter(parts))
    manifest = json.loads(registry.manifest(part_repository.repository, identity).body)
    changed = canonical({**manifest, "annotations": {"by": "somebody else"}})
    registry.put_manifest(part_repository.repository, identity, changed, "application/vnd.oci.image.manifest.v1+json")
    assert registry.manifest(part_repository.repository, identity).digest == sha256(changed)
    verify = seals.verifier(registry, part_repository.repository, trust)
    other = PartRepository(registry=registry, repository=part_repository.repository, store=Store(tmp_path / "other"), verify=verify)
    with pytest.raises(UntrustedError, match=f"part {identity[:12]} .* must not be used: it is not sealed"):
        other.find(parts)


def test_seals_of_another_key_are_not_believed(part_repository, parts, signer, registry, tmp_path):
    """Whoever may push cannot seal."""
    seals.seal(part_repository, parts, signer)
    theirs = Trust.find(str(keys(tmp_path).with_suffix(".pub")))
    problems = seals.Checker(registry=registry, repository=part_repository.repository, trust=theirs).unsealed(
        {identity: registry.manifest(part_repository.repository, identity).digest for identity in parts}
    )
    assert set(problems) == set(parts)
    assert all("does not hold" in why for why in problems.values())


def test_parts_that_are_not_ours_are_not_sealed(part_repository, parts, signer, registry, store):
    """A push does not sign what it finds under an identity unless it is what was made here."""
    (first, second) = parts
    with pytest.raises(UntrustedError, match="is not the one that is here"):
        seals.seal(part_repository, {first: parts[second]}, signer)


@pytest.mark.parametrize("harm", ["paths", "notes"])
def test_what_somebody_else_says_of_our_layers_is_not_sealed(part_repository, parts, signer, registry, store, harm):
    """Whoever came first may have pushed a part with our layers, and other paths or notes: a signature would make them ours."""
    identity, part = next(iter(parts.items()))
    document = json.loads(registry.manifest(part_repository.repository, identity).body)
    if harm == "paths":
        packed = zstandard.compress(json.dumps({layer.diff_id: [{"path": "etc/other", "kind": "file"}] for layer in part.layers}).encode())
        document["layers"][-1] |= {"digest": sha256(packed), "size": len(packed)}
    else:
        packed = canonical({"identity": identity, "part": msgspec.to_builtins(dataclasses.replace(part, notes={"drift": "none"}))})
        document["config"] |= {"digest": sha256(packed), "size": len(packed)}
    registry.push_blob(part_repository.repository, Content.of(packed))
    registry.put_manifest(part_repository.repository, identity, canonical(document), "application/vnd.oci.image.manifest.v1+json")
    with pytest.raises(UntrustedError, match="is not the one that is here"):
        seals.seal(part_repository, parts, signer)


def test_a_pair_of_keys_is_made_in_one_step(environment, tmp_path, capsys):
    """The private one is for its owner alone; one line says what everybody else sets; a pair that is there stays."""
    signatures.make_key(KeyOptions(to=tmp_path / "team"))
    assert stat.S_IMODE((tmp_path / "team.key").stat().st_mode) == 0o600
    assert f"export COSIGN_PUBLIC_KEY={tmp_path / 'team.pub'}" in capsys.readouterr().out.splitlines()
    content, bundle = b"content", Signer.find(str(tmp_path / "team.key")).sign_blob(b"content")
    Trust.find(str(tmp_path / "team.pub")).check_blob(content, bundle)
    with pytest.raises(SigningError, match="is there already"):
        signatures.make_key(KeyOptions(to=tmp_path / "team"))


def test_a_key_needs_a_password(environment, tmp_path, monkeypatch):
    """Where nobody types one, it says so, and nothing is left."""
    monkeypatch.delenv("COSIGN_PASSWORD")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SigningError, match="nobody has typed a password"):
        signatures.make_key(KeyOptions(to=tmp_path / "team"))
    assert list(tmp_path.iterdir()) == []


def test_codec_is_told(composed, store):
    """The record says how layers were compressed."""
    assert record_of(composed, store).inputs.codec == CODEC.identity
    assert PROVENANCE in KINDS
