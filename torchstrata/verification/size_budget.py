"""What images weigh, compressed, against the budgets of their flavours; and which layers grew since then.

``tests/images/sizes.json`` holds the bytes of the layers of each row, of all its flavours, as they were then; ``inv
sizes`` writes it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from torchstrata import progress
from torchstrata.locks import lockfile
from torchstrata.matrix import flavours, matrix, plain_yaml
from torchstrata.matrix.matrix import ROOT, Cell, Matrix

RECORD: Final = "tests/images/sizes.json"

TOLERANCE: Final = 0.05
"""By how much an image may be over its budget: packages move by a few per cent."""

NAMED: Final = 5
"""Layers that one message names."""

Weights = Mapping[str, int]
"""Bytes by what a layer holds, without versions."""


def is_over(size: int, allowed: int) -> bool:
    """Return whether ``size`` is over the budget by more than :data:`TOLERANCE`."""
    return size > allowed * (1 + TOLERANCE)


def weigh(cell: Cell, layers: Iterable[tuple[str, int]]) -> Weights:
    """Return the bytes of what ``layers`` hold, from titles and sizes; several layers of one kind count together."""
    total: Counter[str] = Counter()
    for title, size in layers:
        total[_kind(title, cell.os.id)] += size
    return total


def of_all(weighed: Iterable[Weights]) -> Weights:
    """Return what the layers of several images hold: each kind as the image has it that has most of it."""
    most: dict[str, int] = {}
    for weights in weighed:
        most |= {name: max(size, most.get(name, 0)) for name, size in weights.items()}
    return most


def _kind(title: str, system: str) -> str:
    """Return what no version or OS changes: ``torch`` of ``torch 2.8.0``, ``OS base`` of ``debian13 base: RUN ...``."""
    head = title.partition(":")[0].replace(system, "OS")
    return " ".join(re.sub(r"(?<![\w.-])\d[\w.+~]*", "", head).split())


def grown(now: Weights, before: Weights) -> list[str]:
    """Return a line for each of the layers that grew most, the worst first."""
    more = Counter({name: size - before.get(name, 0) for name, size in now.items()})
    was = {name: f"was {progress.size(size)}" for name, size in before.items()}
    return [f"{name}: {progress.size(now[name])}, {was.get(name, 'new')}" for name, difference in more.most_common(NAMED) if difference > 0]


def recorded(cell: Cell, root: Path = ROOT) -> Weights:
    """Return what the layers of the row weighed when its budgets were set; nothing if nobody recorded it."""
    return dict(json.loads((root / RECORD).read_text(encoding="utf-8")).get(cell.weighed, {}))


def record(cell: Cell, weights: Weights, root: Path = ROOT) -> None:
    """Write down what the layers of the row weigh now."""
    path = root / RECORD
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(_document(known | {cell.weighed: dict(weights)}), encoding="utf-8")


def _document(weights: Mapping[str, Weights]) -> str:
    return json.dumps(weights, indent=2, sort_keys=True) + "\n"


def write(table: Matrix, measured: Mapping[str, Mapping[str, int]], root: Path = ROOT) -> None:
    """Make the present sizes the budgets: the line ``sizes`` of each flavour's file, whose other budgets stay.

    :param measured: bytes by cell's short id, by flavour.
    :raises StoreError: a file cannot be written.
    """
    order = list(dict.fromkeys(cell.weighed for cell in matrix.everywhere(table.cells)))
    for flavour, sizes in measured.items():
        path = root / flavours.path_of(flavour)
        known = {**table.flavours[flavour].sizes, **{short: _budget(size) for short, size in sizes.items()}}
        lockfile.replaced(path, _with_sizes(path.read_text(encoding="utf-8"), {short: known[short] for short in order if short in known}))


def without(table: Matrix, rows: Collection[str], root: Path = ROOT) -> dict[Path, tuple[str, str]]:
    """Return the files that know what images of some rows weigh, relative to the root: each as it is, and without these rows.

    :param rows: as :attr:`Cell.weighed` names them.
    """
    found = {}
    for flavour, declared in table.flavours.items():
        if not declared.sizes.keys().isdisjoint(rows):
            text = (root / flavours.path_of(flavour)).read_text(encoding="utf-8")
            kept = {short: size for short, size in declared.sizes.items() if short not in rows}
            found[Path(flavours.path_of(flavour))] = (text, _with_sizes(text, kept))
    record = root / RECORD
    if record.exists() and not (known := json.loads(text := record.read_text(encoding="utf-8"))).keys().isdisjoint(rows):
        found[Path(RECORD)] = (text, _document({short: weights for short, weights in known.items() if short not in rows}))
    return found


def _with_sizes(text: str, sizes: Mapping[str, str]) -> str:
    """Return the file of a flavour with other budgets."""
    return plain_yaml.replaced(text, "sizes", f"sizes: {{{', '.join(f'{short}: {size}' for short, size in sizes.items())}}}")


def _budget(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"  # noqa: PLR2004  # what a GB is
