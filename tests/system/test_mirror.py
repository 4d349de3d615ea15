"""Cells copied from one real registry to others and to directories, and back; cosign, oras and a shell without a network read the copies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import registries, signed
from tests.desks import manifest
from torchstrata.attestations import cosign
from torchstrata.attestations.documents import KINDS
from torchstrata.errors import ImmutableTagError, IntegrityError, MirrorError
from torchstrata.image.compose import sha256
from torchstrata.matrix import matrix
from torchstrata.registry import replica, upload
from torchstrata.registry.directory import Directory
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.registry.replica import RegistrySide
from torchstrata.release import channels

REPOSITORY, CELL = signed.REPOSITORY, signed.CELL
IMAGES = channels.images(signed.MATRIX, CELL)


def run(*words, **options):
    """Run a program; return what it said and its status."""
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)


def mirror(team, word, *words, **known):
    """Run ``inv mirror``; return what it printed."""
    ended = team.inv("mirror", word, "--ledger", f"{team.ledger}#ledger", *words, **known)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def pushed(team):
    """Push a cell, signed, with its documents; take it into both channels; return the digests by image."""
    digests = {name: found.digest for name, found in signed.push(team, 1).items()}
    for channel, *words in (["nightly"], ["stable", "--no-soak", "it is a test"]):
        moved = team.promote(channel, *words, "--yes")
        assert moved.returncode == 0, moved.stderr
    return digests


@pytest.fixture(scope="module")
def tags(team, pushed):
    """Return digest by tag of all tags of the team's registry that belong to the cell."""
    with Registry(team.host) as registry:
        known = {tag: registry.find(REPOSITORY, tag).digest for tag in registry.tags(REPOSITORY)}
    owned = {f"sha256-{digest.removeprefix('sha256:')}" for digest in pushed.values()}
    return {tag: digest for tag, digest in known.items() if digest in pushed.values() or tag.partition(".")[0] in owned}


@pytest.fixture(scope="module")
def directory(team, pushed, tmp_path_factory):
    """Copy the cell to a directory."""
    root = tmp_path_factory.mktemp("mirror") / "cell"
    mirror(team, "2.13-cpu", "--to", root)
    return root


@pytest.fixture
def copied(directory, tmp_path):
    """Return a copy of the directory, to do harm to."""
    return Path(shutil.copytree(directory, tmp_path / "cell"))


@pytest.fixture
def other(tmp_path):
    """Run another registry."""
    with registries.registry(tmp_path) as served:
        yield served


def verify(root, *words):
    """Run the directory's own script, without any network."""
    return run("unshare", "--map-root-user", "--net", root / "verify", *words)


def check_copy(team, served, pushed, tags):
    """Check that a registry has the cell as the team's has it: every tag, every referrer, all of it trusted."""
    with Registry(team.host) as ours, Registry(served.host) as theirs:
        lists = {f"sha256-{digest.removeprefix('sha256:')}" for digest in pushed.values()}  # whose order is each registry's own
        assert {tag: served.tags(REPOSITORY)[tag] for tag in tags if tag not in lists} == {tag: digest for tag, digest in tags.items() if tag not in lists}
        for digest in pushed.values():
            there, here = ({each.digest: each for each in side.referrers(REPOSITORY, digest)} for side in (theirs, ours))
            assert there == here
            assert len(there) == 2 * len(KINDS)
    checked = team.inv("verify-release", f"{served.host}/{REPOSITORY}:v2.13")
    assert checked.returncode == 0, checked.stderr


# To registries


def test_another_registry_gets_everything_unchanged(team, pushed, tags, other):
    """Every tag with its digest, every referrer, trusted by the same key; a second time nothing is copied."""
    first = mirror(team, "2.13-cpu", "--to", f"{other.host}/team")
    check_copy(team, other, pushed, tags)
    assert f"{len(pushed)} images" in first
    lines = len(other.log.splitlines())
    assert "0 B copied" in mirror(team, "2.13-cpu", "--to", f"{other.host}/team")
    assert [line for line in other.log.splitlines()[lines:] if '"PUT ' in line or '"POST ' in line or '"PATCH ' in line] == []


