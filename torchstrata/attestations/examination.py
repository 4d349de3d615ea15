"""Is an image in a registry what it must be? Each signed document is checked against the image and against the others.

All that the trusted signer has signed must hold, older documents too. What others have attached counts for nothing,
but a document that looks like a signed one and is none is a reason to refuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from torchstrata import decoding
from torchstrata.attestations import documents, index_record, provenance, record, sbom
from torchstrata.attestations.documents import KINDS, Kind, Published
from torchstrata.attestations.index_record import IndexRecord
from torchstrata.attestations.record import Record
from torchstrata.attestations.signing import Trust
from torchstrata.errors import ImageIndexError, RegistryError, TorchstrataError, UntrustedError, UnverifiedError
from torchstrata.image import image_index, oci, runtime
from torchstrata.image.compose import MANIFEST
from torchstrata.locks import os_locks
from torchstrata.registry import client, dated_tag, platform_indexes
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Referrer, Registry
from torchstrata.text import printable
from torchstrata.verification.evidence import Evidence

SIGNATURE: Final = "signature"
PLATFORMS: Final = "platforms"
WHOLE: Final = "no platform of its row is missing"
LABELS: Final[Mapping[str, str]] = {
    "torchstrata.cell": "cell",
    "torchstrata.flavour": "flavour",
    "torchstrata.lock": "inputs.lock",
    "torchstrata.os": "os.id",
    "torchstrata.torch": "torch.version",
    "org.opencontainers.image.revision": "source.revision",
}
"""Labels that say what a field of the record says."""

NOT_AS_LOCKED: Final = "its OS packages are not as locked: {}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found of one part of an image's evidence.

    :param proves: what it proves if it holds.
    :param problem: why it does not; empty if it does.
    :param says: what it says, in a few words.
    :param platform: of which image of an index it was found; empty for what is found of what was asked for itself.
    """

    part: str
    proves: str
    problem: str = ""
    says: str = ""
    platform: str = ""

    def __str__(self) -> str:
        return f"{self.platform} {self.part}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """All findings about an image."""

    image: Reference
    findings: tuple[Finding, ...]

    def require(self) -> None:
        """Return if everything holds.

        :raises UnverifiedError: the result of its tests is missing or bad, and nothing else is.
        :raises ImageIndexError: an index has not the images that it must have.
        :raises UntrustedError: something else is.
        """
        bad = [finding for finding in self.findings if finding.problem]
        if not bad:
            return
        parts = {finding.part for finding in bad}
        kind = ImageIndexError if PLATFORMS in parts else UnverifiedError if parts == {documents.VERIFICATION.name} else UntrustedError
        lines = "; ".join(f"{finding}: {finding.problem}" for finding in bad)
        raise kind(f"{self.image} must not be used: {lines}", fix="release another image, or push and verify this one again with the right key")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedImage:
    """The image as the registry has it.

    :param signed: predicates of the kinds that were checked, by the kind's name.
    """

    image: Published
    document: oci.ManifestOrIndex
    config: oci.ImageConfig
    referrers: tuple[Referrer, ...]
    trust: Trust
    signed: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)


def examine(registry: Registry, image: Reference, trust: Trust) -> Examination:
    """Return what there is to say of an image; of an index, of it and of each of its images.

    :raises RegistryError: there is no such image, or the registry does not answer.
    """
    manifest = registry.manifest(image.repository, image.name)
    if manifest.media_type not in {MANIFEST, oci.INDEX}:
        raise RegistryError(f"{image} is no image of this program: its manifest is {manifest.media_type}", fix="name an image of this program")
    subject = _subject(registry, image, manifest, trust)
    if manifest.media_type == oci.INDEX:
        findings = [_signature(subject), *_index_findings(subject, manifest)]
    else:
        findings = [_signature(subject), *(_finding(subject, kind) for kind in KINDS), *_alone(subject, image.tag)]
    return Examination(image=replace(subject.image.reference, tag=image.tag), findings=tuple(findings))


def _subject(registry: Registry, image: Reference, manifest: client.Manifest, trust: Trust) -> ExaminedImage:
    published = Published(registry=registry, repository=image.repository, name=str(image), manifest=manifest.body)
    config = oci.ImageConfig() if manifest.media_type == oci.INDEX else registry.image_config(image.repository, manifest.digest)
    return ExaminedImage(image=published, document=manifest.document(), config=config, referrers=published.referrers(), trust=trust)


# Indexes


def _index_findings(subject: ExaminedImage, index: client.Manifest) -> Iterator[Finding]:
    """Yield the findings about an index and each of its images; about the index alone if they are not its images."""
    registry, repository = subject.image.registry, subject.image.repository
    try:
        images = platform_indexes.images(registry, repository, index, subject.image.name)
    except ImageIndexError as error:
        yield Finding(part=PLATFORMS, proves=WHOLE, problem=error.what)
        return
    yield _finding(subject, documents.INDEX)
    examined = {platform: _subject(registry, replace(subject.image.reference, digest=image.digest), image, subject.trust) for platform, image in images.items()}
    inner = {platform: [_signature(image), *(_finding(image, kind) for kind in KINDS)] for platform, image in examined.items()}
    yield _together(subject, examined)
    for platform, findings in inner.items():
        yield from (replace(finding, platform=platform) for finding in findings)


def _together(subject: ExaminedImage, images: Mapping[str, ExaminedImage]) -> Finding:
    """Check by the signed records that the images belong together, and that no other one does."""
    try:
        identities = {(index.cell, index.flavour, index.user) for index in map(_index_record, subject.signed.get(documents.INDEX.name, []))}
        for platform, image in images.items():
            for signed in _records(image):
                _same(f"platform of {platform}", signed.platform, platform)
                image_index.require(images, {*images, *signed.platforms}, "the index")
                identities.add((signed.cell, signed.flavour, signed.user))
        if len(identities) > 1:
            raise ImageIndexError("it has images of several cells, flavours or users", fix=image_index.REMEDY)
    except TorchstrataError as error:
        return Finding(part=PLATFORMS, proves=WHOLE, problem=error.what)
    return Finding(part=PLATFORMS, proves=WHOLE, says=", ".join(images))


def _alone(subject: ExaminedImage, tag: str | None) -> Iterator[Finding]:
    """Yield a finding where a tag for an index names one of its images: other platforms would be gone unseen."""
    row = next((signed.platforms for signed in _records(subject) if signed.platforms), ())
    if row and tag and not dated_tag.is_of_platform(tag):
        problem = f"tag {tag} names the image for {image_index.of_config(subject.config)} alone; its row has {', '.join(row)}"
        yield Finding(part=PLATFORMS, proves=WHOLE, problem=problem)


def _records(subject: ExaminedImage) -> list[Record]:
    """Return the signed records of an image that can be read; those that cannot have a finding of their own."""
    records = list[Record]()
    for predicate in subject.signed.get(documents.RECORD.name, []):
        with contextlib.suppress(UntrustedError):
            records.append(_decoded(predicate))
    return records


def _index(subject: ExaminedImage, predicate: Mapping[str, Any]) -> str:
    signed_index = _index_record(predicate)
    _same("digest", signed_index.digest, subject.image.digest)
    listed = image_index.read(subject.image.manifest, "the index").digests
    image_index.require(listed, signed_index.images, "the index")
    _same("images", signed_index.images, dict(listed))
    return f"{signed_index.name}: {', '.join(signed_index.images)}"


def _index_record(predicate: Mapping[str, Any]) -> IndexRecord:
    return index_record.decode(msgspec.json.encode(predicate))


# Images


def _signature(subject: ExaminedImage) -> Finding:
    proves = "the owner of the key has published this very image"
    try:
        subject.trust.check_image(subject.image.reference)
    except UntrustedError as error:
        return Finding(part=SIGNATURE, proves=proves, problem=error.what)
    return Finding(part=SIGNATURE, proves=proves, says="by key" if subject.trust.key else subject.trust.identity)


def _finding(subject: ExaminedImage, kind: Kind) -> Finding:
    """Check the documents of one kind: there is one, each signed one holds, and what is attached is what is signed."""
    try:
        statements = _statements(subject, kind)
        says = [CHECKS[kind.name](subject, statement) for statement in statements]
        _check_plain(subject, kind, statements)
    except TorchstrataError as error:
        return Finding(part=kind.name, proves=kind.proves, problem=error.what)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # of what a signer has said; msgspec's errors are ValueErrors
        return Finding(part=kind.name, proves=kind.proves, problem=f"it is not of the shape that it must have ({printable(repr(error))})")
    return Finding(part=kind.name, proves=kind.proves, says=says[-1])


def _statements(subject: ExaminedImage, kind: Kind) -> list[Mapping[str, Any]]:
    """Return what the signer says.

    :raises UntrustedError: nothing.
    """
    problems, statements = list[str](), list[Mapping[str, Any]]()
    for referrer in subject.referrers:
        try:
            statement = subject.image.signed(referrer, kind, subject.trust)
            statements += [statement.predicate] if statement else []
        except UntrustedError as error:
            problems.append(error.what)
    if not statements:
        raise UntrustedError(problems[0] if problems else "there is none that is signed", fix="push it again with the right key")
    subject.signed[kind.name] = statements
    return statements


def _check_plain(subject: ExaminedImage, kind: Kind, statements: list[Mapping[str, Any]]) -> None:
    """Check that every document that is attached as it is says what a signed one says."""
    plain = [referrer for referrer in subject.referrers if referrer.artifact_type == kind.media_type]
    if not plain:
        raise UntrustedError(f"{kind.file} is not attached", fix="push it again")
    for referrer in plain:
        content = subject.image.content(referrer)
        stated = decoding.read(content, dict[str, Any], kind.file, limit=client.SMALL, error=UntrustedError)
        stated = stated.get("predicate", {}) if kind == documents.PROVENANCE else stated
        if stated not in statements:
            raise UntrustedError(f"{kind.file} ({referrer.digest[7:19]}) is attached, and is not what was signed", fix="remove it from the registry")


# What each kind must say


def _record(subject: ExaminedImage, predicate: Mapping[str, Any]) -> str:
    signed, config = _decoded(predicate), subject.config
    if signed.inputs.drift:
        raise UntrustedError(NOT_AS_LOCKED.format(os_locks.in_short(os_locks.from_words(", ".join(signed.inputs.drift)))), fix=runtime.REBUILD)
    _same(f"label {runtime.DRIFT}", None, config.labels.get(runtime.DRIFT))
    _same("digest", signed.digest, subject.image.digest)
    _same("config", signed.config, _config(subject))
    layers = [(layer.digest, layer.size, layer.media_type) for layer in subject.document.layers or ()]
    _same("layers", [(layer.digest, layer.size, layer.media_type) for layer in signed.layers], layers)
    _same("diff IDs", [layer.diff_id for layer in signed.layers], list(config.rootfs.diff_ids) if config.rootfs else None)
    _same("user", signed.user, config.user)
    _same("platform", signed.platform, image_index.of_config(config) or signed.platform)
    for label, path in LABELS.items():
        _same(f"label {label}", _field(signed, path), config.labels.get(label))
    return f"{signed.name}, {len(signed.layers)} layers, commit {signed.source.revision[:12]}, lock {signed.inputs.lock[:12]}"


def _bill(subject: ExaminedImage, predicate: Mapping[str, Any]) -> str:
    _same("image", sbom.subject(msgspec.json.encode(predicate)), subject.image.digest)
    purls = set(_purls(predicate))
    for statement in subject.signed.get(documents.RECORD.name, []):
        wanted = {piece.purl.to_string() for piece in sbom.pieces(_decoded(statement))}
        if purls != wanted:
            different = sorted(purls ^ wanted)
            raise UntrustedError(f"its packages are not those of the record: {', '.join(different[:3])}", fix="push it again")
    return f"{len(purls)} packages"


def _purls(predicate: Mapping[str, Any]) -> Iterator[str]:
    yield from (entry["purl"] for entry in predicate.get("components", []) if "purl" in entry)
    for package in predicate.get("packages", []):
        yield from (entry["referenceLocator"] for entry in package.get("externalRefs", []) if entry["referenceType"] == "purl")


def _provenance(subject: ExaminedImage, predicate: Mapping[str, Any]) -> str:
    definition = predicate["buildDefinition"]
    _same("build type", definition["buildType"], provenance.BUILD_TYPE)
    for statement in subject.signed.get(documents.RECORD.name, []):
        signed = _decoded(statement)
        _same("parameters", definition["externalParameters"], {"cell": signed.cell, "flavour": signed.flavour, "user": signed.user})
    builder = predicate["runDetails"]["builder"]["id"]
    return f"{'a machine that nobody vouches for' if builder == provenance.BY_HAND else builder}, {len(definition['resolvedDependencies'])} inputs"


def _verification(subject: ExaminedImage, predicate: Mapping[str, Any]) -> str:
    evidence = decoding.convert(predicate, Evidence)
    if not evidence.is_of(subject.image.digest) and not evidence.is_of(_config(subject)):
        raise UnverifiedError("it is about another image", fix="verify this one")
    if not (evidence.passed and evidence.complete):
        why = evidence.problems[0] if evidence.problems else "it was not complete"
        raise UnverifiedError(f"the image did not pass: {why}", fix="correct it, build it and verify it again")
    if evidence.drift:
        raise UnverifiedError(NOT_AS_LOCKED.format(", ".join(evidence.drift)), fix=runtime.REBUILD)
    return f"{evidence.counts.passed} of {evidence.counts.required} required tests passed, tiers {', '.join(evidence.tiers)}"


CHECKS: Final = {
    documents.INDEX.name: _index,
    documents.RECORD.name: _record,
    documents.CYCLONEDX.name: _bill,
    documents.SPDX.name: _bill,
    documents.PROVENANCE.name: _provenance,
    documents.VERIFICATION.name: _verification,
}


def _config(subject: ExaminedImage) -> str:
    """Return the digest of the image's config, which engines call the image's."""
    return subject.document.config.digest if subject.document.config else ""


def _decoded(predicate: Mapping[str, Any]) -> Record:
    return record.decode(msgspec.json.encode(predicate))


def _field(signed: Record, path: str) -> object:
    value: object = signed
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _same(what: str, stated: object, actual: object) -> None:
    if stated != actual:
        difference = f"{printable(str(stated), 80)} instead of {printable(str(actual), 80)}"
        raise UntrustedError(f"its {what} is not the image's: {difference}", fix="attach what belongs to this image")
