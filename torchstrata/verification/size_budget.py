"""What images weigh, compressed, against the budgets of ``matrix.yaml``; and which layers grew since the budgets were set.

``tests/images/sizes.json`` holds the bytes of the layers of each row as they were then; ``inv sizes`` writes it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from torchstrata import platforms, progress
from torchstrata.matrix.matrix import ROOT, Cell

RECORD: Final = "tests/images/sizes.json"

TOLERANCE: Final = 0.05
"""By how much an image may be over its budget: packages move by a few per cent."""

NAMED: Final = 5
"""Layers that one message names."""

Weights = Mapping[str, int]
"""Bytes by what a layer holds, without versions."""


def budget(cell: Cell, flavour: str) -> int | None:
    """Return the bytes that the image of ``flavour`` may have; None if ``matrix.yaml`` does not say."""
    return dict(cell.sizes).get(f"{flavour}{platforms.suffix(cell.platform)}")


def is_over(size: int, allowed: int) -> bool:
    """Return whether ``size`` is over the budget by more than :data:`TOLERANCE`."""
    return size > allowed * (1 + TOLERANCE)


def weigh(cell: Cell, layers: Iterable[tuple[str, int]]) -> Weights:
    """Return the bytes of what ``layers`` hold, from their titles and sizes; several layers of one kind count together."""
    total: Counter[str] = Counter()
    for title, size in layers:
        total[_kind(title, cell.os.id)] += size
    return total


def _kind(title: str, system: str) -> str:
    """Return what does not change with a version or the OS: ``torch`` of ``torch 2.8.0``, ``OS base`` of ``debian13 base: RUN ...``."""
    head = title.partition(":")[0].replace(system, "OS")
    return " ".join(re.sub(r"(?<![\w.-])\d[\w.+~]*", "", head).split())


def grown(now: Weights, before: Weights) -> list[str]:
    """Return a line for each of the layers that grew most, the worst first."""
    more = Counter({name: size - before.get(name, 0) for name, size in now.items()})
    return [_growth(name, now[name], before.get(name)) for name, difference in more.most_common(NAMED) if difference > 0]


def _growth(name: str, now: int, before: int | None) -> str:
    return f"{name}: {progress.size(now)}, " + ("new" if before is None else f"was {progress.size(before)}")


def _row(cell: Cell) -> str:
    return f"{cell.short}{platforms.suffix(cell.platform)}"


def recorded(cell: Cell, root: Path = ROOT) -> Weights:
    """Return what the layers of the row weighed when its budgets were set; nothing if nobody recorded it."""
    return dict(json.loads((root / RECORD).read_text(encoding="utf-8")).get(_row(cell), {}))


def record(cell: Cell, weights: Weights, root: Path = ROOT) -> None:
    """Write down what the layers of the row weigh now."""
    path = root / RECORD
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | {_row(cell): dict(weights)}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def line(measured: Mapping[str, int], end: str = "") -> str:
    """Return what to write into the row of ``matrix.yaml`` so that its budgets are the present sizes, in bytes by flavour.

    :param end: of the names of flavours, on another platform than the default one.
    """
    return f"sizes: {{{', '.join(f'{flavour}{end}: {_budget(size)}' for flavour, size in measured.items())}}}"


def _budget(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"  # noqa: PLR2004  # what a GB is
