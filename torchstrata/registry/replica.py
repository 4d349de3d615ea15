"""Copies of images with everything that refers to them, between registries and directories; digests stay the same.

What is to be copied is found out first, from manifests alone. Then blobs go over as streams, those that are there
already not again; then manifests, those that others refer to first; names come last, so that none leads to something
incomplete.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Protocol

from torchstrata.errors import MirrorError
from torchstrata.registry import pool
from torchstrata.registry.client import Manifest
from torchstrata.registry.dated_tag import is_dated
from torchstrata.registry.download import Download
from torchstrata.registry.registry import Referrer, Registry, fallback_tag
from torchstrata.registry.upload import OnBytes, Sent, Source
from torchstrata.store.codec import CHUNK, Stream

COSIGN: Final = ("sig", "att", "sbom")
"""Endings of the tags under which cosign keeps what belongs to an image."""

MANY: Final = 20_000
DEEP: Final = 32
"""Manifests that belong to a copy's images, and how deep they may refer; a set of images has hundreds, four deep."""

OWNED: Final = re.compile(rf"sha256-[0-9a-f]{{64}}(?:\.(?:{'|'.join(COSIGN)}))?")


class CopyOrigin(Protocol):
    """Where images are copied from."""

    def find(self, reference: str) -> str | None:
        """Return the digest that a tag or digest names, ``None`` if there is no such manifest."""

    def manifest(self, digest: str) -> Manifest:
        """Return a manifest, verified."""

    def referrers(self, digest: str) -> tuple[Referrer, ...]:
        """Return what refers to a manifest."""

    def source(self, digest: str, size: int) -> AbstractContextManager[Source]:
        """Yield a blob, as something to read from its beginning as often as it is asked for."""


class CopyTarget(Protocol):
    """Where images are copied to."""

    def turn(self) -> AbstractContextManager[None]:
        """Give a block that copies its turn, where only one process at a time may write."""

    def take(self, source: Source, on_bytes: OnBytes) -> Sent:
        """Take a blob, unless it is there."""

    def has(self, digest: str, size: int) -> bool:
        """Return whether a blob is there."""

    def put(self, manifest: Manifest) -> None:
        """Take a manifest, all of whose blobs are there."""

    def finish(self, copy: Copy) -> None:
        """Give what was copied its names."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What is to be copied.

    :param images: digests of the images that were asked for.
    :param manifests: by digest, what others refer to first.
    :param tags: digest by tag; of images, and cosign's.
    """

    images: tuple[str, ...]
    manifests: Mapping[str, Manifest]
    tags: Mapping[str, str]

    @functools.cached_property
    def blobs(self) -> Mapping[str, int]:
        """Bytes of each blob that they need."""
        needed = chain.from_iterable(manifest.document().blobs for manifest in self.manifests.values())
        return {blob.digest: blob.size for blob in needed}

    def names(self, digest: str) -> list[str]:
        """Return the tags of a manifest, dated ones first."""
        return sorted((tag for tag, named in self.tags.items() if named == digest), key=lambda tag: (not is_dated(tag), tag))


@dataclass
class Gatherer:
    """Finds out what belongs to images."""

    origin: CopyOrigin
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, digest: str, depth: int = 0) -> None:
        """Add a manifest, what it lists, and what refers to it.

        :raises MirrorError: that does not end.
        """
        if digest in self.manifests:
            return
        if depth > DEEP or len(self.manifests) >= MANY:
            raise MirrorError(f"too much refers to {digest}, or too deeply", fix="find out who has pushed it, and delete it there")
        manifest = self.origin.manifest(digest)
        for child in manifest.document().children:
            self.add(child.digest, depth + 1)
        self.manifests[digest] = manifest
        for referrer in self.origin.referrers(digest):
            self.add(referrer.digest, depth + 1)
        for ending in COSIGN:
            tag = f"{fallback_tag(digest)}.{ending}"
            if owned := self.origin.find(tag):
                self.tags[tag] = owned
                self.add(owned, depth + 1)


def gather(origin: CopyOrigin, images: Iterable[str], tags: Mapping[str, str]) -> Copy:
    """Return all that must be copied of images.

    :param tags: digest by tag, of images.
    """
    gatherer, digests = Gatherer(origin), tuple(dict.fromkeys(images))
    for digest in digests:
        gatherer.add(digest)
    return Copy(images=digests, manifests=gatherer.manifests, tags={**gatherer.tags, **tags})


def copy(origin: CopyOrigin, target: CopyTarget, what: Copy, on_bytes: OnBytes) -> tuple[Sent, ...]:
    """Copy images; return what became of each blob. Run again after a failure, it goes on.

    :raises IntegrityError: the origin's bytes are not what their digest says.
    """
    with target.turn():
        blobs = (functools.partial(_blob, origin, target, digest, size, on_bytes) for digest, size in what.blobs.items())
        sent = pool.outcomes(blobs, "copy")
        for manifest in what.manifests.values():
            target.put(manifest)
        target.finish(what)
    return tuple(sent)


