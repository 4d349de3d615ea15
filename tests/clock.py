"""Another time of day for programs that ask libc for it: Python, uv, git, apt, but none written in Go."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("clock.c")

YEAR: Final = 365 * 24 * 3600


def build(library: Path) -> None:
    """Compile the library that moves clocks; without optimisation it also loads on systems whose libc is older."""
    subprocess.run(["cc", "-shared", "-fPIC", "-O0", "-o", library, SOURCE, "-ldl"], check=True)


def moved(library: Path, seconds: int) -> Mapping[str, str]:
    """Return the variables of a program whose clock is so far ahead; a negative number is behind."""
    return {"LD_PRELOAD": str(library), "SHIFT": str(seconds)}
