"""Layer tars: writing them the same way on every machine, and listing those that others wrote.

Every header is of the pax kind (POSIX.1-2001), with numeric owners and no names, and the one time :data:`EPOCH`;
extended headers appear only where a path needs them. Members follow each other in the order of the calls; the end is
two blocks of zeros.
"""

from __future__ import annotations

import hashlib
import posixpath
import queue
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import IO, Final, Literal, cast

from torchstrata.errors import IntegrityError
from torchstrata.store.codec import CHUNK, Codec, Compressor, Readable
from torchstrata.store.layer import EPOCH, Entry, EntryKind, Layer, in_payload
from torchstrata.store.paths import WHITEOUT, UnsafePathError, member_path

DEV: Final = 1000

AHEAD: Final = 4
"""Blocks that wait between the thread that makes a tar and the one that compresses it."""

OPAQUE: Final = ".wh..wh..opq"

TYPES: Final[dict[EntryKind, bytes]] = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE}

END: Final = bytes(2 * tarfile.BLOCKSIZE)


def unpack(archive: tarfile.TarFile, into: Path, kind: Literal["data", "tar"] = "data") -> None:
    """Unpack an archive of our own making, or of our engine's, into a directory.

    Python 3.11.2, which Debian 12 has, does not take ``filter=``; the attribute it does not know does no harm there.

    :param kind: Python's name of what is refused and which modes are kept (PEP 706).
    """
    archive.extraction_filter = getattr(tarfile, f"{kind}_filter", None)
    archive.extractall(into)  # noqa: S202  # see above


def reading(stream: Readable) -> tarfile.TarFile:
    """Return a tar that is read once, from its start to its end."""
    return tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=CHUNK)


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Return the content of a regular file."""
    stream = archive.extractfile(member)
    assert stream is not None
    return stream


class LayerWriter:
    """Writes the tar of one layer into a codec; :meth:`Store.layer` makes and finishes it.

    Paths are absolute without the leading slash. Directories above a path are written before it, each once: 0775 and
    ``1000:0`` in the payload (``/opt/venv``, ``/opt/cuda*``), 0755 and root's elsewhere. Files and links have the
    same owners.

    :param write: takes the compressed bytes, in a thread of the writer.
    """

    cancelled: threading.Event
    """Set it to end the writing soon, by a ``CancelledError``."""

    layer: Layer
    """The finished layer; set when the ``with`` block of :meth:`Store.layer` has ended."""

    def __init__(self, write: Callable[[bytes], object], codec: Codec) -> None:
        self._kinds: dict[str, EntryKind] = {}
        self._contents: dict[str, str] = {}
        self._pump = _Pump(codec.compressor(), write)
        self._pending: list[bytes] = []
        self._size = self._unpacked = 0
        self.cancelled = threading.Event()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What has been written, in order."""
        return tuple(_described(path, kind, self._contents.get(path, "")) for path, kind in self._kinds.items())

    def __contains__(self, path: str) -> bool:
        return path in self._kinds

    def directory(self, path: str) -> None:
        """Write a directory and those above it; one that is there already stays."""
        if not path or self._kinds.get(path) == "dir":
            return
        self.directory(posixpath.dirname(path))
        self._header(path, "dir", 0o775 if in_payload(path) else 0o755)

    def directory_of_root(self, path: str) -> None:
        """Write a directory as 0755 and root's, whatever it is in the layers below; what is in it stays theirs."""
        self.directory(posixpath.dirname(path))
        self._claim(path, "dir")
        self._put(_info(path, "dir", 0o755, owner=0).tobuf(tarfile.PAX_FORMAT))

    def file(self, path: str, mode: int, size: int, stream: Readable, *, content: str = "") -> None:
        """Write a file of ``size`` bytes from ``stream``.

        :param content: what identifies its content, for :attr:`entries`.
        :raises IntegrityError: the stream is shorter, that path is there already, or it is no plain one.
        """
        self.directory(posixpath.dirname(path))
        self._header(path, "file", mode, size=size)
        if content:
            self._contents[path] = content
        self._content(path, size, stream)

    def _content(self, path: str, size: int, stream: Readable) -> None:
        left = size
        while left:
            if self.cancelled.is_set():
                raise CancelledError
            block = stream.read(min(CHUNK, left))
            if not block:
                raise IntegrityError(f"/{path} ends {left} bytes early", fix="its source is truncated: remove it, and run again to fetch it anew")
            self._put(block)
            left -= len(block)
        self._put(bytes(-size % tarfile.BLOCKSIZE))

    def link(self, path: str, target: str) -> None:
        """Write a symbolic link."""
        self.directory(posixpath.dirname(path))
        self._header(path, "link", 0o777, target=target)
        self._contents[path] = f"-> {target}"

    def add(self, member: tarfile.TarInfo, stream: Readable | None) -> None:
        """Write a member of another layer's tar as it is: owner, mode, time, links, devices, whiteouts; no parents.

        :param stream: the content of a file.
        :raises IntegrityError: the stream is shorter, or something of that path is there already.
        """
        path = member.name.strip("/")
        self._claim(path, "dir" if member.isdir() else "link" if member.issym() else "file")
        self._put(member.tobuf(tarfile.PAX_FORMAT))
        if stream is not None:
            self._content(path, member.size, stream)

    def _header(self, path: str, kind: EntryKind, mode: int, *, size: int = 0, target: str = "") -> None:
        _check_path(path)
        self._claim(path, kind)
        info = _info(path, kind, mode, owner=DEV if in_payload(path) else 0)
        info.size, info.linkname = size, target
        self._put(info.tobuf(tarfile.PAX_FORMAT))

    def _claim(self, path: str, kind: EntryKind) -> None:
        if path in self._kinds:
            raise IntegrityError(f"a layer would have /{path} twice: {self._kinds[path]} and {kind}", fix="two of its sources claim that path: leave one out")
        self._kinds[path] = kind

    def _put(self, block: bytes) -> None:
        self._pending.append(block)
        self._size += len(block)
        if self._size >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._unpacked += self._size
        self._pump.put(b"".join(self._pending))
        self._pending, self._size = [], 0

    def finish(self) -> tuple[str, int]:
        """End the tar; return its digest, ``sha256:...``, and its size in bytes."""
        self._put(END)
        self._flush()
        return self._pump.end(), self._unpacked

    def abort(self) -> None:
        """Stop without an end."""
        self._pump.stop()


