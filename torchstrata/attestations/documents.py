"""What is attached to an image: record, two bills of materials, provenance, test result; to an index: its record.

Each is attached twice. Once as it is, under the media type by which tools look for it (``oras discover`` lists them);
and once as a signed statement about the image, in a bundle of its own, which is what proves anything.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torchstrata.attestations import index_record, provenance, record, sbom
from torchstrata.attestations.index_record import IndexRecord
from torchstrata.attestations.record import Record
from torchstrata.attestations.signing import BUNDLE, Signer, Statement, Trust
from torchstrata.errors import UntrustedError
from torchstrata.image.compose import canonical, sha256
from torchstrata.registry import pool
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Attachment, Referrer, Registry
from torchstrata.text import printable

RECORD_PREDICATE: Final = "urn:torchstrata:record:v1"
RESULT_PREDICATE: Final = "urn:torchstrata:verification:v1"
RESULT: Final = "application/vnd.torchstrata.verification.v1+json"

PREDICATE: Final = "dev.sigstore.bundle.predicateType"
"""Annotation by which cosign 3 tells bundles apart."""

ATTACHED: Final = 1000
"""Manifests that refer to one image; a push attaches ten, each verification two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of document.

    :param name: for people.
    :param media_type: of the document; its artifact type too.
    :param predicate: type of the signed statement.
    :param proves: what a signed one proves, in a few words.
    """

    name: str
    media_type: str
    predicate: str
    file: str
    proves: str


RECORD: Final = Kind(
    name="record",
    media_type=record.MEDIA_TYPE,
    predicate=RECORD_PREDICATE,
    file="record.json",
    proves="layers, locks, revision, packages: what it was made from",
)
CYCLONEDX: Final = Kind(
    name="SBOM (CycloneDX)",
    media_type=sbom.CYCLONEDX,
    predicate="https://cyclonedx.org/bom",
    file="sbom.cdx.json",
    proves="every package with version and licence, for scanners",
)
SPDX: Final = Kind(name="SBOM (SPDX)", media_type=sbom.SPDX, predicate="https://spdx.dev/Document", file="sbom.spdx.json", proves="the same, as SPDX")
PROVENANCE: Final = Kind(
    name="provenance",
    media_type=provenance.MEDIA_TYPE,
    predicate=provenance.PREDICATE,
    file="provenance.json",
    proves="who built it, where, from which commit and files",
)
VERIFICATION: Final = Kind(
    name="verification", media_type=RESULT, predicate=RESULT_PREDICATE, file="verify.json", proves="this very image passed all required tests"
)
KINDS: Final = (RECORD, CYCLONEDX, SPDX, PROVENANCE, VERIFICATION)

INDEX: Final = Kind(
    name="index",
    media_type=index_record.INDEX_TYPE,
    predicate="urn:torchstrata:index:v1",
    file="index.json",
    proves="which image it has for which platform; all of them are here",
)
"""What an index has; each of its images has all of :data:`KINDS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document of an image; ``predicate`` is what is signed, as JSON."""

    kind: Kind
    content: bytes
    predicate: bytes


def of(image_record: Record, environment: Mapping[str, str], verification: bytes | None = None) -> tuple[Document, ...]:
    """Return the documents of an image.

    :param environment: variables of the process, which say where it was built.
    :param verification: its ``verify.json``, if it was tested.
    """
    plain = {RECORD: image_record.encode(), CYCLONEDX: sbom.cyclonedx(image_record), SPDX: sbom.spdx(image_record)}
    documents = [Document(kind=kind, content=content, predicate=content) for kind, content in plain.items()]
    statement = provenance.statement(image_record, environment)
    documents.append(Document(kind=PROVENANCE, content=statement, predicate=canonical(provenance.predicate(image_record, environment))))
    return (*documents, *([result(verification)] if verification else ()))


def result(verification: bytes) -> Document:
    """Return the result of an image's tests as a document."""
    return Document(kind=VERIFICATION, content=verification, predicate=verification)


def of_index(recorded: IndexRecord) -> tuple[Document, ...]:
    """Return the documents of an index."""
    return (Document(kind=INDEX, content=recorded.encode(), predicate=recorded.encode()),)


# Attaching


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """An image in a registry.

    :param name: for the subjects of statements.
    """

    registry: Registry
    repository: str
    name: str
    manifest: bytes

    @property
    def digest(self) -> str:
        """Of its manifest."""
        return sha256(self.manifest)

    @property
    def reference(self) -> Reference:
        """Its name by digest."""
        return Reference(host=self.registry.host, repository=self.repository, digest=self.digest)

    def referrers(self) -> tuple[Referrer, ...]:
        """Return what is attached to it.

        :raises UntrustedError: so much that checking it would take hours, as somebody who may push can have it.
        """
        referrers = self.registry.referrers(self.repository, self.digest)
        if len(referrers) > ATTACHED:
            raise UntrustedError(
                f"{self.reference} has {len(referrers)} manifests attached, and may have {ATTACHED}", fix="find out who attaches them, and delete them"
            )
        return referrers

    def content(self, referrer: Referrer) -> bytes:
        """Return the one file of a referrer.

        :raises UntrustedError: it has none or several.
        """
        layers = self.registry.manifest(self.repository, referrer.digest).document().layers or ()
        if len(layers) != 1:
            raise UntrustedError(f"{referrer.digest} has {len(layers)} files, not one", fix="remove it, and attach what belongs there")
        return self.registry.content(self.repository, layers[0].digest)

    def signed(self, referrer: Referrer, kind: Kind, trust: Trust) -> Statement | None:
        """Return what a referrer says about the image, if it is a signed document of a kind.

        :raises UntrustedError: it is one, and does not hold.
        """
        if referrer.artifact_type != BUNDLE or referrer.annotations.get(PREDICATE) != kind.predicate:
            return None
        statement = trust.check_attestation(self.content(referrer), self.manifest)
        if statement.predicate_type != kind.predicate:
            raise UntrustedError(f"what is marked as {kind.name} is {printable(statement.predicate_type)}", fix="remove it, and attach what belongs there")
        return statement

    def put(self, document: Document, bundle: bytes) -> None:
        """Attach a document, and the bundle that signs it."""
        kind, attach = document.kind, functools.partial(self.registry.attach, self.repository, self.digest)
        attach(kind.media_type, [Attachment(content=document.content, media_type=kind.media_type, title=kind.file)])
        marks = {"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE: kind.predicate}
        attach(BUNDLE, [Attachment(content=bundle, media_type=BUNDLE, title=f"{kind.file}.sigstore.json")], marks)


def attach(image: Published, documents: Sequence[Document], signer: Signer) -> int:
    """Sign an image that is in the registry, and attach its documents, signed; return how many signatures were made.

    What the signer has signed already stays as it is: an image was built once, however often it is pushed. Only
    results of tests are added to those that are there.

    :raises SigningError: the key cannot be used.
    """
    with signer.trust() as trust:
        present = image.referrers()
        with pool.threads("sign") as threads:
            signed = threads.submit(_sign, image.reference, signer, trust)
            attested = threads.map(lambda document: _is_attested(image, document, present, trust), documents)
            todo = [document for document, is_attested in zip(documents, attested, strict=True) if not is_attested]
            bundles = threads.map(lambda document: signer.attest(image.name, image.manifest, document.kind.predicate, document.predicate), todo)
            for document, bundle in zip(todo, bundles, strict=True):
                image.put(document, bundle)
            return len(todo) + signed.result()


def _is_attested(image: Published, document: Document, present: Sequence[Referrer], trust: Trust) -> bool:
    """Return whether the signer has attested a document, or one of its kind where one is enough."""
    for referrer in present:
        with contextlib.suppress(UntrustedError):
            statement = image.signed(referrer, document.kind, trust)
            if statement and (document.kind != VERIFICATION or statement.predicate == json.loads(document.predicate)):
                return True
    return False


def _sign(image: Reference, signer: Signer, trust: Trust) -> bool:
    """Sign the image, unless the signer has done that; return whether it was necessary."""
    try:
        trust.check_image(image)
    except UntrustedError:
        signer.sign_image(image)
        return True
    return False
