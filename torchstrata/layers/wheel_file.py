"""Reading wheels: the source for the ``installer`` library, inflated by ISA-L, about twice as fast as zlib."""

from __future__ import annotations

import base64
import configparser
import itertools
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Self, cast

from installer.exceptions import InstallerError
from installer.sources import WheelContentElement, WheelFile
from installer.utils import parse_entrypoints
from isal import igzip_lib, isal_zlib
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from torchstrata.errors import IntegrityError
from torchstrata.layers import wheel_archive
from torchstrata.layers.wheel_archive import LOCAL_HEADER, BadWheelError, Recorded, raw_name, records
from torchstrata.locks.lockfile import Pin
from torchstrata.store import core_metadata
from torchstrata.store.codec import CHUNK
from torchstrata.store.digest import digest_of
from torchstrata.store.paths import UnsafePathError, member_path
from torchstrata.text import printable

INPUT: Final = 1 << 20
"""Compressed bytes read at a time."""

TEXTS: Final[Mapping[str, int]] = {"METADATA": 4 << 20, "RECORD": 16 << 20, "WHEEL": 64 << 10, "entry_points.txt": 1 << 20}
"""Files of dist-info that are read into memory, and how many bytes each may have."""

UNRECORDED: Final = ("RECORD", "RECORD.jws", "RECORD.p7s")
"""Files of dist-info that RECORD lists without a hash or not at all; :data:`UNRECORDED_SIZE` holds for them."""

UNRECORDED_SIZE: Final = 16 << 20
"""Bytes of such a file at most."""

SCRIPTS: Final = ("console_scripts", "gui_scripts")


class Wheel(WheelFile):
    """A wheel whose sha256 has been verified already; what it says of itself is checked against its bytes nevertheless.

    Each method raises :class:`BadWheelError` where the wheel is not what the specification asks for.
    """

    def __init__(self, archive: zipfile.ZipFile, file: IO[bytes]) -> None:
        super().__init__(archive)
        self._archive, self._file = archive, file
        self._infos = {info.filename: info for info in archive.infolist()}

    @classmethod
    @contextmanager
    def open(cls, path: Any) -> Iterator[Self]:
        """Open the wheel at ``path``; its directory has passed the gate.

        :raises BadWheelError: it is no wheel.
        """
        with path.open("rb") as file, wheel_archive.opened(file) as archive:
            wheel = cls(archive, file)
            for name in wheel._infos:
                wheel._check_scheme(name)
            yield wheel

    def _check_scheme(self, name: str) -> None:
        """Refuse files that stand for ``.data`` itself or for a directory in it, on which the library does not end."""
        below = name.removeprefix(f"{self.data_dir}/")
        if name == self.data_dir or (below != name and not name.endswith("/") and "/" not in below):
            raise BadWheelError(f"{name} is a file where a directory must be")

    def check(self, pin: Pin) -> None:
        """Refuse a wheel that is not the package that ``pin`` names, or that cannot be installed.

        :raises BadWheelError: its METADATA says otherwise, a file of RECORD is missing, or an entry point is invalid.
        """
        try:
            fields = core_metadata.parse(self.read_dist_info("METADATA"))
        except ValueError as error:
            raise BadWheelError(f"its METADATA {error}") from error
        name, version = fields.get("name", ""), fields.get("version", "")
        if canonicalize_name(name) != pin.name or not _same_version(version, pin.version):
            raise BadWheelError(f"its METADATA is that of {name} {version}, not of {pin.name} {pin.version}")
        lacking = [path for path in self._records if path not in self._infos and "__pycache__" not in path.split("/")]
        if lacking:
            raise BadWheelError(f"RECORD lists {lacking[0]}, which is not there")
        if "entry_points.txt" in self.dist_info_filenames:
            check_entry_points(self.read_dist_info("entry_points.txt"))

    @cached_property
    def _records(self) -> Mapping[str, Recorded | None]:
        return records(self.read_dist_info("RECORD"))

    def _recorded(self, info: zipfile.ZipInfo) -> Recorded | None:
        """Return what RECORD says of a file; nothing only of those that it cannot list."""
        recorded = self._records.get(info.filename)
        if recorded and recorded.size == info.file_size:
            return recorded
        if recorded:
            raise BadWheelError(f"{info.filename} has {info.file_size} bytes, not {recorded.size} as RECORD says")
        if info.filename not in {f"{self.dist_info_dir}/{name}" for name in UNRECORDED} or info.file_size > UNRECORDED_SIZE:
            raise BadWheelError(f"RECORD has no hash of {info.filename}")
        return None

    def read_dist_info(self, filename: str) -> str:
        """Return the text of a file of dist-info, one of :data:`TEXTS`."""
        info = self._infos.get(f"{self.dist_info_dir}/{filename}")
        if info is None or info.file_size > TEXTS[filename]:
            raise BadWheelError(f"{filename} is missing, or has more than {TEXTS[filename]} bytes")
        recorded = None if filename == "RECORD" else self._recorded(info)
        return Member(self, info, recorded).read().decode()

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return name in self._infos

    def content(self, name: str, limit: int) -> bytes:
        """Return what a file has; it is read no further than it goes, so that of a large wheel little need be there.

        :param limit: bytes that it may have.
        """
        info = self._infos.get(name)
        if info is None or info.file_size > limit:
            raise BadWheelError(f"{name} is missing, or has more than {limit} bytes")
        return Member(self, info, self._recorded(info)).read()

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Yield path, content and executable bit of every file, in the order of the archive; no compiled Python."""
        for info in self._archive.infolist():
            if not info.is_dir() and "__pycache__" not in info.filename.split("/"):
                mode = info.external_attr >> 16
                executable = bool(mode and stat.S_ISREG(mode) and mode & 0o111)
                member = Member(self, info, self._recorded(info))
                yield (info.filename, "", ""), cast("Any", member), executable

    def compressed(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield the compressed bytes of an entry."""
        self._file.seek(info.header_offset)
        header = self._file.read(LOCAL_HEADER)
        name, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
        if header[:4] != b"PK\x03\x04" or self._file.read(name) != raw_name(info):
            raise BadWheelError(f"{info.filename} has no header, or one of another name")
        position = self._file.tell() + extra
        end = position + info.compress_size
        while position < end:
            self._file.seek(position)
            block = self._file.read(min(INPUT, end - position))
            if not block:
                raise BadWheelError(f"{info.filename} is cut off")
            position += len(block)
            yield block


