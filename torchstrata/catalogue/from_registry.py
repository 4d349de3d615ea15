"""What a registry has, for a catalogue: images by their tags, and what is attached to them.

Whoever may push writes everything there. What can be read is read as the type that it must be; what cannot is told
in a line, and keeps nothing else from being shown.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, TypeVar

from torchstrata.attestations import documents, examination, record
from torchstrata.attestations.documents import KINDS, RECORD, VERIFICATION, Published
from torchstrata.attestations.examination import Finding
from torchstrata.attestations.record import Record
from torchstrata.attestations.signing import Trust
from torchstrata.catalogue.exhibits import AttachedDocument, Catalogue, Exhibit, ShownLayer, ordered
from torchstrata.containers import declared_services, description
from torchstrata.errors import AbsentError, TorchstrataError, UntrustedError
from torchstrata.image.declarations import DeclaredService
from torchstrata.image.oci import Descriptor
from torchstrata.matrix.matrix import Matrix
from torchstrata.registry import pool
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Referrer, Registry, fallback_tag
from torchstrata.registry.transport import SilentError
from torchstrata.release import ledger_copy, pruning
from torchstrata.release.guard import Cosign, Guard
from torchstrata.release.ledger import Ledger
from torchstrata.text import printable
from torchstrata.verification import evidence
from torchstrata.verification.evidence import Evidence

T = TypeVar("T")
R = TypeVar("R")

UNKNOWN_PLATFORM: Final = "linux/amd64"
"""Of configs that do not say it: all images were for it when they did not."""


class Unchecked:
    """A guard that lets everything pass: of a catalogue that nobody gave a key. Every page says so."""

    def sign(self, registry: Registry, repository: str, digest: str) -> None:
        """Sign nothing."""

    def authentic(self, registry: Registry, repository: str, digest: str) -> None:
        """Check nothing."""

    def verified(self, registry: Registry, repository: str, digest: str) -> None:
        """Check nothing."""


@dataclass(frozen=True, kw_only=True)
class RegistryReader:
    """Reads a repository.

    :param trust: whose signatures count; ``None`` to check none.
    """

    matrix: Matrix
    registry: Registry
    repository: str
    trust: Trust | None
    now: dt.datetime

    def catalogue(self) -> Catalogue:
        """Return what the registry has.

        :raises RegistryError: it cannot be reached.
        :raises UntrustedError, LedgerError: the ledger is signed by nobody who is trusted, or is none.
        :raises AbsentError: it has no image.
        """
        names = self.registry.tags(self.repository)
        ledger = self._ledger(names)
        tags, unread = self._digests(name for name in names if pruning.owner_of(name) is None and name != ledger_copy.TAG)
        signed = frozenset(name for name in names if name.endswith(".sig"))
        answers = self._each(functools.partial(self._images, tags, signed), dict.fromkeys(tags.values()))
        images = once(chain.from_iterable(images or () for _, images, _ in answers))
        unread |= {digest: why for digest, _, why in answers if why}
        if not images:
            first = next(iter(unread.items()), None)
            raise AbsentError(
                f"{self.registry.host}/{self.repository} has no image that can be shown" + (f": {first[0]}: {first[1]}" if first else ""),
                fix="push one first (inv push CELL), or name another registry",
            )
        return Catalogue(
            matrix=self.matrix,
            place=f"{self.registry.host}/{self.repository}",
            source=f"{self.registry.host}/{self.repository}",
            images=ordered(images, self.matrix, self._held(ledger)),
            made=self.now,
            who=(self.trust.identity or _file(self.trust.key or "")) if self.trust else "",
            ledger=ledger,
            unread=unread,
        )

    def _held(self, ledger: Ledger) -> frozenset[str]:
        """Return what the last channel holds: what people should take."""
        last = next(reversed(tuple(self.matrix.channels)), "")
        current = (entry.images.values() for (channel, _), entry in ledger.state.current.items() if channel == last)
        return frozenset(chain.from_iterable(current))

    def _ledger(self, names: Iterable[str]) -> Ledger:
        if ledger_copy.TAG not in names:
            return Ledger()
        guard: Guard = Cosign(trust=self.trust) if self.trust else Unchecked()
        return ledger_copy.pull(self.registry, self.repository, guard) or Ledger()

    def _digests(self, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the digest by tag, and why some have none."""
        answers = self._each(lambda name: self.registry.find(self.repository, name), names)
        return {name: manifest.digest for name, manifest, _ in answers if manifest}, {name: why for name, _, why in answers if why}

    def _each(self, ask: Callable[[T], R], about: Iterable[T]) -> list[tuple[T, R | None, str]]:
        """Ask about each at the same time; return the answers, or in a line why there is none.

        :raises SilentError: the registry does not answer any more: nothing else is worth asking.
        """
        tasks = (functools.partial(lambda item: (item, *_told(ask, item)), item) for item in about)
        return pool.outcomes(tasks, "catalogue", self.registry.cancel, at_a_time=pool.QUESTIONS)

    def _images(self, tags: Mapping[str, str], signed: frozenset[str], digest: str) -> list[Exhibit]:
        """Return the image of a digest, or those of an index, one for each platform."""
        manifest = self.registry.manifest(self.repository, digest)
        document = manifest.document()
        if document.artifact_type or document.subject:
            return []
        if document.children:
            own = {tag for tag, of in tags.items() if of == digest}
            listed = (self._images(dict.fromkeys(own, child.digest), signed, child.digest) for child in document.children)
            return [replace(image, indexes=image.indexes | {digest}) for image in chain.from_iterable(listed)]
        config = self.registry.image_config(self.repository, digest)
        declared, undeclared = _told(self._declared, document.layers or ()) if config.ports else (None, "")
        image = Exhibit(
            digest=digest,
            tags=tuple(sorted(tag for tag, of in tags.items() if of == digest)),
            labels=config.labels,
            platform=f"{config.os}/{config.architecture}" if config.os and config.architecture else UNKNOWN_PLATFORM,
            size=sum(layer.size for layer in document.layers or ()),
            endpoints=description.endpoints(config.ports, declared or {}),
            user=config.user,
            layers=tuple(ShownLayer(digest=layer.digest, size=layer.size) for layer in document.layers or ()),
            is_signed=f"{fallback_tag(digest)}.sig" in signed,
            problems=(undeclared,) if undeclared else (),
        )
        published = Published(registry=self.registry, repository=self.repository, name=digest, manifest=manifest.body)
        return [self._with_documents(image, published)] if image.is_ours else []

    def _declared(self, layers: Sequence[Descriptor]) -> Mapping[str, DeclaredService]:
        return declared_services.in_registry(self.registry, self.repository, layers)

    def _with_documents(self, image: Exhibit, published: Published) -> Exhibit:
        """Return an image with what is attached to it; what cannot be read of that is a problem of it."""
        referrers = published.referrers()
        kinds = {kind.media_type: kind for kind in KINDS}
        plain = {referrer.artifact_type: referrer for referrer in referrers if referrer.artifact_type in kinds}
        attached = tuple(AttachedDocument(kind=kinds[name].name, digest=plain[name].digest, file=kinds[name].file) for name in kinds if name in plain)
        made, no_record = self._document(published, plain.get(RECORD.media_type), record_about)
        tested, no_result = self._document(published, plain.get(VERIFICATION.media_type), result_about)
        problems = (*image.problems, *filter(None, (no_record, no_result)))
        shown = replace(image, attached=attached, record=made, evidence=tested, problems=problems)
        return replace(shown, layers=named_layers(shown), findings=tuple(self._findings(image)))

    @staticmethod
    def _document(published: Published, referrer: Referrer | None, read: Callable[[str, bytes], R]) -> tuple[R | None, str]:
        """Return what an attached document says, if there is one, or in a line why it cannot be read."""
        return _told(lambda one: read(published.digest, published.content(one)), referrer) if referrer else (None, "")

    def _findings(self, image: Exhibit) -> Iterator[Finding]:
        if self.trust:
            reference = Reference(host=self.registry.host, repository=self.repository, digest=image.digest)
            yield from examination.examine(self.registry, reference, self.trust).findings


