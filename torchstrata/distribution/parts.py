"""The registry as content store: parts of images by identity, under one repository (``PATH/parts``).

A part is an artifact whose tag is the identity of what it was made from. Its config says what :class:`torchstrata.content.store.Part`
says, and its layers are the part's layers, its extras, and the paths in all of them: so an image is composed from JSON alone,
and gigabytes are fetched only where something has to read them, such as an engine. A tag here never moves.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from torchstrata import decoding
from torchstrata.content.compose import MANIFEST, canonical, sha256
from torchstrata.content.layers import Entry
from torchstrata.content.store import Part, Store
from torchstrata.distribution.registry import TITLE, Registry
from torchstrata.distribution.transport import Unanswered
from torchstrata.distribution.upload import OnBytes, Source
from torchstrata.errors import AbsentError, IntegrityError, RegistryError, StoreError

REPOSITORY: Final = "parts"

PART: Final = "application/vnd.torchstrata.part.v1"
PART_CONFIG: Final = "application/vnd.torchstrata.part.config.v1+json"
EXTRA: Final = "application/vnd.torchstrata.part.extra.v1"
LISTINGS: Final = "application/vnd.torchstrata.part.listings.v1+json+zstd"

LEVEL: Final = 12
"""Of the compression of listings: it halves what level 3 leaves, in tenths of a second for the largest part."""

REQUESTS: Final = 8
"""At a time."""

Verify = Callable[[Mapping[str, str]], None]
"""Gets the digest of each part's manifest by identity; raises :class:`RegistryError` for one that must not be used."""


def unchecked(_: Mapping[str, str]) -> None:
    """Believe whoever may push to the registry."""


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
class Shelf:
    """The parts in one repository of a registry.

    :param store: where listings, and blobs that are fetched, go.
    :param verify: decides which parts may be used.
    :param on_bytes: told what was downloaded.
    """

    registry: Registry
    repository: str
    store: Store
    verify: Verify = unchecked
    on_bytes: OnBytes = lambda _: None
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _fetching: dict[str, threading.Lock] = field(default_factory=dict)

    # Finding

    def find(self, identities: Iterable[str]) -> dict[str, Part]:
        """Return those parts that the registry has; their listings are in the store afterwards, their blobs need not be.

        :raises RegistryError: a part is damaged, or ``verify`` refuses it.
        """
        wanted = tuple(dict.fromkeys(identities))
        with ThreadPoolExecutor(REQUESTS, "find") as pool:
            answers = dict(zip(wanted, pool.map(self.shared, wanted), strict=True))
            found = {identity: shared for identity, shared in answers.items() if shared}
            self.verify({identity: shared.digest for identity, shared in found.items()})
            for _ in pool.map(self._keep_listings, found.values()):
                pass
        parts = {identity: shared.part for identity, shared in found.items()}
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
        try:
            document = json.loads(manifest.body)
            config = json.loads(self.registry.content(self.repository, document["config"]["digest"], self.on_bytes))
            part = decoding.convert(config["part"], Part)
            (listings,) = (each["digest"] for each in document["layers"] if each["mediaType"] == LISTINGS)
        except (ValueError, KeyError, TypeError) as error:  # msgspec's errors are ValueErrors
            raise self._damaged(identity, "is no part of this program") from error
        self.on_bytes(len(manifest.body))
        if config.get("identity") != identity or not part.digests <= {each["digest"] for each in document["layers"]}:
            raise self._damaged(identity, "is another part than its tag says, or lacks layers")
        return Shared(digest=manifest.digest, part=part, listings=listings)

    def _keep_listings(self, shared: Shared) -> None:
        if all(self.store.has_listing(layer.diff_id) for layer in shared.part.layers):
            return
        packed = self.registry.content(self.repository, shared.listings, self.on_bytes)
        with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            listings = decoding.decode(stream.read(), dict[str, tuple[Entry, ...]])
        for layer in shared.part.layers:
            if layer.diff_id not in listings:
                raise self._damaged(shared.digest, f"lacks the paths in layer {layer.title}")
            self.store.keep_listing(layer.diff_id, listings[layer.diff_id])

    def _damaged(self, name: str, why: str) -> RegistryError:
        return RegistryError(f"{self.registry.host}/{self.repository}:{name[:12]} {why}", fix="delete it there, and push again from where it was built")

    # Fetching

    def open_blob(self, digest: str, size: int | None = None) -> Path:
        """Return the file of a blob of a part; fetch it if the store lacks it.

        :raises AbsentError: the registry does not have it either.
        """
        with self._mutex:
            turn = self._fetching.setdefault(digest, threading.Lock())
        with turn:
            try:
                return self.store.open_blob(digest, size)
            except StoreError:
                self._fetch(digest)
            return self.store.open_blob(digest, size)

    def _fetch(self, digest: str) -> None:
        """Download a blob into the store; one that was damaged on the way, again."""
        for failures in range(1, self.registry.transport.patience.tries + 1):
            try:
                with self.registry.blob(self.repository, digest, self.on_bytes) as stream:
                    self.store.add_blob(stream, digest)
            except IntegrityError as error:
                if failures == self.registry.transport.patience.tries:
                    raise
                self.registry.transport.wait(failures, Unanswered(error.what))
            else:
                return

    def fetch(self, digests: Iterable[str]) -> None:
        """Bring blobs into the store, so that other parts can be made from them."""
        with ThreadPoolExecutor(REQUESTS, "pull") as pool:
            for _ in pool.map(self.open_blob, sorted(set(digests))):
                pass

    # Pushing

    def lacks(self, identities: Iterable[str]) -> tuple[str, ...]:
        """Return those identities under which the registry has nothing."""
        wanted = tuple(dict.fromkeys(identities))
        with ThreadPoolExecutor(REQUESTS, "look") as pool:
            found = pool.map(lambda identity: self.registry.find(self.repository, identity), wanted)
            return tuple(identity for identity, each in zip(wanted, found, strict=True) if each is None)

    def sources(self, identity: str, part: Part) -> tuple[Source, ...]:
        """Return the small blobs of a part: extras, listings and config; its layers are the image's business too."""
        extras = [Source.file(self.open_blob(digest), digest) for digest in dict.fromkeys(part.extras.values())]
        return (*extras, Source.of(self._listings(part)), Source.of(_config(identity, part)))

    def put(self, identity: str, part: Part) -> str:
        """Push the manifest of a part whose blobs are all there, and return its digest; what somebody else has pushed meanwhile stays."""
        found = self.registry.find(self.repository, identity)
        if found:
            return found.digest
        listings, config = self._listings(part), _config(identity, part)
        layers = [_descriptor(layer.digest, layer.size, layer.media_type, layer.title) for layer in part.layers]
        layers += [_descriptor(digest, self.open_blob(digest).stat().st_size, EXTRA, name) for name, digest in sorted(part.extras.items())]
        layers.append(_descriptor(sha256(listings), len(listings), LISTINGS))
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": PART,
            "config": _descriptor(sha256(config), len(config), PART_CONFIG),
            "layers": layers,
        }
        return self.registry.put_manifest(self.repository, identity, canonical(document), MANIFEST)

    def _listings(self, part: Part) -> bytes:
        listings = {layer.diff_id: self.store.listing(layer.diff_id) for layer in part.layers}
        return zstandard.ZstdCompressor(level=LEVEL).compress(msgspec.json.encode(listings, order="sorted"))


def _config(identity: str, part: Part) -> bytes:
    return canonical({"identity": identity, "part": msgspec.to_builtins(part)})


def _descriptor(digest: str, size: int, media_type: str, title: str = "") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **({"annotations": {TITLE: title}} if title else {})}
