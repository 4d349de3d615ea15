"""Compressions of layer blobs. The same tar, codec and library version give the same bytes on every machine.

zstd (the default) always runs libzstd's multi-threaded mode: its output depends on the parameters and on no count of
threads (one worker gives the bytes that eight give; ``tests/unit/store/test_codec.py``), so a machine may use as many
as it has. A frame has no checksum and no content size: every reader of a blob verifies its sha256, and a stream does
not know its size. gzip is zlib's deflate between a header and a trailer written here: no time, no name, operating
system "unknown".
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, Protocol, cast, get_args

import zstandard
from isal import igzip

from torchstrata.errors import StoreError

Name = Literal["zstd", "gzip"]

CHUNK: Final = 1 << 20
"""Bytes that readers and writers of layers handle at a time."""

MAX_WORKERS: Final = 4
"""Compression threads of one layer; more than one inflating thread can feed do not help, and each costs 20 MB."""

GZIP_HEADER: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""RFC 1952: magic, deflate, no flags, no time, no extra flags, unknown operating system."""

LEVELS: Final[dict[Name, range]] = {"zstd": range(1, 20), "gzip": range(1, 10)}

DEFAULT_LEVELS: Final[dict[Name, int]] = {"zstd": 3, "gzip": 6}
"""See docs/design.md for the measurements."""

MEDIA_TYPES: Final[dict[Name, str]] = {
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}


MAGIC: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


class Readable(Protocol):
    """Anything that bytes can be read from; an empty answer is the end."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes."""


class Stream(io.RawIOBase):
    """A binary stream that only has to say how ``read`` works."""

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes."""
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def drain(self) -> None:
        """Read to the end, where what was read is checked."""
        while self.read(CHUNK):
            pass


class Compressor(Protocol):
    """A compression under way. Both methods give the chunks that are ready; consume them before the next call."""

    def compress(self, data: bytes | bytearray | memoryview) -> Iterable[bytes]:
        """Compress some more of the input."""

    def finish(self) -> Iterable[bytes]:
        """End the stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """A compression and all of its parameters.

    :param name: ``zstd`` or ``gzip``.
    :param level: zstd 1 to 19, gzip 1 to 9.
    :raises StoreError: the codec or level does not exist.
    """

    name: Name = "zstd"
    level: int = 3

    def __post_init__(self) -> None:
        if self.name not in get_args(Name) or self.level not in LEVELS[self.name]:
            raise StoreError(f"no codec {self.name} level {self.level}", fix="choose zstd 1 to 19 or gzip 1 to 9")

    @property
    def media_type(self) -> str:
        """The OCI media type of layers that it makes."""
        return MEDIA_TYPES[self.name]

    @property
    def identity(self) -> str:
        """What the bytes depend on: library, its version and all parameters."""
        if self.name == "gzip":
            return f"gzip zlib={zlib.ZLIB_RUNTIME_VERSION} level={self.level} wbits=-15 mem=9 mtime=0 os=255"
        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return f"zstd libzstd={version} level={self.level} mt checksum=0 content-size=0 dict=0"

    def compressor(self) -> Compressor:
        """Start a stream."""
        return _Gzip(self.level) if self.name == "gzip" else _zstd(self.level)


def _zstd(level: int) -> Compressor:
    left_out = {"write_checksum": False, "write_content_size": False, "write_dict_id": False}
    parameters = zstandard.ZstdCompressionParameters.from_level(level, threads=_workers(), **left_out)
    return zstandard.ZstdCompressor(compression_params=parameters).chunker(chunk_size=CHUNK)


def _workers() -> int:
    """Return the number of cores to use, at least one: none would be the other mode, with other bytes."""
    return max(1, min(os.cpu_count() or 1, MAX_WORKERS))


class _Gzip:
    def __init__(self, level: int) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9)
        self._crc = self._size = 0
        self._head = GZIP_HEADER

    def compress(self, data: bytes | bytearray | memoryview) -> Iterable[bytes]:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        head, self._head = self._head, b""
        return (head + self._deflate.compress(data),)

    def finish(self) -> Iterable[bytes]:
        trailer = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        head, self._head = self._head, b""
        return (head + self._deflate.flush() + trailer,)


def compression(head: bytes) -> str:
    """Return the compression of a blob that begins with ``head``, for :func:`decompressor`; ``tar`` for none."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "tar")


def decompressor(blob: Readable, media_type: str) -> Readable:
    """Return a stream of the tar in ``blob``.

    :param media_type: OCI or Docker media type of the layer; its end names the compression.
    :raises StoreError: the compression is unknown.
    """
    if media_type.endswith("zstd"):
        return zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", blob), read_size=CHUNK, read_across_frames=True)
    if media_type.endswith("gzip"):
        return cast("Readable", igzip.IGzipFile(fileobj=blob, mode="rb"))  # type: ignore[no-untyped-call]
    if media_type.endswith("tar"):
        return blob
    raise StoreError(f"layers of type {media_type} are not known", fix="export the image with zstd, gzip or no compression")
