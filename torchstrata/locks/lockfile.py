"""The lock of one flavour of one torch build on one Python: exact wheels, as values and as a file.

The file is a valid argument of ``pip install --require-hashes -r``; comments carry what pip does not need.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from torchstrata.errors import LockError
from torchstrata.host.filesystem import PARTIAL, disk, turn, whole
from torchstrata.text import printable

FORMAT: Final = 1
FIELDS: Final = ("format", "build", "python", "flavour", "platform", "exclude-newer", "uv", "inputs")
"""Fields of the header, in order; ``require`` follows, once per requirement."""

LIMIT: Final = 4_000_000
"""Bytes of a lock."""

NAME: Final = r"[a-z0-9]+(?:-[a-z0-9]+)*"
"""Of a package, normalised (PyPA specifications, "Names and normalization")."""

VERSION: Final = r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,127}"
FILENAME: Final = r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}\.whl"
"""Of a wheel: a name, and no path."""

HASH: Final = r"[0-9a-f]{64}"

OTHER_CHECKOUT: Final = "use a clone of your own"
WAITING: Final = "another process is writing locks; waiting for it"

_HEADER: Final = re.compile(r"# ([a-z-]+): (.+)")
_TOOL: Final = re.compile(r"[0-9][0-9A-Za-z.+-]{0,40}")
_PIN: Final = re.compile(rf"({NAME})==({VERSION}) --hash=sha256:({HASH})  # ({FILENAME}) ([0-9]{{1,15}})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One wheel.

    :param name: normalised name of the package.
    :param sha256: of the file, in hex.
    :param size: bytes of the file.
    """

    name: Annotated[str, msgspec.Meta(pattern=rf"\A{NAME}\Z", max_length=128)]
    version: Annotated[str, msgspec.Meta(pattern=rf"\A{VERSION}\Z")]
    filename: Annotated[str, msgspec.Meta(pattern=rf"\A{FILENAME}\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=rf"\A{HASH}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0, lt=10**15)]

    @property
    def line(self) -> str:
        """The pin as it stands in a lock."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}  # {self.filename} {self.size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """Everything that a flavour of a build contains from wheels, its parents' wheels included.

    :param build: such as ``2.8.0-cu128``.
    :param python: minor version, such as ``3.13``.
    :param platform: such as ``linux/amd64``.
    :param requires: the requirements that the flavour adds to its parent's, as the resolver got them.
    :param exclude_newer: RFC 3339 time; the resolver saw no file that was uploaded later.
    :param uv: version of the resolver.
    :param pins: sorted by name.
    """

    build: str
    python: str
    flavour: str
    platform: str
    requires: tuple[str, ...]
    exclude_newer: str
    uv: str
    pins: tuple[Pin, ...]

    @property
    def inputs(self) -> str:
        """Digest of what the lock was made from; it moves with ``matrix.yaml``, the facts and ``requirements.in``."""
        return _sha256([FORMAT, self.build, self.python, self.flavour, self.platform, self.requires])

    @property
    def digest(self) -> str:
        """Digest of the pins, in hex: two locks with the same one install the same bytes."""
        return _sha256([[pin.name, pin.version, pin.filename, pin.sha256, pin.size] for pin in self.pins])


def render(lock: Lock) -> str:
    """Return the lock as the text of its file."""
    values = (FORMAT, lock.build, lock.python, lock.flavour, lock.platform, lock.exclude_newer, lock.uv, lock.inputs)
    lines = [
        "# Made by `inv lock`; not to be edited.",
        *(f"# {field}: {value}" for field, value in zip(FIELDS, values, strict=True)),
        *(f"# require: {requirement}" for requirement in lock.requires),
        *(pin.line for pin in lock.pins),
    ]
    return "\n".join(lines) + "\n"


def parse(text: str, where: str) -> Lock:
    """Return the lock whose file reads ``text``.

    :param where: names the file in errors.
    :raises LockError: it is not a lock, or its header was edited.
    """
    lines = text.removesuffix("\n").split("\n")[1:]
    fields = [match.groups() for line in lines if (match := _HEADER.fullmatch(line))]
    header = {name: value for name, value in fields if name != "require"}
    if tuple(header) != FIELDS or header["format"] != str(FORMAT) or len(header) != sum(name != "require" for name, _ in fields):
        raise LockError(f"{where} is not a lock of format {FORMAT}", fix="make it anew with inv lock")
    lock = Lock(
        build=header["build"],
        python=header["python"],
        flavour=header["flavour"],
        platform=header["platform"],
        requires=tuple(value for name, value in fields if name == "require"),
        exclude_newer=header["exclude-newer"],
        uv=header["uv"],
        pins=tuple(_pin(line, where) for line in lines if not line.startswith("#")),
    )
    if not _is_time(lock.exclude_newer) or not _TOOL.fullmatch(lock.uv):
        raise LockError(f"{where}: its header was edited: no time, or no version of uv", fix="make it anew with inv lock")
    if lock.inputs != header["inputs"]:
        raise LockError(f"{where}: its header was edited: the inputs digest does not fit", fix="make it anew with inv lock")
    if render(lock).split("\n")[1:] != [*lines, ""] or not text.isascii():
        raise LockError(f"{where} has lines that inv lock does not write", fix="make it anew with inv lock")
    if [pin.name for pin in lock.pins] != sorted({pin.name for pin in lock.pins}):
        raise LockError(f"{where}: its pins are not sorted, or one is there twice", fix="make it anew with inv lock")
    return lock


def _is_time(text: str) -> bool:
    """Return whether a header has a time as :func:`render` got it."""
    try:
        return bool(dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")) and text.endswith("Z")
    except ValueError:
        return False


def _pin(line: str, where: str) -> Pin:
    match = _PIN.fullmatch(line)
    if match is None:
        raise LockError(f"{where}: not a pin of one wheel: {printable(line, 80)}", fix="make it anew with inv lock")
    name, version, sha256, filename, size = match.groups()
    return Pin(name=name, version=version, filename=filename, sha256=sha256, size=int(size))


def _sha256(value: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def writing(folder: Path, on_line: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time write below a folder of locks; what one that was killed has left unfinished goes.

    :param on_line: told if another process must be waited for.
    :raises StoreError: it may not be made or read.
    """
    with contextlib.ExitStack() as held:
        with disk(folder, OTHER_CHECKOUT):
            held.enter_context(turn(folder, lambda: on_line(WAITING)))
            for path in folder.rglob(PARTIAL):
                path.unlink()
        yield


def replaced(path: Path, text: str) -> bool:
    """Put a text where a lock is or will be, all of it or nothing; return whether that changes anything.

    :raises DiskFullError: there is no space.
    :raises StoreError: it cannot be written.
    """
    with disk(path, OTHER_CHECKOUT):
        content = text.encode()
        if path.is_file() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, mode=None) as file:
            file.write(content)
        return True