def test_cosign_and_oras_read_the_copy(team, pushed, other):
    """They know nothing of ours."""
    mirror(team, "2.13-cpu", "--to", f"{other.host}/team")
    reference = f"{other.host}/{REPOSITORY}:v2.13"
    seen = run("oras", "discover", "--plain-http", "--format", "json", reference)
    assert len(json.loads(seen.stdout).get("referrers") or json.loads(seen.stdout)["manifests"]) == 2 * len(KINDS)
    key = f"--key={team.key.with_suffix('.pub')}"
    assert run("cosign", "verify", key, "--insecure-ignore-tlog=true", "--allow-insecure-registry", reference).returncode == 0


def test_a_tag_or_a_digest_is_copied_alone(team, pushed, other):
    """With all that belongs to that image; a digest has no tag there either."""
    mirror(team, "2.13-cpu-devel", "--to", f"{other.host}/team")
    mirror(team, pushed["base"], "--to", f"{other.host}/team")
    found = {tag: digest for tag, digest in other.tags(REPOSITORY).items() if not tag.startswith("sha256-")}
    assert found == {"2.13-cpu-devel": pushed["devel"]}
    with Registry(other.host) as registry:
        assert len(registry.referrers(REPOSITORY, pushed["base"])) == 2 * len(KINDS)
        assert registry.find(REPOSITORY, pushed["jupyter"]) is None


def test_what_was_pushed_is_copied_whatever_channels_hold(team, pushed, other):
    """By build; the tags are the dated ones."""
    mirror(team, "2.13-cpu", "--to", f"{other.host}/team", "--build", "20261124.1")
    found = {tag: digest for tag, digest in other.tags(REPOSITORY).items() if not tag.startswith("sha256-")}
    assert found == {f"{CELL.version}-cpu-{CELL.os.id}-{image}-20261124.1": digest for image, digest in pushed.items()}


@pytest.mark.parametrize(("word", "more"), [("2.8-cu121", ()), ("no-such-tag", ()), ("2.13-cpu", ("--build", "yesterday"))])
def test_what_is_not_there_is_no_copy(team, pushed, other, word, more):
    """A cell without images, a tag that nobody has pushed, a build that is none: exit code 43, two lines, nothing copied."""
    ended = team.inv("mirror", word, "--to", f"{other.host}/team", "--ledger", f"{team.ledger}#ledger", *more)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (43, 2), ended.stderr
    assert not (other.storage / "repositories").exists()


def test_signatures_that_the_copy_has_more_of_stay(team, pushed, other, tmp_path):
    """Somebody has signed the copy with a key of their own; copying again leaves that."""
    mirror(team, "2.13-cpu-base", "--to", f"{other.host}/team")
    assert run("cosign", "generate-key-pair", cwd=tmp_path).returncode == 0
    reference, options = f"{other.host}/{REPOSITORY}@{pushed['base']}", ["--insecure-ignore-tlog=true", "--allow-insecure-registry"]
    services = ["--use-signing-config=false", "--new-bundle-format=false"] if cosign.is_newer() else []
    signed = run("cosign", "sign", "--yes", "--key", tmp_path / "cosign.key", "--tlog-upload=false", *services, "--allow-insecure-registry", reference)
    assert signed.returncode == 0, signed.stderr
    mirror(team, "2.13-cpu-base", "--to", f"{other.host}/team")
    for key in (tmp_path / "cosign.pub", team.key.with_suffix(".pub")):
        assert run("cosign", "verify", f"--key={key}", *options, reference).returncode == 0


