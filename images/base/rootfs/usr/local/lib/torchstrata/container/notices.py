"""One line for a person, on standard error, so that a command's own output stays as it is."""

from __future__ import annotations

import os
import sys

from container import settings


def warn(what: str, fix: str = "") -> None:
    """Print what is wrong and, after a dash, what cures it."""
    _line(f"{what} - {fix}" if fix else what)


def printable(text: str) -> str:
    """Return text that moves no cursor and begins no line: users name what is mounted, too."""
    return "".join(character if character.isprintable() else "?" for character in text)


def inform(what: str) -> None:
    """Print a fact, unless ``TORCHSTRATA_QUIET=1``."""
    if os.environ.get("TORCHSTRATA_QUIET", "").lower() not in settings.YES:
        _line(what)


def _line(text: str) -> None:
    sys.stderr.write(f"torchstrata: {printable(text)}\n")
    sys.stderr.flush()
