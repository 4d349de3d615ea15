"""Reading wheels: the source that the ``installer`` library installs from, with entries inflated by ISA-L, about twice as fast as zlib."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Self, cast

from installer.records import parse_record_file
from installer.sources import WheelContentElement, WheelFile
from isal import igzip_lib, isal_zlib

from torchstrata.content.codec import CHUNK
from torchstrata.errors import IntegrityError

LOCAL_HEADER: Final = 30
"""Bytes of a zip archive's local header before name and extra field, whose lengths are the last four (APPNOTE 4.3.7)."""

INPUT: Final = 1 << 20
"""Compressed bytes read at a time."""


class Wheel(WheelFile):
    """A wheel whose sha256 has been verified already; CRCs are checked nevertheless, as a file may have changed since."""

    def __init__(self, archive: zipfile.ZipFile, file: IO[bytes], path: Path) -> None:
        super().__init__(archive)
        self._archive, self._file, self.path = archive, file, path

    @classmethod
    @contextmanager
    def open(cls, path: Any) -> Iterator[Self]:
        """Open the wheel at ``path``.

        :raises IntegrityError: it is no zip archive.
        """
        with path.open("rb") as file:
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise damaged(path, str(error)) from error
            with archive:
                yield cls(archive, file, path)

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Yield record, content and executable bit of every file, in the order of the archive; no compiled Python."""
        records = {row[0]: row for row in parse_record_file(self.read_dist_info("RECORD").splitlines())}
        for info in self._archive.infolist():
            if not info.is_dir() and "__pycache__" not in info.filename.split("/"):
                mode = info.external_attr >> 16
                executable = bool(mode and stat.S_ISREG(mode) and mode & 0o111)
                record = records.get(info.filename, (info.filename, "", ""))
                yield record, cast("Any", Member(self, info, record)), executable

    def compressed(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield the compressed bytes of an entry."""
        self._file.seek(info.header_offset)
        header = self._file.read(LOCAL_HEADER)
        if header[:4] != b"PK\x03\x04" or len(header) < LOCAL_HEADER:
            raise damaged(self.path, f"{info.filename} has no header")
        position = self._file.tell() + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        end = position + info.compress_size
        while position < end:
            self._file.seek(position)
            block = self._file.read(min(INPUT, end - position))
            if not block:
                raise damaged(self.path, f"{info.filename} is cut off")
            position += len(block)
            yield block


class Member:
    """The content of one file of a wheel, from start to end.

    :ivar size: its bytes.
    :ivar record: its row in the wheel's RECORD: path, hash, size.
    """

    def __init__(self, wheel: Wheel, info: zipfile.ZipInfo, record: tuple[str, str, str]) -> None:
        self.size, self.record = info.file_size, record
        self._wheel, self._info = wheel, info
        self._blocks = self._inflated()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most ``size``; fewer do not mean the end, none do.

        :raises IntegrityError: they are not what the archive's directory says.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        block = self._rest or next(self._blocks, b"")
        self._rest = block[size:]
        return block[:size]

    def _inflated(self) -> Iterator[bytes]:
        crc = done = 0
        for block in _inflate(self._wheel.compressed(self._info), self._info, self._wheel.path):
            crc, done = isal_zlib.crc32(block, crc), done + len(block)
            if done >= self.size:  # before the last block goes out: nobody reads on once all bytes are there
                self._check(done, crc)
            yield block
        self._check(done, crc)

    def _check(self, size: int, crc: int) -> None:
        if size != self.size or crc != self._info.CRC:
            raise damaged(self._wheel.path, f"{self._info.filename} has a wrong checksum")


def _inflate(blocks: Iterator[bytes], info: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    """Yield the content of an entry; no block is larger than :data:`CHUNK`, however well it was compressed."""
    if info.compress_type == zipfile.ZIP_STORED:
        yield from blocks
        return
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise damaged(path, f"{info.filename} is compressed by method {info.compress_type}, which wheels do not use")
    inflater = igzip_lib.IgzipDecompressor()
    try:
        while not inflater.eof:
            more = next(blocks, None) if inflater.needs_input else b""
            if more is None:
                raise damaged(path, f"{info.filename} is cut off")
            if block := inflater.decompress(more, CHUNK):
                yield block
    except igzip_lib.error as error:  # type: ignore[misc]  # the stub calls the class an instance
        raise damaged(path, f"{info.filename}: {error}") from error


def damaged(path: Path, why: str) -> IntegrityError:
    """Return the error for a wheel that is not what it should be."""
    return IntegrityError(f"{path.name} is damaged: {why}", fix=f"remove {path}, and run again to fetch it anew")
