"""The registry as content store: parts of images by identity, under one repository (``PATH/parts``).

A part is an artifact whose tag is the identity of what it was made from. Its config says what
:class:`torchstrata.store.part.Part` says, and its layers are the part's layers, its extras, and the paths in all of
them: so an image is composed from JSON alone, and gigabytes are fetched only where something has to read them, such
as an engine. A tag here never moves.

Whoever may push to the registry may write anything here. So a part is first read as what it must be, then held
against ``verify``, and only then are its listings fetched and anything of it kept.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from torchstrata import decoding
from torchstrata.errors import AbsentError, RegistryError, StoreError, UntrustedError
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.progress import ignore
from torchstrata.registry import pool
from torchstrata.registry.client import SMALL
from torchstrata.registry.registry import Registry, artifact, descriptor
from torchstrata.registry.upload import OnBytes, Source
from torchstrata.store.codec import CHUNK
from torchstrata.store.layer import Entry
from torchstrata.store.part import Part
from torchstrata.store.store import Store
from torchstrata.text import printable

REPOSITORY: Final = "parts"

PART: Final = "application/vnd.torchstrata.part.v1"
PART_CONFIG: Final = "application/vnd.torchstrata.part.config.v1+json"
EXTRA: Final = "application/vnd.torchstrata.part.extra.v1"
LISTINGS: Final = "application/vnd.torchstrata.part.listings.v1+json+zstd"

LEVEL: Final = 12
"""Of the compression of listings: it halves what level 3 leaves, in tenths of a second for the largest part."""

PACKED: Final = 8 << 20
UNPACKED: Final = 32 << 20
"""Bytes of the paths of a part's layers, compressed and as JSON; the largest part has 5 MB of them."""

WINDOW: Final = 1 << 25
"""Bytes of memory that a compressed listing may ask for; level 12 asks for 4 MB."""


class _PartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The config of a part."""

    identity: str
    part: Part


Verify = Callable[[Mapping[str, str]], None]
"""Gets the digest of each part's manifest by identity; raises :class:`RegistryError` for one that must not be used."""


def unchecked(_: Mapping[str, str]) -> None:
    """Believe whoever may push to the registry; only where somebody has asked for that."""


def nobody(digests: Mapping[str, str]) -> None:
    """Believe nobody.

    :raises UntrustedError: there is a part.
    """
    if digests:
        raise UntrustedError("nothing says whose parts count", fix="set COSIGN_PUBLIC_KEY, or give --trust-unsealed-parts: docs/registry.md")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """A part in the registry.

    :param digest: of its manifest.
    :param listings: digest of the blob with the paths in its layers.
    """

    digest: str
    part: Part
    listings: str