def _file(key: str) -> str:
    """Return the name of a file with a key, and nothing of whose machine it lies on; URIs stay."""
    return key if "://" in key else key.rpartition("/")[2]


def once(images: Iterable[Exhibit]) -> list[Exhibit]:
    """Return each image once: an image that an index lists has tags of its own, too, and may be in several indexes."""
    by_digest: dict[str, Exhibit] = {}
    for image in images:
        merged = by_digest.setdefault(image.digest, image)
        by_digest[image.digest] = replace(merged, tags=tuple(sorted({*merged.tags, *image.tags})), indexes=merged.indexes | image.indexes)
    return list(by_digest.values())


def record_about(digest: str, content: bytes) -> Record:
    """Return a record.

    :raises UntrustedError: it is none, or about another image.
    """
    decoded = record.decode(content)
    if decoded.digest != digest:
        raise UntrustedError(f"its record is about {printable(decoded.digest)}", fix="remove it, and attach what belongs to this image")
    return decoded


def result_about(digest: str, content: bytes) -> Evidence:
    """Return the result of an image's tests.

    :raises EvidenceError: it is none.
    :raises UntrustedError: it is about another image.
    """
    parsed = evidence.parse(content, documents.VERIFICATION.file)
    if not parsed.is_of(digest):
        raise UntrustedError("the result of tests that is attached is about another image", fix="remove it, and attach what belongs to this image")
    return parsed


def named_layers(image: Exhibit) -> tuple[ShownLayer, ...]:
    """Return the layers with what the record says of them."""
    recorded = {layer.digest: layer for layer in image.record.layers} if image.record else {}
    return tuple(
        replace(layer, title=recorded[layer.digest].title, origin=recorded[layer.digest].origin) if layer.digest in recorded else layer
        for layer in image.layers
    )


def _told(ask: Callable[[T], R], about: T) -> tuple[R | None, str]:
    try:
        return ask(about), ""
    except SilentError:
        raise
    except TorchstrataError as error:
        return None, printable(error.what)
