"""One line for a person, on standard error, so that a command's own output stays as it is."""

from __future__ import annotations

import os
import sys

from container import settings


def warn(what: str, fix: str = "") -> None:
    """Print what is wrong and, after a dash, what cures it."""
    _line(f"{what} - {fix}" if fix else what)


def inform(what: str) -> None:
    """Print a fact, unless ``TORCHSTRATA_QUIET=1``."""
    if os.environ.get("TORCHSTRATA_QUIET", "").lower() not in settings.YES:
        _line(what)


def printable(line: str) -> str:
    r"""Return a line with its control characters written out: a carriage return as ``\r``, a line separator as ``\u2028``."""
    return "".join(character if character.isprintable() or character in "\t " else ascii(character)[1:-1] for character in line)


def _line(text: str) -> None:
    sys.stderr.write(f"torchstrata: {printable(text)}\n")
    sys.stderr.flush()