@contextmanager
def pinned(pin: Pin, path: Path) -> Iterator[Wheel]:
    """Open the file of a pin for a block that reads it.

    :raises IntegrityError: it is not what the lock and the specification say; or the block finds a part that is not.
    """
    try:
        with Wheel.open(path) as wheel:
            wheel.check(pin)
            yield wheel
    except (InstallerError, ValueError) as error:  # our own error is a ValueError, as that of text which is no UTF-8
        raise _unusable(pin, path, printable(str(error))) from error


def _unusable(pin: Pin, path: Path, why: str) -> IntegrityError:
    """Return the error for a wheel that has changed since it was verified, or that should not have been locked."""
    if digest_of(path) != f"sha256:{pin.sha256}":
        return IntegrityError(f"{path.name} is damaged: {why}", fix=f"remove {path}, and run again to fetch it anew")
    return IntegrityError(f"{path.name} cannot be used: {why}", fix=f"lock another version of {pin.name} (inv lock --upgrade), and tell its authors")


class Member:
    """The content of one file of a wheel, from start to end; size, CRC and the hash in RECORD are checked on the way.

    :ivar size: its bytes.
    :ivar recorded: what RECORD says of it, if it lists it.
    """

    def __init__(self, wheel: Wheel, info: zipfile.ZipInfo, recorded: Recorded | None) -> None:
        self.size, self.recorded = info.file_size, recorded
        self._wheel, self._info = wheel, info
        self._blocks = self._inflated()
        self._rest = b""

    def again(self) -> Member:
        """Return the same content from its start."""
        return Member(self._wheel, self._info, self.recorded)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most ``size``; fewer do not mean the end, none do.

        :raises BadWheelError: they are not what the archive's directory and RECORD say.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        block = self._rest or next(self._blocks, b"")
        self._rest = block[size:]
        return block[:size]

    def drain(self) -> None:
        """Read to the end, for what is checked there."""
        while self.read(CHUNK):
            pass

    def _inflated(self) -> Iterator[bytes]:
        crc = done = 0
        hasher = self.recorded.hasher() if self.recorded else None
        for block in _inflate(self._wheel.compressed(self._info), self._info):
            crc, done = isal_zlib.crc32(block, crc), done + len(block)
            if hasher:
                hasher.update(block)
            if done >= self.size:  # before the last block goes out: nobody reads on once all bytes are there
                self._check(done, crc, hasher)
            yield block
        self._check(done, crc, hasher)

    def _check(self, size: int, crc: int, hasher: Any) -> None:
        if size != self.size or crc != self._info.CRC:
            raise BadWheelError(f"{self._info.filename} has a wrong checksum")
        if self.recorded and base64.urlsafe_b64encode(hasher.digest()).decode().rstrip("=") != self.recorded.value:
            raise BadWheelError(f"{self._info.filename} has another hash than RECORD says")


def _inflate(blocks: Iterator[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of an entry; no block is larger than :data:`CHUNK`, however well it was compressed."""
    if info.compress_type == zipfile.ZIP_STORED:
        yield from blocks
        return
    inflater = igzip_lib.IgzipDecompressor()
    try:
        while not inflater.eof:
            more = next(blocks, None) if inflater.needs_input else b""
            if more is None:
                raise BadWheelError(f"{info.filename} is cut off")
            if block := inflater.decompress(more, CHUNK):
                yield block
    except igzip_lib.error as error:  # type: ignore[misc]  # the stub calls the class an instance
        raise BadWheelError(f"{info.filename}: {error}") from error


def _same_version(version: str, wanted: str) -> bool:
    try:
        return Version(version) == Version(wanted)
    except InvalidVersion:
        return False


def check_entry_points(text: str) -> None:
    """Refuse entry points that cannot become scripts; read without interpolation, by which few lines grow endless.

    :raises BadWheelError: they cannot.
    """
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    try:
        parser.read_string(text)
        sections = filter(parser.has_section, SCRIPTS)
        scripts = itertools.chain.from_iterable(map(parser.items, sections))
        if any("%" in value or "/" in member_path(name) for name, value in scripts):
            raise BadWheelError("entry_points.txt has a script whose name or place cannot be")
        list(parse_entrypoints(text))
    except (configparser.Error, AssertionError, UnsafePathError) as error:  # the library asserts what it expects
        raise BadWheelError(f"entry_points.txt is none: {error or 'a script has no module and function'}") from error