def test_a_dated_tag_of_another_image_is_not_overwritten(team, pushed, other):
    """It never moves there either; exit code 32."""
    with Registry(other.host) as registry:
        manifest(registry, REPOSITORY, f"{CELL.version}-cpu-{CELL.os.id}-devel-20261124.1", [])
    ended = team.inv("mirror", "2.13-cpu", "--to", f"{other.host}/team", "--ledger", f"{team.ledger}#ledger")
    assert ended.returncode == ImmutableTagError.code
    assert "v2.13" not in other.tags(REPOSITORY)


def test_oras_alone_would_leave_signatures_behind(team, pushed, other):
    """It copies what refers to an image, and not cosign's tags, nor more than one image; it is why copies are made here."""
    ended = run("oras", "cp", "-r", "--from-plain-http", "--to-plain-http", f"{team.host}/{REPOSITORY}:v2.13", f"{other.host}/{REPOSITORY}:v2.13")
    assert ended.returncode == 0, ended.stderr
    digest = next(digest for digest in pushed.values() if digest == other.tags(REPOSITORY)["v2.13"])
    with Registry(other.host) as theirs:
        assert len(theirs.referrers(REPOSITORY, digest)) == 2 * len(KINDS)
        assert theirs.find(REPOSITORY, f"sha256-{digest.removeprefix('sha256:')}.sig") is None
    assert {tag for tag in other.tags(REPOSITORY) if not tag.startswith("sha256-")} == {"v2.13"}


# Streams


BIG = bytes(range(256)) * 20_000


def big(registry, data=BIG):
    """Push an image with a layer of 5 MB and a document; return its digest."""
    digest = sha256(manifest(registry, "x", "v1", [data]))
    registry.attach("x", digest, "application/z", [Attachment(content=b"document", media_type="text/plain", title="document.txt")])
    return digest


