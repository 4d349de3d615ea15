"""Adding a torch or a flavour to ``matrix.yaml``, the facts and README, and taking it out; other bytes stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import yaml

from torchstrata.errors import FlavourError, MatrixError
from torchstrata.matrix import compat
from torchstrata.matrix.compat import TorchRelease
from torchstrata.matrix.matrix import MATRIX, Cell, Matrix

FLAVOURS: Final = "| flavour | contains |\n"
"""The heading of README's table of flavours."""

BY_HAND: Final = "edit it by hand (docs/adding.md)"


def with_row(text: str, torch: str, variant: str, systems: Sequence[str], *, default: bool) -> str:
    """Return ``matrix.yaml`` with a row after those of the same and of newer torches.

    :raises MatrixError: its rows are not in braces, each on lines of its own.
    """
    row = f'  - {{torch: "{torch}", cuda: {variant}, {"default: true, " if default else ""}os: [{", ".join(systems)}]}}\n'
    lines = text.splitlines(keepends=True)
    above = [end for known, _, end in _rows(text) if compat.at_least(known, torch)]
    place = above[-1] if above else _heading(lines)
    return "".join([*lines[:place], row, *lines[place:]])


def without_rows(text: str, torch: str) -> str:
    """Return ``matrix.yaml`` without the rows of a torch, and without the comments right above them.

    :raises MatrixError: see :func:`with_row`.
    """
    lines = text.splitlines(keepends=True)
    for known, start, end in reversed(_rows(text)):
        if known == torch:
            while lines[start - 1].lstrip().startswith("#"):
                start -= 1  # noqa: PLW2901  # the comment belongs to the row
            del lines[start:end]
    return "".join(lines)


def _rows(text: str) -> list[tuple[str, int, int]]:
    """Return torch, first line and line after the last one of each row, counted from 0."""
    top: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = {key.value: value for key, value in top.value}["rows"].value
    for node in nodes:
        if not node.flow_style or not text.splitlines()[node.start_mark.line].lstrip().startswith("- {"):
            raise MatrixError(f"{MATRIX.name} line {node.start_mark.line + 1}: a row is not in braces, as the others are", fix=BY_HAND)
    return [(_torch(node), node.start_mark.line, node.end_mark.line + 1) for node in nodes]


def _torch(node: yaml.MappingNode) -> str:
    torch: str = {key.value: value for key, value in node.value}["torch"].value
    return torch


def _heading(lines: Sequence[str]) -> int:
    """Return the place below ``rows:``."""
    return next(number for number, line in enumerate(lines, 1) if line.startswith("rows:"))


def with_facts(text: str, torch: str, release: TorchRelease) -> str:
    """Return the facts with a release, in order.

    :raises MatrixError: they are not formatted as this program does it.
    """
    facts = _facts(text)
    known = {**facts["torch"], torch: msgspec.to_builtins(release)}
    return _json(facts | {"torch": {minor: known[minor] for minor in sorted(known, key=compat.numbers)}})


def without_facts(text: str, torch: str) -> str:
    """Return the facts without a release.

    :raises MatrixError: see :func:`with_facts`.
    """
    facts = _facts(text)
    return _json(facts | {"torch": {minor: release for minor, release in facts["torch"].items() if minor != torch}})


def _facts(text: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(text)
    if _json(facts) != text:
        raise MatrixError(f"{compat.FACTS.name} is not indented by one space as json.dumps does it, so that more would change than one release", fix=BY_HAND)
    return facts


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def with_table(text: str, table: Matrix) -> str:
    """Return README with a line for each row of the matrix that it does not list yet; people's lines stay.

    :raises MatrixError: it lists no row that stands beside in the matrix.
    """
    firsts = [cell for cell in table.cells if cell.is_default_os]
    for number, cell in enumerate(firsts):
        if _line(text, cell.short):
            continue
        beside = _line(text, firsts[number - 1].short) if number else None
        below = next((line for other in firsts[number + 1 :] if (line := _line(text, other.short))), None)
        if beside is None and below is None:
            raise MatrixError(f"README.md has no table with rows beside {cell.short}", fix=f"add to its table: {_described(table, cell)}")
        place = beside.end() if beside else below.start() if below else 0
        text = f"{text[:place]}{_described(table, cell)}\n{text[place:]}"
    return text


def with_flavours(text: str, table: Matrix) -> str:
    """Return README with its table of flavours written anew from their files.

    :raises FlavourError: it has none.
    """
    start, end = flavour_rows(text)
    rows = "".join(f"{row}\n" for row in _flavours(table))
    return f"{text[:start]}{rows}{text[end:]}"


def flavour_rows(text: str) -> tuple[int, int]:
    """Return where README's rows of flavours begin and end.

    :raises FlavourError: it has no such table.
    """
    rows = re.search(rf"^{re.escape(FLAVOURS)}\|---\|---\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    if rows is None:
        raise FlavourError("README.md has no table of flavours", fix=f"restore it, with the heading {FLAVOURS.strip()}")
    return rows.span(1)


def _flavours(table: Matrix) -> Iterator[str]:
    for name, flavour in table.flavours.items():
        more = "; `v<torch>` has the same layers and starts as root, which it drops" if name == table.all_in_one else ""
        yield f"| `{name}` | {flavour.summary}{more} |"


def without_lines(text: str, shorts: Iterable[str]) -> str:
    """Return README without the lines of rows."""
    for short in shorts:
        if line := _line(text, short):
            text = text[: line.start()] + text[line.end() :]
    return text


def _line(text: str, short: str) -> re.Match[str] | None:
    return re.search(rf"^\| `{re.escape(short)}` \|.*\n", text, re.MULTILINE)


def _described(table: Matrix, cell: Cell) -> str:
    """Return the line of a row in README's table."""
    systems = ", ".join(other.os.id for other in table.cells if other.short == cell.short)
    cuda = f"CUDA {cell.facts.cuda_version}" if cell.facts.cuda_version else "CPU"
    missing = [name for name, pin in compat.companions(cell.torch, cell.wheels).items() if not pin]
    notes = [*([f"`{cell.all_in_one}`"] if cell.named else []), *(f"no {name}" for name in missing)]
    cells = (f"`{cell.short}`", f"{cell.version} for {cuda}", cell.facts.driver_floor or "none", systems, "; ".join(notes))
    return f"| {' | '.join(cells)} |".replace("  |", " |")
