"""Doing what only root may do: as root, or by sudo where it asks for no password; never otherwise."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from torchstrata import process
from torchstrata.errors import NotRootError


@functools.cache
def _words(user: int) -> tuple[str, ...] | None:
    """Return what a command line begins with, so that root runs it; ``None`` if this user may not."""
    if user == 0:
        return ()
    if shutil.which("sudo") is None:
        return None
    try:
        process.run("sudo", "-n", "-k", "true")  # -k: a password that was typed a minute ago is no leave to use it here
    except process.Failed:
        return None
    return ("sudo", "-n")


def is_possible() -> bool:
    """Return whether this process is root, or may become so by sudo without a password."""
    return _words(os.geteuid()) is not None


def begin(purpose: str, report: process.LineSink, *, fix: str) -> None:
    """Make sure that root can do what follows; where that takes sudo, say so in one line.

    :param purpose: what needs root, such as ``installing mmdebstrap``.
    :param fix: what a person without such a sudo can do.
    :raises NotRootError: this user may not.
    """
    words = _words(os.geteuid())
    if words is None:
        raise NotRootError(f"{purpose} needs root, and there is no sudo that asks for no password", fix=fix)
    if words:
        report(f"{purpose} needs root: using sudo, which asks for no password")


def command(*args: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the command line by which root runs ``args``.

    :raises NotRootError: this user may not.
    """
    words = _words(os.geteuid())
    if words is None:
        raise NotRootError(f"{args[0]} needs root", fix="run this as root, or ask for a sudo that asks for no password")
    return (*words, *map(str, args))


def run(*args: str | os.PathLike[str], stdin: bytes | None = None, on_line: process.LineSink | None = None) -> str:
    """Run a program as root and return its standard output; pass variables by ``env``, since sudo keeps few.

    :raises NotRootError: this user may not.
    :raises CommandError: as :func:`torchstrata.process.run`.
    """
    return process.run(*command(*args), stdin=stdin, on_line=on_line)


def write(path: Path, text: str) -> None:
    """Write a file that everybody may read, with the directories that it lies in."""
    run("install", "-D", "--mode=644", "/dev/stdin", path, stdin=text.encode())
