"""Builders, pushers and pruners of one store and one registry, all at once, for ``--minutes``: nothing is corrupt, nothing is lost."""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from tests.soak import figures, small
from tests.soak.forked import Forker
from tests.soak.site import Site
from torchstrata import errors

PEOPLE: Final = 8
KINDS: Final = ("build", "build", "build", "push", "push", "prune")
BUSY: Final = "another build is using"
AGAIN: Final = "build again"


def fate(kind: str, status: int, said: str) -> str:
    """Return what became of a verb: ``well``, or that it had to wait, or to be run again, or what must not be."""
    if status == 0:
        return f"{kind} well"
    if status == errors.StoreError.code and kind == "prune" and BUSY in said:
        return "prune refused"
    if status == errors.StoreError.code and AGAIN in said and "Traceback" not in said:
        return f"{kind} again"
    return f"{kind} wrong"


def command(kind: str, site: Site, number: int) -> Sequence[str]:
    """Return the words of a verb, for one of the people."""
    words = {
        "build": ("small", "build", str(site.work / "pins"), str(site.work / "out" / f"{number}")),
        "push": site.push(f"crowd{number}"),
        "prune": ("inv", "cache", "--prune"),
    }
    return words[kind]


def test_a_crowd(site: Site, request: pytest.FixtureRequest) -> None:
    """Pruning says that others build, or prunes between them; every build gives the same image."""
    options = request.config.option
    end, counted, wrong = time.monotonic() + options.minutes * 60, collections.Counter[str](), list[str]()

    def person(number: int) -> None:
        chance = random.Random(f"{options.seed} {number}")
        with Forker.ready() as forker:
            while time.monotonic() < end:
                kind = chance.choice(KINDS)
                output = site.work / f"{number}-{sum(counted.values())}.out"
                child = forker.start(command(kind, site, number), site.environment, output)
                known = fate(kind, child.status(), output.read_text())
                counted[known] += 1
                wrong.extend([output.read_text()[-1500:]] if known.endswith("wrong") else [])

    people = [threading.Thread(target=person, args=(number,)) for number in range(PEOPLE)]
    for each in people:
        each.start()
    for each in people:
        each.join()
    incomplete = chain.from_iterable(site.served.incomplete(f"crowd{number}/{small.NAME}") for number in range(PEOPLE))
    corrupt = [*site.corrupt(), *map(str, incomplete)]
    site.run(*site.build())
    reference = (site.layout / "index.json").read_bytes()
    indexes = [Path(path, "index.json").read_bytes() for path in (site.work / "out").iterdir() if (path / "index.json").exists()]
    lost = sum(index != reference for index in indexes)
    figures.tell(
        f"{PEOPLE} at once",
        options.seed,
        {**dict(sorted(counted.items())), "corrupt": len(corrupt), "lost": lost, "left": len(site.left())},
        keep=options.record,
    )
    assert wrong == []
    assert corrupt == []
    assert lost == 0
    assert site.left() == []
