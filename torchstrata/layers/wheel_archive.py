"""The gate of wheels: what a zip archive's directory and a wheel's RECORD may say before anything of it is read.

Binary distribution format: https://packaging.python.org/specifications/binary-distribution-format/
zip: PKWARE's APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, cast

from installer.records import InvalidRecordEntry, parse_record_file

from torchstrata.store.paths import member_path
from torchstrata.text import printable

LOCAL_HEADER: Final = 30
"""Bytes of a local header before name and extra field (APPNOTE 4.3.7)."""

DIRECTORY: Final = 16 << 20
"""Bytes of a directory at most; that of torch 2.13.0 has 1.2 million."""

ENTRIES: Final = 100_000
"""Entries at most; torch 2.13.0 has 12,248."""

FREE: Final = 64 << 20
"""Bytes that any wheel may inflate to."""

RATIO: Final = 100
"""Times its own size that a larger wheel may inflate to; of the locks' 311 wheels the best packed one reaches 9.3."""

FORBIDDEN: Final = 0x1 | 0x20 | 0x40 | 0x2000
"""Flags of encrypted, patched, strongly encrypted and masked entries (APPNOTE 4.4.4)."""

UTF8: Final = 0x800
"""Flag of names that are UTF-8."""

METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

HASHES: Final = ("sha256", "sha384", "sha512")
"""What RECORD may use: the specification asks for sha256 or better."""

_SIZE: Final = re.compile(r"[0-9]{1,15}")
_HASH: Final = re.compile(r"([a-z0-9]+)=([A-Za-z0-9_-]+)")


class BadWheelError(ValueError):
    """A wheel is not what the specification asks for; the message, one printable line, says why."""

    def __init__(self, why: str) -> None:
        super().__init__(printable(why))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What RECORD says of a file.

    :param algorithm: of :data:`HASHES`.
    :param value: the hash in base64, as RECORD has it.
    :param size: bytes.
    """

    algorithm: str
    value: str
    size: int

    def hasher(self) -> hashlib._Hash:
        """Return a new hash of that kind."""
        return hashlib.new(self.algorithm)


class _Bounded:
    """A file as ``zipfile`` reads it while it opens an archive: never more at once than a directory may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self.name, self._file = file.seek, file.tell, file.name, file

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(DIRECTORY + 1 if size < 0 else min(size, DIRECTORY + 1))
        if len(data) > DIRECTORY:
            raise BadWheelError(f"its directory has more than {DIRECTORY} bytes")
        return data


def opened(file: IO[bytes]) -> zipfile.ZipFile:
    """Return the archive in a file, with a directory that has passed the gate.

    :raises BadWheelError: it is no archive, or not one of a wheel.
    """
    try:
        archive = zipfile.ZipFile(cast("IO[bytes]", _Bounded(file)))
    except BadWheelError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError, EOFError, OverflowError) as error:
        raise BadWheelError(f"it is no zip archive: {error}") from error
    _check(archive, file.seek(0, 2))
    return archive


def _check(archive: zipfile.ZipFile, size: int) -> None:
    infos = archive.infolist()
    if len(infos) > ENTRIES:
        raise BadWheelError(f"it has more than {ENTRIES} entries")
    for info in infos:
        _check_entry(info)
    if len({info.filename for info in infos}) < len(infos):
        raise BadWheelError("it has two entries of one name")
    _check_apart(infos, archive.start_dir)
    inflated = sum(info.file_size for info in infos)
    if inflated > max(FREE, RATIO * size):
        raise BadWheelError(f"it has {size} bytes and would inflate to {inflated}")


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = printable(info.filename)
    try:
        member_path(info.orig_filename.removesuffix("/"))
    except ValueError as error:
        raise BadWheelError(str(error)) from error
    if info.flag_bits & FORBIDDEN:
        raise BadWheelError(f"{name} is encrypted or a patch")
    if info.compress_type not in METHODS:
        raise BadWheelError(f"{name} is compressed by method {info.compress_type}, which wheels do not use")
    stored = info.compress_type == zipfile.ZIP_STORED
    if (info.is_dir() and info.file_size) or (stored and info.compress_size != info.file_size):
        raise BadWheelError(f"{name} has a size that cannot be")


def _check_apart(infos: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse entries that share bytes, by which a small archive inflates to a large one."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    begins = [*(info.header_offset for info in ordered), end]
    ends = [info.header_offset + LOCAL_HEADER + len(raw_name(info)) + info.compress_size for info in ordered]
    if begins[0] < 0 or any(over > begin for over, begin in zip(ends, itertools.islice(begins, 1, None), strict=True)):
        raise BadWheelError("its entries overlap")


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """Return the name of an entry as the archive has it (APPNOTE, appendix D)."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8 else "cp437")


def records(text: str) -> dict[str, Recorded | None]:
    """Return what RECORD says, by path; nothing of a file that it lists without hash or size.

    :raises BadWheelError: it is no RECORD, lists a file twice, or uses a hash that is not allowed.
    """
    recorded: dict[str, Recorded | None] = {}
    for path, value, size in _rows(text):
        if path in recorded:
            raise BadWheelError(f"RECORD lists {path} twice")
        recorded[path] = _recorded(path, value, size) if value and size else None
    return recorded


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    try:
        yield from parse_record_file(text.splitlines())
    except (csv.Error, InvalidRecordEntry) as error:
        raise BadWheelError(f"RECORD is no list of files: {error}") from error


def _recorded(path: str, value: str, size: str) -> Recorded:
    parts = cast("Any", _HASH.fullmatch(value))
    if parts is None or parts[1] not in HASHES or not _SIZE.fullmatch(size):
        raise BadWheelError(f"RECORD has no size, or no hash of {', '.join(HASHES)}, for {path}: {value},{size}")
    return Recorded(algorithm=parts[1], value=parts[2], size=int(size))
