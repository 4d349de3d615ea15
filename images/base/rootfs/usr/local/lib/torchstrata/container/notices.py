"""One line for a person, on standard error, so that a command's own output stays as it is."""

from __future__ import annotations

import os
import sys
from typing import Final

from container import settings

LONGEST: Final = 1000
"""Characters of what a message says, and of its cure: names, values and paths come from outside and have any length."""

NO_THREAD: Final = (
    "no thread can be started: the engine's seccomp profile knows no clone3, or the limit of processes is reached",
    "Docker 20.10.10 or newer, a newer profile, or a higher --pids-limit",
)
"""glibc takes another call only where the profile answers that there is none (ENOSYS), and not where it forbids it (EPERM)."""


def warn(what: str, fix: str = "") -> None:
    """Print what is wrong and, after a dash, what cures it."""
    _line(f"{brief(what)} - {brief(fix)}" if fix else brief(what))


def inform(what: str) -> None:
    """Print a fact, unless ``TORCHSTRATA_QUIET=1``."""
    if os.environ.get("TORCHSTRATA_QUIET", "").lower() not in settings.YES:
        _line(brief(what))


def printable(line: str) -> str:
    r"""Return a line with its control characters written out: a carriage return as ``\r``, a line separator as ``\u2028``."""
    return "".join(character if character.isprintable() or character in "\t " else ascii(character)[1:-1] for character in line)


def brief(text: str) -> str:
    """Return a text printable and, if it is long, without its middle: what is said of a name stands on both sides of it."""
    line = printable(text)
    half = LONGEST // 2 - 3
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def _line(text: str) -> None:
    sys.stderr.write(f"torchstrata: {text}\n")
    sys.stderr.flush()