@dataclass(frozen=True, kw_only=True)
class PartRepository:
    """The parts in one repository of a registry.

    :param store: where listings, and blobs that are fetched, go.
    :param verify: decides which parts may be used.
    :param on_bytes: told what was downloaded.
    """

    registry: Registry
    repository: str
    store: Store
    verify: Verify = nobody
    on_bytes: OnBytes = ignore
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _fetching: dict[str, threading.Lock] = field(default_factory=dict)

    # Finding

    def find(self, identities: Iterable[str]) -> dict[str, Part]:
        """Return those parts that the registry has; then the store has their listings, and perhaps not their blobs.

        :raises RegistryError: a part is damaged, or ``verify`` refuses it.
        """
        answers = pool.answers(self.shared, identities)
        present = {identity: shared for identity, shared in answers.items() if shared}
        self.verify({identity: shared.digest for identity, shared in present.items()})
        pool.answers(lambda identity: self._keep_listings(present[identity]), present)
        parts = {identity: shared.part for identity, shared in present.items()}
        for identity, part in parts.items():
            self.store.note(identity, part)
        return parts

    def shared(self, identity: str) -> Shared | None:
        """Return the part as the registry has it, whoever may have pushed it.

        :raises RegistryError: it is damaged.
        """
        try:
            manifest = self.registry.manifest(self.repository, identity)
        except AbsentError:
            return None
        document, none = manifest.document(), self._damaged(identity, "is no part of this program")
        listings = [layer.digest for layer in document.layers or () if layer.media_type == LISTINGS]
        if document.config is None or len(listings) != 1:
            raise none
        packed = self.registry.content(self.repository, document.config.digest, self.on_bytes, limit=oci.CONFIG_LIMIT)
        try:
            config = decoding.decode(packed, _PartConfig)
        except msgspec.DecodeError:
            raise none from None
        self.on_bytes(len(manifest.body))
        if config.identity != identity or not _has_all(document, config.part):
            raise self._damaged(identity, "is another part than its tag says, or lacks layers")
        return Shared(digest=manifest.digest, part=config.part, listings=listings[0])

    def _keep_listings(self, shared: Shared) -> None:
        if all(self.store.has_listing(layer.diff_id) for layer in shared.part.layers):
            return
        listings = self.listings(shared)
        for layer in shared.part.layers:
            self.store.keep_listing(layer.diff_id, listings[layer.diff_id])

    def listings(self, shared: Shared) -> Mapping[str, tuple[Entry, ...]]:
        """Return the paths in the layers of a part as the registry has them, by diff ID.

        :raises RegistryError: they are none, or too many, or those of a layer are not there.
        """
        packed = self.registry.content(self.repository, shared.listings, self.on_bytes, limit=PACKED)
        try:
            listings = read_listings(packed)
        except msgspec.DecodeError:
            raise self._damaged(shared.digest, "has no list of paths that can be read") from None
        for layer in shared.part.layers:
            if layer.diff_id not in listings:
                raise self._damaged(shared.digest, f"lacks the paths in layer {printable(layer.title)}")
        return listings

    def _damaged(self, name: str, why: str) -> RegistryError:
        return RegistryError(f"{self.registry.host}/{self.repository}:{name[:19]} {why}", fix="delete it there, and push again from where it was built")

    # Fetching

    def open_blob(self, digest: str, size: int | None = None) -> Path:
        """Return the file of a blob of a part; fetch it if the store lacks it.

        :param size: bytes that it must have; ``None`` for an extra, which may have :data:`SMALL`.
        :raises AbsentError: the registry does not have it either.
        :raises IntegrityError: it has another size.
        """
        with self._mutex:
            turn = self._fetching.setdefault(digest, threading.Lock())
        with turn:
            try:
                return self.store.open_blob(digest, size)
            except StoreError:
                self.registry.patiently(functools.partial(self._fetch, digest, size))
            return self.store.open_blob(digest, size)

    def _fetch(self, digest: str, size: int | None) -> None:
        """Download a blob into the store."""
        with self.registry.blob(self.repository, digest, SMALL if size is None else size, self.on_bytes) as stream:
            self.store.add_blob(stream, digest, size)

    def fetch(self, sizes: Mapping[str, int | None]) -> None:
        """Bring blobs into the store, so that other parts can be made from them.

        :param sizes: bytes by digest; ``None`` for extras.
        """
        pool.answers(lambda digest: self.open_blob(digest, sizes[digest]), sorted(sizes))

    # Pushing

    def lacks(self, identities: Iterable[str]) -> tuple[str, ...]:
        """Return those identities under which the registry has nothing."""
        heads = pool.answers(lambda identity: self.registry.find(self.repository, identity), identities)
        return tuple(identity for identity, head in heads.items() if head is None)

    def sources(self, identity: str, part: Part) -> tuple[Source, ...]:
        """Return the small blobs of a part: extras, listings and config; its layers are the image's business too."""
        extras = [Source.file(self.open_blob(digest), digest) for digest in dict.fromkeys(part.extras.values())]
        return (*extras, Source.of(self._listings(part)), Source.of(_config(identity, part)))

    def put(self, identity: str, part: Part) -> str:
        """Push the manifest of a part whose blobs are there; return its digest, or that of a part pushed meanwhile."""
        present = self.registry.find(self.repository, identity)
        if present:
            return present.digest
        listings, config = self._listings(part), _config(identity, part)
        layers = [descriptor(layer.media_type, layer.digest, layer.size, layer.title) for layer in part.layers]
        layers += [descriptor(EXTRA, digest, self.open_blob(digest).stat().st_size, name) for name, digest in sorted(part.extras.items())]
        layers.append(descriptor(LISTINGS, sha256(listings), len(listings)))
        document = artifact(PART, layers, descriptor(PART_CONFIG, sha256(config), len(config)))
        return self.registry.put_manifest(self.repository, identity, document, MANIFEST)

    def _listings(self, part: Part) -> bytes:
        listings = {layer.diff_id: self.store.listing(layer.diff_id) for layer in part.layers}
        return zstandard.ZstdCompressor(level=LEVEL).compress(msgspec.json.encode(listings, order="sorted"))


def read_listings(packed: bytes) -> dict[str, tuple[Entry, ...]]:
    """Return the paths in the layers of a part by diff ID, as the registry keeps them.

    :raises msgspec.DecodeError: they are damaged, or have more than :data:`UNPACKED` bytes.
    """
    unpacked = io.BytesIO()
    try:
        with zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(packed) as stream:
            while unpacked.tell() <= UNPACKED and (data := stream.read(CHUNK)):
                unpacked.write(data)
    except zstandard.ZstdError as error:
        raise msgspec.DecodeError("no zstd") from error
    if unpacked.tell() > UNPACKED:
        raise msgspec.DecodeError("too large")
    return decoding.decode(unpacked.getvalue(), dict[str, tuple[Entry, ...]])


def _has_all(document: oci.ManifestOrIndex, part: Part) -> bool:
    """Return whether a manifest names all blobs of a part, and layers with the size that the part says."""
    sizes = {layer.digest: layer.size for layer in document.layers or ()}
    return part.digests <= sizes.keys() and all(sizes[layer.digest] == layer.size for layer in part.layers)


def _config(identity: str, part: Part) -> bytes:
    return canonical({"identity": identity, "part": msgspec.to_builtins(part)})
