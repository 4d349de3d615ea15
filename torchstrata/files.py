"""Reading files that people write: regular files alone, and no more bytes than they may have."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from torchstrata.errors import TorchstrataError
from torchstrata.text import printable

KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableError(TorchstrataError):
    """A file cannot be read; callers raise an error of their own that says what it is for."""


def kind(path: Path) -> str | None:
    """Return in words what ``path`` names; ``None`` if it is a regular file, or nothing."""
    try:
        kind_of_file = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return None
    return KINDS.get(kind_of_file)


def read(path: Path, limit: int) -> bytes:
    """Return the content of a regular file, to which ``path`` may be a symbolic link; a pipe is not waited for.

    :param limit: bytes that it may have.
    :raises UnreadableError: it is missing, no regular file, too long, or may not be read.
    """
    shown = printable(str(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            kind_of_file = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
            if kind_of_file != stat.S_IFREG:
                raise UnreadableError(f"{shown} is {KINDS.get(kind_of_file, 'no file')}, not a file", fix="put a file there")
            content = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(f"{shown} cannot be read: {error.strerror}", fix="put a file there that you may read") from error
    if len(content) > limit:
        raise UnreadableError(f"{shown} has more than {limit} bytes", fix="put a shorter file there")
    return content


def text_or_empty(path: Path) -> str:
    """Return the text of a small file of the system's; empty where it cannot be read, as one that has gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def text(path: Path, limit: int) -> str:
    """Return the text of a file in UTF-8.

    :raises UnreadableError: see :func:`read`; or it is no UTF-8.
    """
    try:
        return read(path, limit).decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{printable(str(path))} is no UTF-8 at byte {error.start}", fix="save it as UTF-8") from error