def _check_path(path: str) -> None:
    """Refuse a path of our own layers that leads elsewhere or erases; only :meth:`LayerWriter.add` copies whiteouts.

    :raises IntegrityError: it does.
    """
    try:
        member_path(path)
    except UnsafePathError as error:
        raise IntegrityError(f"a layer cannot be written: {error}", fix="leave out what brings that path, and report it to its authors") from error


def _info(path: str, kind: EntryKind, mode: int, *, owner: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"{path}/" if kind == "dir" else path)
    info.type, info.mode, info.uid, info.mtime = TYPES[kind], mode, owner, EPOCH
    return info


class _Pump:
    """Hashes, compresses and writes blocks in a thread of its own, while the caller makes the next ones."""

    def __init__(self, compressor: Compressor, write: Callable[[bytes], object]) -> None:
        self._compressor, self._write = compressor, write
        self._hash = hashlib.sha256()
        self._blocks: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)
        self._thread.start()

    def put(self, block: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._blocks.put(block)

    def end(self) -> str:
        self.stop()
        if self._error is not None:
            raise self._error
        for chunk in self._compressor.finish():
            self._write(chunk)
        return f"sha256:{self._hash.hexdigest()}"

    def stop(self) -> None:
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()

    def _run(self) -> None:
        """Work until the end; after an error keep it, and go on taking blocks, so that the caller never waits."""
        while (block := self._blocks.get()) is not None:
            if self._error is None:
                try:
                    self._consume(block)
                except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                    self._error = error

    def _consume(self, block: bytes) -> None:
        self._hash.update(block)
        for chunk in self._compressor.compress(block):
            self._write(chunk)


def _described(path: str, kind: EntryKind, content: str = "") -> Entry:
    """Return the entry of a path; the names of whiteouts say what they hide."""
    parent, name = posixpath.split(path)
    if name == OPAQUE:
        return Entry(path=parent, kind="opaque")
    if name.startswith(WHITEOUT):
        return Entry(path=posixpath.join(parent, name.removeprefix(WHITEOUT)), kind="whiteout")
    return Entry(path=path, kind=kind, content=content)
