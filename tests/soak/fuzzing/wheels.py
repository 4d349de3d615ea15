"""Readers of wheels: the archive as a whole, and what is in one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

import installer

from tests.wheelhouse import forged
from torchstrata.errors import IntegrityError
from torchstrata.layers import venv, wheel_archive, wheel_file
from torchstrata.layers.venv import Destination
from torchstrata.layers.wheel_archive import BadWheelError
from torchstrata.locks.lockfile import Pin
from torchstrata.store import inventory
from torchstrata.store.codec import Codec
from torchstrata.store.paths import member_path
from torchstrata.store.tarball import LayerWriter

CODEC: Final = Codec(level=1)
NAME: Final = "evil-1.0-py3-none-any.whl"
INFO: Final = "evil-1.0.dist-info"
DATA: Final = "evil-1.0.data"

HONEST: Final = {
    "evil/__init__.py": b"x = 1\n",
    "nvidia/evil/lib/libevil.so.1": b"\x7fELF",
    f"{DATA}/scripts/run": b"#!python\nprint()\n",
    f"{DATA}/data/share/x": b"",
    f"{INFO}/entry_points.txt": b"[console_scripts]\nevil = evil:main\n",
}


@functools.cache
def _folder() -> Path:
    """Return a directory in memory, where Linux has one, for this process."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="torchstrata-fuzz-", dir=memory if memory.is_dir() else None))


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    path = _folder() / NAME
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        _folder.cache_clear()


def _install(path: Path) -> None:
    """Install a wheel into a layer that nobody keeps, and see that all its paths are in the payload."""
    pin = Pin(name="evil", version="1.0", filename=NAME, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    writer = LayerWriter(lambda _: None, CODEC)
    try:
        destination = Destination(writer, "3.13")
        destination.wheel = NAME
        with wheel_file.pinned(pin, path) as wheel:
            destination.dist_info = wheel.dist_info_dir
            installer.install(wheel, destination, venv.METADATA)
        for entry in writer.entries:
            assert entry.kind in {"dir", "file", "link"}, entry
            assert f"{member_path(entry.path)}/".startswith(("opt/venv/", "opt/cuda/")) or entry.path == "opt", entry
    finally:
        writer.abort()


def archive(data: bytes) -> None:
    """Read bytes as a wheel."""
    with _place() as path:
        path.write_bytes(data)
        _install(path)


def content(data: bytes) -> None:
    """Read a well-formed archive whose names and contents are what stands between noughts, name by content; then RECORD, if odd."""
    parts = data.split(b"\0")
    pairs = dict(zip((name.decode(errors="replace") for name in parts[::2]), parts[1::2], strict=False))
    record = parts[-1].decode(errors="replace") if len(parts) % 2 and parts[-1] else None
    with _place() as path:
        try:
            forged(path, pairs, record=record)
        except (UnicodeError, OverflowError, ValueError):  # no archive can have that name
            return
        _install(path)


def record(data: bytes) -> None:
    """Read bytes as RECORD."""
    with _ours():
        wheel_archive.records(data.decode())


def entry_points(data: bytes) -> None:
    """Read bytes as ``entry_points.txt``."""
    with _ours():
        wheel_file.check_entry_points(data.decode())


def metadata(data: bytes) -> None:
    """Read bytes as METADATA, as the inventory does."""
    found = inventory.python_package(data)
    assert all(text.isprintable() for text in (found.expression, found.license, *found.classifiers)), found


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Let what a wheel's reader raises be the error that a build ends with; text that is no UTF-8 as well."""
    try:
        yield
    except (BadWheelError, UnicodeDecodeError) as error:
        raise IntegrityError(f"a wheel cannot be used: {error}", fix="none") from error


def _archive(more: dict[str, bytes]) -> bytes:
    with _place() as path:
        forged(path, more)
        return path.read_bytes()


def _joined(files: Mapping[str, bytes]) -> bytes:
    """Return names and contents of files in turn."""
    return b"\0".join(chain.from_iterable((name.encode(), data) for name, data in files.items()))


ARCHIVES: Final = (_archive(HONEST), _archive({}), _archive({"evil.py": b"x"}), b"PK\x05\x06" + bytes(18))
CONTENTS: Final = tuple(
    map(_joined, (HONEST, {"a": b"b"}, {f"{DATA}/scripts/python": b"x"}, {DATA: b"x"}, {"a/.wh.b": b""}, {f"{INFO}/WHEEL": b"Wheel-Version: 1.9\n"}))
)
RECORDS: Final = (b"a.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nRECORD,,\n", b'"a,b",,\n', b"")
ENTRY_POINTS: Final = (b"[console_scripts]\na = b.c:d [e]\n", b"[gui_scripts]\na=b:c\n[x]\ny = %(z)s\n", b"[DEFAULT]\na = b:c\n[console_scripts]\n")
METADATA: Final = (
    b"Metadata-Version: 2.4\nName: evil\nVersion: 1.0\nLicense-Expression: MIT\nClassifier: License :: OSI Approved\n\ntext\n",
    b"Metadata-Version: 2.1\nName: evil\nLicense: A\n  B\nContent-Type: text/plain; charset=latin-1\n",
)