@pytest.fixture
def pair(tmp_path):
    """Run two registries; return their sides, and the servers."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with registries.registry(tmp_path / "one") as one, registries.registry(tmp_path / "two") as two, Registry(one.host) as first, Registry(two.host) as second:
        yield RegistrySide(registry=first, repository="x"), RegistrySide(registry=second, repository="y"), one, two


def nothing(_):
    """Take no notice of progress."""


def test_a_large_blob_goes_through_in_pieces_and_is_read_once(pair, monkeypatch):
    """Uploads in pieces of 1 MB, one download; no file and no more memory than a piece needs."""
    monkeypatch.setattr(upload, "PIECE", 1_000_000)
    origin, target, one, two = pair
    digest = big(origin.registry)
    replica.copy(origin, target, replica.gather(origin, [digest], {"v1": digest}), nothing)
    assert target.find("v1") == digest
    assert two.blob(sha256(BIG)).read_bytes() == BIG
    assert two.log.count('"PATCH /v2/y/blobs/uploads/') == len(BIG) // 1_000_000
    assert one.log.count(f'"GET /v2/x/blobs/{sha256(BIG)}') == 1


def test_a_damaged_origin_leaves_no_tag(pair):
    """A byte on its disk has changed: whichever the target, nothing there has a name; mended, the copy goes on."""
    origin, target, one, two = pair
    digest = big(origin.registry)
    what = replica.gather(origin, [digest], {"v1": digest})
    one.damage(sha256(BIG))
    with pytest.raises(IntegrityError):
        replica.copy(origin, target, what, nothing)
    assert two.tags("y") == {}
    one.damage(sha256(BIG))
    replica.copy(origin, target, what, nothing)
    assert two.tags("y")["v1"] == digest
    assert two.blob(sha256(BIG)).read_bytes() == BIG


def test_a_damaged_origin_leaves_no_index(pair, tmp_path):
    """Nor a blob under the name of what it is not."""
    origin, _, one, _ = pair
    digest = big(origin.registry)
    what, target = replica.gather(origin, [digest], {"v1": digest}), Directory(root=tmp_path / "cell")
    one.damage(sha256(BIG))
    with pytest.raises(IntegrityError):
        replica.copy(origin, target, what, nothing)
    assert not (tmp_path / "cell/index.json").exists()
    assert not target.path(sha256(BIG)).exists()
    one.damage(sha256(BIG))
    replica.copy(origin, Directory(root=tmp_path / "cell"), what, nothing)
    assert Directory(root=tmp_path / "cell").tags == {"v1": digest}


def test_signatures_that_both_sides_lack_are_nobodys_to_choose(pair):
    """Each has one that the other has not: that is said, and nothing is overwritten."""
    origin, target, _, _ = pair
    digest = big(origin.registry)
    for side, mark in ((origin, b"ours"), (target, b"theirs")):
        manifest(side.registry, side.repository, f"sha256-{digest[7:]}.sig", [mark])
    with pytest.raises(MirrorError, match="has signatures that are not here"):
        replica.copy(origin, target, replica.gather(origin, [digest], {"v1": digest}), nothing)
    assert target.find("v1") is None


# To directories, and back


def test_a_directory_names_every_tag(directory, tags):
    """In its index; with locks, documents, signatures, the public key and a script beside the images."""
    lists = {tag for tag in tags if tag.startswith("sha256-") and not tag.endswith(".sig")}
    assert Directory(root=directory).tags == {tag: digest for tag, digest in tags.items() if tag not in lists}
    devel = f"{CELL.version}-cpu-{CELL.os.id}-devel-20261124.1"
    assert sorted(path.name for path in (directory / "documents" / devel).iterdir()) == sorted(kind.file for kind in KINDS)
    assert sorted(path.name for path in (directory / "signatures" / devel).iterdir()) == sorted(
        ["image-1.payload", "image-1.sig", "manifest.json", *(f"{kind.file}.sigstore.json" for kind in KINDS)]
    )
    assert (directory / "locks" / f"{devel}.lock").exists()
    assert "openssl:amd64=3.0.17-1~deb12u1" in (directory / "locks" / f"{devel}.packages").read_text()
    assert (directory / "cosign.pub").exists()
    assert not list(directory.rglob("*.partial"))


def test_the_script_verifies_without_a_network(directory, team):
    """Every digest and every signature; with the key beside the images, and with the one that the team gave out."""
    for words in ((), (team.key.with_suffix(".pub"),)):
        checked = verify(directory, *words)
        assert checked.returncode == 0, checked.stderr
        digests, signatures = checked.stdout.splitlines()
        assert digests.endswith("all have their digests")
        assert signatures.startswith(f"signatures: {len(IMAGES) * (1 + len(KINDS))} hold")


def test_the_script_says_what_it_could_not_check(directory):
    """Without cosign, digests are still checked."""
    checked = run(directory / "verify", env={"PATH": "/usr/bin:/bin"})
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "signatures: not checked, cosign is not installed")


def test_a_changed_blob_is_found(copied, pushed):
    """By its name; so is one that is gone."""
    path = Directory(root=copied).path(pushed["devel"])
    layer = json.loads(path.read_bytes())["layers"][0]["digest"]
    blob = Directory(root=copied).path(layer)
    blob.write_bytes(blob.read_bytes()[:-1] + b"X")
    checked = verify(copied)
    assert (checked.returncode, checked.stderr) == (1, f"WRONG: blobs/sha256/{blob.name} has other bytes than its name says\n")
    blob.unlink()
    assert f"{layer} is not there" in verify(copied).stderr


@pytest.mark.parametrize("pattern", ["documents/*devel*/sbom.cdx.json", "signatures/*devel*/record.json.sigstore.json", "signatures/*devel*/image-1.payload"])
def test_a_changed_file_beside_the_images_is_found(copied, pattern):
    """It is not what is attached to the image."""
    (path,) = copied.glob(pattern)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    checked = verify(copied)
    assert (checked.returncode, f"WRONG: {path.relative_to(copied)} is not what is attached" in checked.stderr) == (1, True), checked.stderr


def test_a_signature_of_another_image_is_found(copied):
    """Even if it holds by itself."""
    devel, base = (next(copied.glob(f"signatures/*-{image}-*")) for image in ("devel", "base"))
    shutil.copy(base / "record.json.sigstore.json", devel)
    assert "record.json.sigstore.json is not what is attached to the image" in verify(copied).stderr


def test_a_foreign_key_is_found(copied, tmp_path):
    """The signatures are not by its owner."""
    assert run("cosign", "generate-key-pair", cwd=tmp_path).returncode == 0
    checked = verify(copied, tmp_path / "cosign.pub")
    assert (checked.returncode, "is not by the owner of the key" in checked.stderr) == (1, True), checked.stderr


def test_a_lock_that_names_another_wheel_is_found(copied):
    """Locks follow from the signed records."""
    (path,) = copied.glob("locks/*devel*.lock")
    path.write_text(path.read_text() + f"torch==9 --hash=sha256:{'0' * 64}\n")
    assert "is not what is attached to the image, or follows from its record" in verify(copied).stderr


def test_oras_reads_the_directory(directory):
    """As an OCI layout, with what is attached."""
    reference = f"{directory}:v2.13"
    assert run("oras", "manifest", "fetch", "--oci-layout", reference).returncode == 0
    seen = run("oras", "discover", "--oci-layout", "--format", "json", reference)
    assert seen.returncode == 0, seen.stderr
    assert len(json.loads(seen.stdout).get("referrers") or json.loads(seen.stdout)["manifests"]) == 2 * len(KINDS)


def test_a_directory_goes_back_into_a_registry(team, directory, pushed, tags, other):
    """Everything is as it was, and trusted; no ledger is needed, nor the team's registry."""
    ended = run(Path(sys.executable).parent / "inv", "mirror", "2.13-cpu", "--from", directory, "--to", f"{other.host}/team", cwd=matrix.ROOT)
    assert ended.returncode == 0, ended.stderr
    check_copy(team, other, pushed, tags)


