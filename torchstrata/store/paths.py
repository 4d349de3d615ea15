"""Names of files that somebody else chose, and that become paths of a layer."""

from __future__ import annotations

from typing import Final, NewType

from torchstrata.text import printable

MemberPath = NewType("MemberPath", str)
"""A relative path of plain names, such as ``torch/lib/libc10.so``; :func:`member_path` makes it."""

LONGEST_NAME: Final = 255
"""Bytes of one name on Linux's file systems (NAME_MAX)."""

LONGEST_PATH: Final = 1024
"""Bytes of a path; Linux takes 4096 (PATH_MAX), of which a root and a mount point want their share."""

WHITEOUT: Final = ".wh."
"""What begins the names that erase files of lower layers (OCI image specification, layer.md, "Whiteouts")."""


class UnsafePathError(ValueError):
    """A path could lead somewhere else, erase another layer's files, or fool a terminal; the message says which."""


def member_path(text: str) -> MemberPath:
    """Return ``text`` as a path that stays below wherever it is put.

    :raises UnsafePathError: it is absolute or too long, or a name in it is empty, ``.``, ``..``, a whiteout, or has a
        backslash or a character that does not show itself.
    """
    if not text.isprintable() or "\\" in text:
        raise UnsafePathError(f"the name {printable(text)} has characters that names of files must not have")
    if len(text.encode()) > LONGEST_PATH:
        raise UnsafePathError(f"the name {printable(text, 60)} is longer than {LONGEST_PATH} bytes")
    for name in text.split("/"):
        _check_name(name, text)
    return MemberPath(text)


def _check_name(name: str, path: str) -> None:
    if name in {"", ".", ".."}:
        raise UnsafePathError(f"the name {printable(path)} could lead out of its place")
    if name.startswith(WHITEOUT):
        raise UnsafePathError(f"the name {printable(path)} would erase files of other layers")
    if len(name.encode()) > LONGEST_NAME:
        raise UnsafePathError(f"the name {printable(path, 60)} has a part of more than {LONGEST_NAME} bytes")
