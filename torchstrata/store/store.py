"""The content store: blobs by digest, parts by identity, under the user's cache directory.

=====================  ==================================================================
``blobs/sha256/HEX``   layer blobs and other content; the name is the digest
``parts/ID.json``      what was made from the inputs that ``ID`` identifies
``listings/HEX``       the paths of a layer, by the digest of its tar
``inspections/``       what :mod:`torchstrata.verification.inspection` saw in layers
``wheels/``            downloads, complete and partial; see :mod:`torchstrata.layers.wheel_fetch`
``locks/``             one lock per identity, so that one maker works and others wait
``tmp/NAME/``          what a living process has not finished, and the list of what it has in an engine meanwhile
                       (:mod:`torchstrata.host.leavings`); ``tmp/NAME.lock`` is held by it
=====================  ==================================================================

Any number of processes may use one store. A file appears under its final name complete, on disk and verified, or not at
all; what an interrupted process leaves is in ``tmp/`` and goes when the next one starts to write.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import msgspec
from filelock import FileLock, Timeout

from torchstrata import decoding, progress
from torchstrata.errors import IntegrityError, StoreError
from torchstrata.host import filesystem, home
from torchstrata.host.filesystem import CACHE_VARIABLE, disk
from torchstrata.host.leavings import Kind, Leaving
from torchstrata.store.codec import CHUNK, Codec, Readable
from torchstrata.store.digest import file_name
from torchstrata.store.layer import PLATFORM, Entry, Layer
from torchstrata.store.part import Part, part_title
from torchstrata.store.scratch import Scratch
from torchstrata.store.sink import Sink
from torchstrata.store.tarball import LayerWriter

FORMAT: Final = 1
"""Raise it when the bytes of any part change for the same inputs."""

INSPECTIONS: Final = "inspections"
"""Directory of what was seen in layers; it costs kilobytes, and pruning takes it away."""

DIRECTORIES: Final = ("blobs", "blobs/sha256", "inspections", "listings", "locks", "parts", "tmp", "wheels")
"""What the store has in its directory; anything else there is not its own and stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPart:
    """A part in the store: its size in bytes (blobs that it shares count in each) and seconds since its last use."""

    identity: str
    title: str
    size: int
    age: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Bytes of everything in the store, of the downloads among it, and the parts, those used last first."""

    size: int
    downloads: int
    parts: tuple[StoredPart, ...]


def identity(**inputs: object) -> str:
    """Return the identity of what ``inputs`` make: digest of their canonical JSON, :data:`FORMAT` and the platform."""
    canonical = json.dumps({"format": FORMAT, "platform": PLATFORM, **inputs}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Store:
    """The store below ``root``. Its methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._untold = threading.Lock()
        self._scratch = Scratch(root / "tmp", lambda: self.lock("tmp"))

    @classmethod
    def open(cls, root: Path | None = None) -> Self:
        """Return the store at ``root``, ``$TORCHSTRATA_CACHE`` or the user's cache directory; nothing is written yet.

        :raises StoreError: the user has no home and no variable names a place, or it is taken by no directory.
        """
        chosen = root or os.environ.get(CACHE_VARIABLE) or home.cache("torchstrata")
        if chosen is None:
            raise StoreError("this user has no home directory for the content store", fix=f"set {CACHE_VARIABLE}, or HOME, to a directory")
        store = cls(home.expanded(chosen, StoreError))
        _check_directory(store.root)
        for name in DIRECTORIES:
            _check_directory(store.root / name, may_be_link=False)
        return store

    @property
    def downloads(self) -> Path:
        """Where fetched wheels lie."""
        return self.root / "wheels"

    # Parts

    def find(self, identity: str) -> Part | None:
        """Return the part, or None if it was never made or something of it is gone or cut off: then make it again."""
        part = self.known(identity)
        return part if part and self._complete(part) else None

    def remember(self, identity: str, part: Part) -> None:
        """Record that the inputs of ``identity`` make ``part``."""
        if not self._complete(part):
            raise StoreError(f"part {part_title(part)} lacks blobs", fix=f"something removes files below {self.root} while builds run: end it, and build again")
        self.note(identity, part)

    def note(self, identity: str, part: Part) -> None:
        """Record a part that somebody else keeps: :meth:`find` returns it once its blobs are here too."""
        self.write(self._part(identity), msgspec.json.format(msgspec.json.encode(part)))

    def known(self, identity: str) -> Part | None:
        """Return what is recorded for an identity, whether or not the blobs are here."""
        content = filesystem.content(self._part(identity))
        try:
            return None if content is None else decoding.decode(content, Part)
        except msgspec.DecodeError:
            return None

    def touch(self, *identities: str) -> None:
        """Mark parts as used now, so that :meth:`prune` takes them last."""
        self.scratch()
        for used in identities:
            with disk(self._part(used)), contextlib.suppress(FileNotFoundError):
                os.utime(self._part(used))

    @contextlib.contextmanager
    def lock(self, identity: str, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Be the only maker of ``identity``; look with :meth:`find` again once inside.

        :raises CancelledError: ``cancelled`` was set while another maker was at work.
        """
        guard = self._lock(identity)
        with disk(Path(guard.lock_file)):
            try:
                guard.acquire(blocking=False)
            except Timeout:
                self._wait(guard, cancelled)
        try:
            yield
        finally:
            guard.release()

    def _wait(self, guard: FileLock, cancelled: threading.Event | None) -> None:
        """Wait for another maker; where that takes long, somebody is told, once whatever else is waited for."""
        line = f"another process is making in {self.root} what is needed here, too; waiting for it"
        with progress.overdue(line, say=self._tell):
            try:
                guard.acquire(poll_interval=0.1, cancel_check=cancelled.is_set if cancelled else None)
            except Timeout as late:
                raise CancelledError from late

    def _tell(self, line: str) -> None:
        if self._untold.acquire(blocking=False):  # nobody releases it
            progress.aside(line)

    def layers(self) -> Mapping[str, Layer]:
        """Return every layer whose blob is here, by diff ID."""
        layers = itertools.chain.from_iterable(part.layers for part in self._parts())
        return {layer.diff_id: layer for layer in layers if self._intact(layer.digest, layer.size)}

    def _complete(self, part: Part) -> bool:
        sizes = {layer.digest: layer.size for layer in part.layers}
        listed = all(self.has_listing(layer.diff_id) for layer in part.layers)
        return listed and all(self._intact(digest, sizes.get(digest)) for digest in part.digests)

    def _intact(self, digest: str, size: int | None) -> bool:
        """Return whether a blob is there in its size; to read gigabytes would cost seconds."""
        path = self._blob(digest)
        with disk(path):
            try:
                status = path.stat()
            except FileNotFoundError:
                return False
        return stat.S_ISREG(status.st_mode) and (size is None or status.st_size == size)

    # Blobs and layers

    @contextlib.contextmanager
    def layer(self, title: str, codec: Codec) -> Iterator[LayerWriter]:
        """Write a layer: yield its writer, and commit the blob and its listing when the block ends well.

        Afterwards ``writer.layer`` is the layer. Nothing is left of a block that ends in an exception.
        """
        with Sink(self.scratch()) as sink:
            writer = LayerWriter(sink.write, codec)
            try:
                yield writer
                diff_id, unpacked = writer.finish()
            except BaseException:
                writer.abort()
                raise
            digest = self._commit(sink)
        self.keep_listing(diff_id, writer.entries)
        writer.layer = Layer(digest=digest, diff_id=diff_id, size=sink.size, unpacked=unpacked, media_type=codec.media_type, title=title)

    def add_blob(self, source: Readable | Path | bytes, digest: str | None = None, size: int | None = None) -> str:
        """Take in any content and return its digest, ``sha256:...``.

        :param digest: what it must be.
        :param size: bytes that it must have.
        :raises IntegrityError: it is another.
        """
        with Sink(self.scratch()) as sink:
            with _opened(source) as stream:
                while chunk := stream.read(CHUNK):
                    sink.write(chunk)
            return self._commit(sink, digest, size)

    def open_blob(self, digest: str, size: int | None = None) -> Path:
        """Return the file of a blob.

        :raises StoreError: it is missing, or does not have ``size`` bytes.
        """
        if not self._intact(digest, size):
            raise StoreError(f"blob {digest} is missing or damaged in {self.root}", fix="build again: what it belongs to is made anew")
        return self._blob(digest)

    def forget(self, digest: str) -> None:
        """Remove a blob that is damaged, so that what it belongs to is made anew."""
        filesystem.remove(self._blob(digest))

    def listing(self, diff_id: str) -> tuple[Entry, ...]:
        """Return the paths of a layer in the order of its tar.

        :raises StoreError: it is missing or damaged.
        """
        path = self._listing(diff_id)
        try:
            return decoding.decode(filesystem.content(path) or b"", tuple[Entry, ...])
        except msgspec.DecodeError as error:
            filesystem.remove(path)
            raise StoreError(f"the listing of layer {diff_id} is missing or damaged in {self.root}", fix="build again: it is made anew") from error

    def has_listing(self, diff_id: str) -> bool:
        """Return whether the paths of a layer are known here."""
        return self._listing(diff_id).exists()

    def keep_listing(self, diff_id: str, entries: Collection[Entry]) -> None:
        """Take in the paths of a layer, whose blob may be somewhere else."""
        self.write(self._listing(diff_id), msgspec.json.encode(entries))

    def _commit(self, sink: Sink, digest: str | None = None, size: int | None = None) -> str:
        digest_of_content = sink.close()
        if size not in {None, sink.size}:
            raise IntegrityError(
                f"{digest_of_content} has {sink.size} bytes instead of {size}", fix="do not use what names it: its author is mistaken, or means harm"
            )
        if digest not in {None, digest_of_content}:
            raise IntegrityError(
                f"content has digest {digest_of_content} instead of {digest}", fix="fetch or build it again; if it stays so, its source is wrong"
            )
        filesystem.rename(sink.path, self._blob(digest_of_content))
        return digest_of_content

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file so that it is there whole or not at all."""
        with Sink(self.scratch()) as sink:
            sink.write(content)
            sink.close()
            filesystem.rename(sink.path, path)

    # Paths

    def _part(self, identity: str) -> Path:
        return self.root / "parts" / f"{identity}.json"

    def _blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / file_name(digest)

    def _listing(self, diff_id: str) -> Path:
        return self.root / "listings" / file_name(diff_id)

    def _lock(self, name: str) -> FileLock:
        path = self.root / "locks" / f"{name}.lock"
        with disk(path):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            return filesystem.lock(path)

    # Unfinished files

    def scratch(self) -> Path:
        """Return this process's directory for unfinished files, on the store's file system."""
        return self._scratch.directory()

    def leave(self, kind: Kind, name: str) -> Leaving:
        """List what this process is about to make in an engine, for the next one to remove if this one does not."""
        with disk(self.root):
            return Leaving.of(kind, name).listed(self.scratch())

    # Usage and pruning

    def usage(self) -> Usage:
        """Return what the store holds; nothing is written."""
        return Usage(size=filesystem.size_of(self.root), downloads=filesystem.size_of(self.downloads), parts=self._by_age())

    def _by_age(self) -> tuple[StoredPart, ...]:
        """Return the parts, those used last first; one that goes away meanwhile is left out."""
        now, stored = time.time(), list[StoredPart]()
        for path in self.root.glob("parts/*.json"):
            with contextlib.suppress(FileNotFoundError):
                part, age = self._read(path), max(0.0, now - path.lstat().st_mtime)
                stored.append(StoredPart(identity=path.stem, title=part_title(part), size=self._size(part.digests), age=age))
        return tuple(sorted(stored, key=lambda part: (part.age, part.identity)))

    def _size(self, digests: Iterable[str]) -> int:
        """Return the bytes of blobs; those that are not here have none."""
        return filesystem.size_of_files(map(self._blob, digests))

    def _parts(self) -> Iterator[Part]:
        return map(self._read, self.root.glob("parts/*.json"))

    def _read(self, path: Path) -> Part:
        try:
            return decoding.decode(filesystem.content(path) or b"", Part)
        except msgspec.DecodeError:
            return Part(layers=(), notes={"title": "damaged"})

    def prune(self, *, older_than: timedelta | None = None, max_bytes: int | None = None) -> int:
        """Remove parts, longest unused first, then blobs that no part needs, and downloads; return bytes freed.

        :param older_than: remove what was not used for so long, downloads too; without it all downloads go, and without
            ``max_bytes`` as well all parts.
        :param max_bytes: remove until no more than this many bytes of parts remain.
        :raises StoreError: another process is building with this store.
        """
        before = filesystem.size_of(self.root)
        with self.lock("tmp"), disk(self.root):
            if self._scratch.sweep():
                raise StoreError(f"another build is using {self.root}", fix="wait for it to end, then prune")
            chosen = self._choose(older_than, max_bytes)
            for doomed in chosen:
                filesystem.remove(self._part(doomed))
            self._collect()
            shutil.rmtree(self.root / INSPECTIONS, ignore_errors=True)
            for path in filesystem.older(self.downloads, older_than):
                path.unlink()
        return before - filesystem.size_of(self.root)

    def _choose(self, older_than: timedelta | None, max_bytes: int | None) -> list[str]:
        """Return the identities to remove; parts used last count first against ``max_bytes``."""
        total, chosen, counted = 0, [], set[str]()
        for part in self._by_age():
            fresh = self._read(self._part(part.identity)).digests - counted
            size = self._size(fresh)
            aged = older_than is not None and part.age > older_than.total_seconds()
            everything = older_than is None and max_bytes is None
            if aged or everything or (max_bytes is not None and total + size > max_bytes):
                chosen.append(part.identity)
            else:
                total, counted = total + size, counted | fresh
        return chosen

    def _collect(self) -> None:
        """Remove blobs and listings that no part refers to."""
        parts = list(self._parts())
        blobs = set(itertools.chain.from_iterable(part.digests for part in parts))
        layers = itertools.chain.from_iterable(part.layers for part in parts)
        needed = {self._blob(digest) for digest in blobs} | {self._listing(layer.diff_id) for layer in layers}
        for path in (*self.root.glob("blobs/sha256/*"), *self.root.glob("listings/*")):
            if path not in needed:
                filesystem.remove(path)


@contextlib.contextmanager
def _opened(source: Readable | Path | bytes) -> Iterator[Readable]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield io.BytesIO(source) if isinstance(source, bytes) else source


def _check_directory(path: Path, *, may_be_link: bool = True) -> None:
    """Refuse anything but a directory, such as a file or a dangling link, where the store must have one.

    :param may_be_link: to a directory; below the root none may be, since pruning would empty what it leads to.
    :raises StoreError: there is something else.
    """
    with disk(path):
        if os.path.lexists(path) and not path.is_dir():
            raise StoreError(f"{path} is no directory", fix=f"remove it, or set {CACHE_VARIABLE} to another directory")
        if path.is_symlink() and not may_be_link:
            raise StoreError(f"{path} is a link", fix=f"remove it; to have the store elsewhere, set {CACHE_VARIABLE}")
