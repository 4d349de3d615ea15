"""The plan of the package, read from its imports: ``python -m tests.house`` draws it (``nox -s house``)."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from torchstrata.matrix.matrix import ROOT

NAME: Final = "torchstrata"
PACKAGE: Final = ROOT / NAME
MODULES: Final = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
PICTURE: Final = ROOT / "docs" / "rooms.svg"

GUIDE: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TABLE: Final = GUIDE.partition("| in `torchstrata/` | is |")[2].partition("\n\n")[0]
SENTENCES: Final = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", TABLE, re.MULTILINE))
ROOMS: Final = tuple(SENTENCES)
"""From the door down, as the table in CONTRIBUTING.md lists them."""

SIDE, LEFT, TOP = 34, 150, 90
"""Pixels of a square, and where the first one begins: beside the names of rows, below those of columns."""

STYLE: Final = """
text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: #1b1f24 } .count { font-size: 12px; text-anchor: middle }
rect { fill: #0969da } .self { fill: #d0d7de } .none { fill: #f3f5f7 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .self { fill: #484f58 } .none { fill: #1a2029 } }
"""


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name below the package of all that is imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import is written out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(f"{NAME}.") for name in names if name.startswith(f"{NAME}."))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names of all that a module imports from the package."""
    return frozenset(imported(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def uses() -> Mapping[tuple[str, str], int]:
    """Return how many modules of one room import from another, for each two rooms where some do."""
    pairs: Counter[tuple[str, str]] = Counter()
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0]
        used = {name.split(".")[0] for name in imports(path)}
        pairs.update((room, other) for other in used if room in ROOMS and other in ROOMS and other != room)
    return dict(sorted(pairs.items()))


def draw() -> str:
    """Return the plan as SVG: a row for each room, a column for each that it may import from, and how many of its modules do."""
    size = TOP + len(ROOMS) * SIDE + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + len(ROOMS) * SIDE + 70} {size}" role="img">',
        "<title>Rows import from columns: the number says how many modules do</title>",
        f"<style>{STYLE}</style>",
        *map(_name_row, ROOMS),
        *map(_name_column, ROOMS),
        *itertools.starmap(_square, itertools.product(ROOMS, ROOMS)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(room: str) -> int:
    return ROOMS.index(room) * SIDE


def _name_row(room: str) -> str:
    count = sum(path.is_relative_to(PACKAGE / room) for path in MODULES)
    words = f"{room}/ ({count})"
    return f'<text x="{LEFT - 10}" y="{TOP + _place(room) + 22}" text-anchor="end"><title>{escape(SENTENCES[room])}</title>{words}</text>'


def _name_column(room: str) -> str:
    x, y = LEFT + _place(room) + 20, TOP - 8
    return f'<text transform="translate({x} {y}) rotate(-45)">{room}/</text>'


def _square(row: str, column: str) -> str:
    """Draw whether and how often ``row`` imports from ``column``."""
    count = uses().get((row, column), 0)
    x, y = LEFT + _place(column), TOP + _place(row)
    square = f'<rect x="{x + 1}" y="{y + 1}" width="{SIDE - 2}" height="{SIDE - 2}" rx="4"'
    if not count:
        return f'{square} class="{"self" if row == column else "none"}"/>'
    shade = 0.15 + min(count, 12) / 24
    return f'{square} fill-opacity="{shade:.2f}"/><text class="count" x="{x + SIDE // 2}" y="{y + 21}">{count}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
