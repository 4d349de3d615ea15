"""What a matrix costs that grows: 1, 2 and 4 flavours beside each other, each with a wheel of its own.

    TORCHSTRATA_CACHE=/tmp/store python bench/growth.py [CELL] [PLATFORM ...] > bench/results/growth.json

Each row begins with a clone of HEAD in which everything is built, so that only the new flavours are paid for: their locks, their
layers, their images. A second platform is a row of its own, with the same flavours, whose layers it shares where it may; named alone, it has to
make them all. Times include what the index and the engine need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from torchstrata.platforms import PLATFORM
from torchstrata.store.store import Store

PARENT: Final = "jupyter"
WHEELS: Final[Mapping[int, tuple[str, ...]]] = {1: ("tabulate",), 2: ("humanize", "emoji"), 4: ("xlsxwriter", "inflection", "toolz", "termcolor")}
"""How many flavours a row adds, and the wheel of each: none that another flavour has, so that nothing is shared by chance."""


def run(checkout: Path, *words: str) -> float:
    """Run a command in a checkout with its output on standard error; return its seconds."""
    begun = time.monotonic()
    subprocess.run(words, check=True, cwd=checkout, stdout=sys.stderr, env={**os.environ, "CI": "true"})
    return round(time.monotonic() - begun, 1)


def grow(checkout: Path, wheels: tuple[str, ...]) -> None:
    """Add a flavour for each wheel."""
    for wheel in wheels:
        run(checkout, "inv", "new-flavour", f"with-{wheel}", "--from", PARENT)
        (checkout / "images" / f"with-{wheel}" / "requirements.in").write_text(f"{wheel}\n", encoding="utf-8")


def stored() -> int:
    """Return the bytes of all files of the store."""
    return sum(path.stat().st_size for path in Store.open().root.rglob("*") if path.is_file())


def measure(cell: str, platform: str, wheels: tuple[str, ...]) -> dict[str, object]:
    """Return what it costs to add a flavour for each wheel to a cell whose flavours are built."""
    with tempfile.TemporaryDirectory(prefix="torchstrata-growth-") as work:
        checkout = Path(work) / "checkout"
        run(ROOT, "git", "clone", "--quiet", str(ROOT), str(checkout))
        build = ("nox", "-s", f"build-{cell}", "--", "--platform", platform)
        run(checkout, *build)
        before, plan_before = stored(), run(checkout, "inv", "plan", cell, "--platform", platform)
        grow(checkout, wheels)
        lock = run(checkout, "inv", "lock", cell)
        plan, built = run(checkout, "inv", "plan", cell, "--platform", platform), run(checkout, *build)
        again = run(checkout, *build)
        return {
            "flavours": len(wheels),
            "platform": platform,
            "lock_s": lock,
            "plan_s": [plan_before, plan],
            "build_s": built,
            "build_again_s": again,
            "stored_bytes": stored() - before,
        }


def main() -> None:
    """Measure and print the figures as JSON; progress goes to standard error."""
    cell, *platforms = sys.argv[1:] or ["2.13-cpu"]
    rows = [measure(cell, platform, wheels) for platform in platforms or [PLATFORM] for wheels in WHEELS.values()]
    print(json.dumps({**machine.about(), "load": machine.load(), "cell": cell, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
