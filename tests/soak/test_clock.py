"""A clock that is a year ahead or behind, and right again afterwards: the same image, and no verb that refuses to work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import clock
from tests.clock import YEAR
from tests.soak.site import Site
from torchstrata.matrix.matrix import ROOT


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library that moves the clock."""
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    clock.build(made)
    return made


def at(site: Site, library: Path, shift: int, *words: str) -> str:
    """Run a verb in a process of its own, whose clock is moved from its start; return what it prints."""
    moved = clock.moved(library, shift) if shift else {}
    command = [sys.executable, "-m", "tests.soak.small", *words[1:]] if words[0] == "small" else [str(Path(sys.executable).parent / "inv"), *words[1:]]
    done = subprocess.run(command, cwd=ROOT, env={**site.environment, **moved}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}, {shift}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_the_clock_moves(library: Path) -> None:
    """What Python takes for the time, and not what it waits by: the test would show nothing otherwise."""
    code = "import time; print(int(time.time())); time.sleep(0.01)"
    now, later = (
        int(subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout)
        for env in ({}, clock.moved(library, YEAR))
    )
    assert YEAR <= later - now < YEAR + 3600


@pytest.mark.parametrize("order", [(YEAR, 0), (-YEAR, 0), (0, YEAR), (0, -YEAR), (YEAR, -YEAR), (-YEAR, YEAR)])
def test_a_year_off(site: Site, library: Path, order: tuple[int, int]) -> None:
    """Whatever one run's clock says and the next one's: both give the same bytes, all can be pushed, and pruning by age takes nothing just used."""
    digests = set()
    for number, shift in enumerate(order):
        digests.add(at(site, library, shift, *site.build()).strip().splitlines()[-1])
        at(site, library, shift, *site.push(f"clock{order[0]}{order[1]}-{number}".replace("--", "-m")))
    assert len(digests) == 1
    assert site.corrupt() == []
    at(site, library, order[-1], "inv", "cache", "--prune", "--days", "1")
    again = at(site, library, order[-1], *site.build())
    assert again.strip().splitlines()[-1] in digests
    at(site, library, order[-1], "inv", "cache", "--prune")
    assert site.left() == []