def test_a_damaged_directory_does_not_go_back(copied, pushed, other):
    """Exit code 13; no tag is there afterwards."""
    blob = Directory(root=copied).path(json.loads(Directory(root=copied).path(pushed["devel"]).read_bytes())["layers"][0]["digest"])
    blob.write_bytes(b"X" * blob.stat().st_size)
    ended = run(Path(sys.executable).parent / "inv", "mirror", "2.13-cpu", "--from", copied, "--to", f"{other.host}/team", cwd=matrix.ROOT)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (IntegrityError.code, 2), ended.stderr
    assert {tag for tag in other.tags(REPOSITORY) if not tag.startswith("sha256-")} == set()


def test_a_copy_that_broke_off_goes_on(team, copied, pushed):
    """What is there is not copied again, and the index names what it named."""
    before = (copied / "index.json").read_bytes()
    (copied / "index.json").unlink()
    lost = [Directory(root=copied).path(digest) for digest in pushed.values()][:2]
    layer = Directory(root=copied).path(json.loads(lost[0].read_bytes())["layers"][0]["digest"])
    size = layer.stat().st_size
    for path in (*lost, layer):
        path.unlink()
    said = mirror(team, "2.13-cpu", "--to", copied)
    assert f"{size} B copied" in said
    assert (copied / "index.json").read_bytes() == before
    assert verify(copied).returncode == 0


def test_a_directory_takes_more_than_one_copy(team, copied, pushed, tags):
    """What it has stays; a second time nothing is listed twice."""
    mirror(team, "nightly-2.13-cpu-base", "--to", copied)
    mirror(team, "2.13-cpu", "--to", copied)
    listed = [json.dumps(each, sort_keys=True) for each in json.loads((copied / "index.json").read_bytes())["manifests"]]
    assert len(listed) == len(set(listed))
    assert set(Directory(root=copied).tags) == {tag for tag in tags if not tag.startswith("sha256-") or tag.endswith(".sig")}
    assert verify(copied).returncode == 0
