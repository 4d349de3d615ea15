"""The table of verified images in ``docs/verified.md``: ``python -m tests.verified [RESULTS]`` takes in new evidence (``nox -s verified``)."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from torchstrata import arguments, platforms
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell, Matrix
from torchstrata.verification import evidence
from torchstrata.verification.evidence import Evidence

GUIDE: Final = ROOT / "docs" / "verified.md"
FACTS: Final = ROOT / "docs" / "verified.json"
BEGIN, END = "<!-- generated from verified.json by `nox -s verified` -->", "<!-- end of what is generated -->"
HEAD: Final = "| image | digest | scope | tests passed | seconds | on |\n|---|---|---|---|---|---|\n"
SHOWN: Final = 12
"""Digits of a digest."""


class VerifiedImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one verification has shown of an image.

    :param digest: of its manifest, without the name of the hash.
    :param on: day on which it ended.
    """

    digest: str
    scope: evidence.Scope
    tests: int
    seconds: int
    on: str


def read(path: Path = FACTS) -> dict[str, VerifiedImage]:
    """Return the latest verification of each image, by the image's name."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, VerifiedImage])


def taken_in(known: Mapping[str, VerifiedImage], found: Iterable[Evidence]) -> dict[str, VerifiedImage]:
    """Return what is known with what ``found`` shows; of the same digest the full scope stays."""
    facts = dict(known)
    for proof in sorted(found, key=lambda one: one.finished):
        if proof.holds and not proof.counts.failed and not proof.counts.missing:
            name, fact = _name(proof.cell, proof.flavour, proof.platform), _fact(proof)
            before = facts.get(name)
            if not before or (before.digest, before.scope) != (fact.digest, "full") or fact.scope == "full":
                facts[name] = fact
    return facts


def _name(cell: str, flavour: str, platform: str) -> str:
    """Return the tag of an image in an engine, with its OS."""
    return f"{cell}-{flavour}{platforms.suffix(platform)}"


def _fact(proof: Evidence) -> VerifiedImage:
    assert proof.image, "evidence that holds is of an image"
    began, ended = (dt.datetime.fromisoformat(time) for time in (proof.started, proof.finished))
    digest = (proof.image.manifest or proof.image.digest).removeprefix("sha256:")
    seconds = round((ended - began).total_seconds())
    return VerifiedImage(digest=digest, scope=proof.scope, tests=proof.counts.passed, seconds=seconds, on=f"{ended:%Y-%m-%d}")


def table(facts: Mapping[str, VerifiedImage], known: Matrix) -> str:
    """Return the table of the images of the matrix that were verified, and a line for each cell of which none was."""
    cells = {cell.name: [*_of(cell, known)] for cell in matrix.everywhere(known.cells)}
    rows = "".join(_row(name, facts[name]) for name in itertools.chain.from_iterable(cells.values()) if name in facts)
    rest = [cell for cell, names in cells.items() if facts.keys().isdisjoint(names)]
    return f"{HEAD}{rows}\nNo image was verified of: {', '.join(f'`{name}`' for name in rest) or 'no cell'}.\n"


def _of(cell: Cell, known: Matrix) -> Iterator[str]:
    return (_name(cell.id, flavour, cell.platform) for flavour in known.flavours)


def _row(name: str, fact: VerifiedImage) -> str:
    return f"| `{name}` | `{fact.digest[:SHOWN]}` | {fact.scope} | {fact.tests} | {fact.seconds} | {fact.on} |\n"


def with_table(guide: str, rows: str) -> str:
    """Return the guide with ``rows`` in the place of its table."""
    written, count = re.subn(f"(?s)(?<={re.escape(BEGIN)}\n\n).*?(?=\n{re.escape(END)})", lambda _: rows, guide)
    assert count == 1, f"{GUIDE} has one table between its two marks"
    return written


def main(words: list[str]) -> int:
    """Take in the evidence below a directory, ``results/`` by default, and write facts and table; return 0."""
    parser = arguments.Parser(prog="nox -s verified --", description="Take evidence into docs/verified.md.", allow_abbrev=False)
    parser.add_argument("results", nargs="?", type=Path, default=evidence.RESULTS, metavar="DIRECTORY", help="where evidence lies (default: results)")
    results = parser.parse_args(words).results
    if not results.is_dir():
        parser.error(f"{results} is no directory")
    facts = taken_in(read(), map(evidence.read, sorted(results.glob(f"*/*/{evidence.NAME}"))))
    FACTS.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(facts.items()))), indent=2) + b"\n")
    GUIDE.write_text(with_table(GUIDE.read_text(encoding="utf-8"), table(facts, matrix.load())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
