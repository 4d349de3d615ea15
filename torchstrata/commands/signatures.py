"""The verbs around signatures: what a push attaches to its images, ``inv attest`` and ``inv verify-release``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec
from rich.table import Table

from torchstrata import progress
from torchstrata.attestations import documents, examination, index_record, key_pair, materials, signing
from torchstrata.attestations.documents import Document, Published
from torchstrata.attestations.examination import Examination
from torchstrata.attestations.made import record_of
from torchstrata.attestations.signing import Signer, Trust
from torchstrata.building.assembly import Composed
from torchstrata.commands.release_options import AttestOptions, KeyOptions, VerifyReleaseOptions
from torchstrata.errors import EvidenceError
from torchstrata.image import oci
from torchstrata.image.compose import Image, sha256
from torchstrata.image.image_index import ImageIndex
from torchstrata.matrix.matrix import ROOT
from torchstrata.registry import platform_indexes
from torchstrata.registry.client import Manifest
from torchstrata.registry.patience import Patience
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Registry
from torchstrata.store.codec import Codec
from torchstrata.store.layer import OpenBlob
from torchstrata.store.store import Store
from torchstrata.verification import evidence
from torchstrata.verification.evidence import RESULTS


@dataclass(frozen=True, kw_only=True)
class Attacher:
    """Signs a push's images and attaches their documents; :class:`torchstrata.registry.push.Pusher` calls it for each.

    :param documents: by digest of the image.
    """

    documents: Mapping[str, Sequence[Document]]
    signer: Signer

    @classmethod
    def of(cls, composed: Sequence[Composed], maker: DocumentMaker, signer: Signer) -> Self:
        """Return the attacher of these images; make it before parts are pushed: those without inventory get one."""
        return cls(documents={one.image.digest: maker.documents(one) for one in composed}, signer=signer)

    def __call__(self, registry: Registry, repository: str, image: Image) -> None:
        """Attach and sign.

        :raises SigningError: the key cannot be used.
        """
        published = Published(registry=registry, repository=repository, name=image.name, manifest=image.manifest)
        documents.attach(published, self.documents[image.digest], self.signer)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexAttacher:
    """Signs indexes and attaches their records; what :class:`torchstrata.registry.platform_indexes.Joiner` calls for each."""

    signer: Signer

    def __call__(self, registry: Registry, repository: str, index: ImageIndex) -> None:
        """Attach and sign.

        :raises SigningError: the key cannot be used.
        """
        config = registry.image_config(repository, index.images[0].digest)
        published = Published(registry=registry, repository=repository, name=index.name, manifest=index.body)
        documents.attach(published, documents.of_index(index_record.of(index, config)), self.signer)


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentMaker:
    """Makes the documents of images.

    :param open_blob: where blobs of parts come from.
    :param results: directory with the results of tests; an image that was not tested gets no such document.
    """

    store: Store
    codec: Codec
    open_blob: OpenBlob
    results: Path = RESULTS

    def documents(self, one: Composed) -> tuple[Document, ...]:
        """Return the documents of an image that was composed."""
        made = materials.gather(one, self.store, self.codec, ROOT, self.open_blob)
        return documents.of(record_of(made), os.environ, _result(self.results, one.image.digest, sha256(one.image.config)))


def _result(results: Path, *digests: str) -> bytes | None:
    """Return the result of tests that an image passed, whichever of its digests the engine knew."""
    for digest in digests:
        try:
            return msgspec.json.format(msgspec.json.encode(evidence.find(digest, results)))
        except EvidenceError:
            continue
    return None


def make_key(options: KeyOptions) -> None:
    """Make a pair of keys, and print the one line that lets builds trust what it seals.

    :raises SigningError: there is such a pair, or no cosign, or no password.
    """
    public = key_pair.make_key(options.to)
    progress.say(
        f"{public.with_suffix('.key')}: keep it and its password secret; who signs sets {signing.KEY} to it",
        "everybody who builds from the registry:",
        f"export {signing.PUBLIC_KEY}={shlex.quote(str(public))}",
    )


def attest(options: AttestOptions, results: Path = RESULTS) -> None:
    """Attach the result of its tests to an image that is in a registry, signed; of an index, to each of its images.

    :raises EvidenceError: there is no result that it passed; the images before it have theirs.
    """
    image = Reference.parse(options.image)
    with Registry(image.host) as registry:
        manifest = registry.manifest(image.repository, image.name)
        several = manifest.media_type == oci.INDEX
        for child in platform_indexes.images(registry, image.repository, manifest, str(image)).values() if several else (manifest,):
            _attest(registry, replace(image, digest=child.digest) if several else image, child, options.key, results)


def _attest(registry: Registry, image: Reference, manifest: Manifest, key: str | None, results: Path) -> None:
    config = manifest.document().config
    tested = _result(results, manifest.digest, *([config.digest] if config else [])) or msgspec.json.encode(evidence.find(manifest.digest, results))
    published = Published(registry=registry, repository=image.repository, name=str(image), manifest=manifest.body)
    made = documents.attach(published, (documents.result(tested),), Signer.find(key))
    progress.say(f"{published.reference}: {made} signatures made")


def verify_release(options: VerifyReleaseOptions) -> None:
    """Show what is signed about an image in a registry, and what each part proves.

    :raises UntrustedError: something is missing or wrong, or nothing says whose signatures count.
    """
    image = Reference.parse(options.image)
    with signing.trusted(options.key, options.identity, options.issuer) as trust, Registry(image.host, patience=Patience.attended()) as registry:
        examined = examination.examine(registry, image, trust or Trust.find())
    progress.say(str(examined.image), table(examined))
    examined.require()
    progress.say("everything holds")


def table(examined: Examination) -> Table:
    """Return the findings for people; those of an index's images begin with the platform."""
    view = progress.table("part", "proves", "says", "")
    for finding in examined.findings:
        view.add_row(str(finding), finding.proves, finding.problem or finding.says, "WRONG" if finding.problem else "holds")
    return view