def _blob(origin: CopyOrigin, target: CopyTarget, digest: str, size: int, on_bytes: OnBytes) -> Sent:
    if target.has(digest, size):
        return Sent(way="present", size=size)
    with origin.source(digest, size) as source:
        return target.take(source, on_bytes)


# Registries


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrySide:
    """A repository in a registry, as origin and as target."""

    registry: Registry
    repository: str

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.repository}"

    def find(self, reference: str) -> str | None:
        """Return the digest that a tag or digest names."""
        head = self.registry.find(self.repository, reference)
        return head.digest if head else None

    def manifest(self, digest: str) -> Manifest:
        """Return a manifest, verified."""
        return self.registry.manifest(self.repository, digest)

    def referrers(self, digest: str) -> tuple[Referrer, ...]:
        """Return what refers to a manifest."""
        return self.registry.referrers(self.repository, digest)

    @contextlib.contextmanager
    def source(self, digest: str, size: int) -> Iterator[Source]:
        """Yield a blob as a stream, which is read once if all goes well."""
        with contextlib.closing(Relay(lambda: self.registry.blob(self.repository, digest, size))) as relay:
            yield Source(digest=digest, size=size, open=lambda: _Turn(relay))  # type: ignore[arg-type, return-value]

    def turn(self) -> AbstractContextManager[None]:
        """Wait for nobody: a registry takes pushes of many."""
        return contextlib.nullcontext()

    def has(self, digest: str, size: int) -> bool:  # noqa: ARG002  # a directory wants to know it
        """Return whether a blob is there."""
        return self.registry.has_blob(self.repository, digest)

    def take(self, source: Source, on_bytes: OnBytes) -> Sent:
        """Take a blob."""
        return self.registry.push_blob(self.repository, source, on_bytes=on_bytes)

    def put(self, manifest: Manifest) -> None:
        """Take a manifest, and list it where the registry does not do that itself."""
        self.registry.put_manifest(self.repository, manifest.digest, manifest.body, manifest.media_type)
        if subject := manifest.document().subject:
            self.registry.enlist(self.repository, subject.digest, referrer(manifest))

    def finish(self, copy: Copy) -> None:
        """Move tags: signatures first, then what never moves, then what does.

        :raises ImmutableTagError: a dated tag names something else there.
        :raises MirrorError: signatures there are others.
        """
        for tag in sorted(copy.tags, key=lambda tag: (not OWNED.fullmatch(tag), not is_dated(tag), tag)):
            manifest = copy.manifests[copy.tags[tag]]
            if not (OWNED.fullmatch(tag) and self._has_more(tag, manifest)):
                self.registry.put_manifest(self.repository, tag, manifest.body, manifest.media_type, immutable=is_dated(tag))

    def _has_more(self, tag: str, manifest: Manifest) -> bool:
        """Return whether cosign's tag has all signatures of ours and more; somebody may have signed the copy.

        :raises MirrorError: each has some that the other has not.
        """
        present = self.find(tag)
        if present is None:
            return False
        ours, theirs = _layers(manifest), _layers(self.manifest(present))
        if ours - theirs and theirs - ours:
            raise MirrorError(f"{self}:{tag} has signatures that are not here, and lacks some that are", fix=f"delete {tag} there, and copy again")
        return ours < theirs


def _layers(manifest: Manifest) -> set[str]:
    return {layer.digest + layer.annotation("dev.cosignproject.cosign/signature") for layer in manifest.document().layers or ()}


def referrer(manifest: Manifest) -> Referrer:
    """Return how a manifest is listed that refers to another (distribution specification, "Listing Referrers")."""
    document = manifest.document()
    kind = document.artifact_type or (document.config.media_type if document.config else "")
    annotations = document.annotations or {}
    return Referrer(digest=manifest.digest, size=len(manifest.body), artifact_type=kind, media_type=manifest.media_type, annotations=annotations)


class Relay:
    """One stream of a blob, which an upload in pieces opens several times: reading on needs no new download."""

    def __init__(self, begin: Callable[[], Download]) -> None:
        self._begin, self.position = begin, 0
        self._stream: Download | None = None

    def seek(self, offset: int) -> None:
        """Go to ``offset``; one that lies before the position starts a new download."""
        if self._stream is None or offset < self.position:
            self.close()
            self._stream = self._begin()
        while self.position < offset and self.read(min(CHUNK, offset - self.position)):
            pass

    def read(self, size: int) -> bytes:
        """Read on."""
        assert self._stream is not None
        data = self._stream.read(size) if size else b""  # which a download takes for its end
        self.position += len(data)
        return data

    def close(self) -> None:
        """Give the connection back."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self.position = None, 0


class _Turn(Stream):
    """A relay as a file that is opened, read and closed."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay, self._offset = relay, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        assert whence == io.SEEK_SET
        self._offset = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        self._relay.seek(self._offset)
        data = self._relay.read(CHUNK if size < 0 else size)
        self._offset += len(data)
        return data
