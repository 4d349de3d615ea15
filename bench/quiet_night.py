"""The night when nothing has changed, for every cell of the matrix that is locked.

    python bench/quiet_night.py > bench/results/quiet_night.json

The ledger says that all cells are in all channels, made from what they would be made from tonight. Their images need not exist: a
night that has nothing to move asks the registry about none. Then ``inv nightly`` runs as a whole, several times, with a registry
on loopback (TLS, passwords, signed copy of the ledger). The mirrors of all OSes and the package index are the real ones.

Run it in a clone: first of all, the OS locks are moved to what the mirrors have today.
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from tests import teams
from tests.teams import Team
from torchstrata.errors import LockError
from torchstrata.image.compose import sha256
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.nightly import decisions
from torchstrata.release import channels
from torchstrata.release.ledger import Author, Move
from torchstrata.release.ledger_branch import Branch
from torchstrata.store.store import Store

MATRIX = matrix.load()
ROUNDS = 3
AUTHOR = Author(name="bench", email="bench@localhost")
SOAKED = dt.timedelta(days=30)


def moves(cell: Cell) -> Iterator[Move]:
    """Yield what took a cell into each channel: images made from what they would be made from tonight; nothing if it is not locked."""
    try:
        inputs = decisions.inputs(MATRIX, cell, Store.open(), ROOT)
    except LockError:
        return
    images = {image: sha256(f"{cell.id} {image}".encode()) for image in channels.images(MATRIX, cell)}
    for channel in MATRIX.channels.values():
        tags = channels.moving(MATRIX, channel, cell)
        action = "promote" if channel.source else "publish"
        yield Move(action=action, channel=channel.name, cell=cell.id, images=images, tags=tags, why="a measurement", inputs=inputs)


def fill(team: Team) -> int:
    """Write the ledger; return the number of cells in it."""
    branch, told = Branch.parse(team.ledger, ROOT), [move for cell in MATRIX.cells for move in moves(cell)]
    base = branch.read()
    branch.push(base, base.ledger.append(told, AUTHOR, dt.datetime.now(dt.UTC) - SOAKED), "Yesterday", AUTHOR)
    return len({move.cell for move in told})


def night(team: Team) -> float:
    """Run the night; return its seconds."""
    begun = time.monotonic()
    said = team.run("inv", "nightly", "--ledger", team.ledger)
    seconds = time.monotonic() - begun
    assert "nothing has changed" in said, said
    print(f"{seconds:.1f} s\n{said}", file=sys.stderr)
    return round(seconds, 1)


def main() -> None:
    """Measure and print the figures as JSON; progress goes to standard error."""
    with tempfile.TemporaryDirectory(prefix="torchstrata-quiet-night-") as work, teams.team(Path(work)) as team:
        print(team.run("inv", "nightly", "--step", "locks", "--ledger", team.ledger), file=sys.stderr)
        cells, seconds = fill(team), [night(team) for _ in range(ROUNDS)]
    print(json.dumps({**machine.about(), "load": machine.load(), "cells": cells, "seconds": seconds, "median_seconds": statistics.median(seconds)}, indent=2))


if __name__ == "__main__":
    main()
