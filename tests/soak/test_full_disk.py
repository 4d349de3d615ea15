"""A disk that is really full, at every size from nothing to enough: one line and a code, nothing by half, and the next build goes on.

The engine's full disk is in ``tests/system/test_engine.py``, and that of a real build in ``tests/system/test_disturbed.py``.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs
from tests.soak import figures
from tests.soak.site import Site
from torchstrata import errors

PLACES = {"store": "store", "layout": "out", "temporary": "tmp"}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a place to run small verbs."""
    with programs.alone(tmp_path_factory, ""), Site.made(tmp_path_factory.mktemp("site")) as made:
        yield made


def mount(path: Path, size: str) -> None:
    """Have a file system in memory of some size: bytes, and files."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", path], check=True)


def resize(path: Path, size: str) -> None:
    """Give it more."""
    subprocess.run(["mount", "-o", f"remount,{size}", path], check=True)


@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
@pytest.mark.parametrize("place", PLACES)
def test_every_size(site: Site, place: str, limit: str, request: pytest.FixtureRequest) -> None:
    """Each build ends well or with 15, without a traceback; what is there is whole; and with space the image is the one of an empty disk."""
    site.run(*site.build())
    reference = (site.layout / "index.json").read_bytes()
    chance, rounds = [4096, 20480, 100_000], request.config.option.rounds
    sizes = chance + [500_000 + each * 13_000_000 // rounds for each in range(rounds)] if limit == "size" else [2 + each for each in range(rounds)]
    count = {"rounds": 0, "refused": 0, "corrupt": 0, "lost": 0, "tracebacks": 0}
    wrong = []
    for size in sizes:
        disk = site.work / PLACES[place]
        for path in (site.store, site.layout):
            shutil.rmtree(path, ignore_errors=True)
        mount(disk, f"{limit}={size}")
        try:
            child = site.start(*site.build())
            status, said = child.status(), child.output.read_text()
            corrupt, traceback = site.corrupt(), "Traceback" in said
            resize(disk, "size=64m,nr_inodes=10000")
            again = site.start(*site.build())
            lost = again.status() != 0 or (site.layout / "index.json").read_bytes() != reference or bool(set(site.left()) - {str(disk)})
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)
        found = {"rounds": 1, "refused": status == errors.DiskFullError.code, "corrupt": bool(corrupt), "lost": lost, "tracebacks": traceback}
        count = {name: count[name] + found[name] for name in count}
        wrong += [(size, status, said[-600:], corrupt, again.output.read_text()[-600:])] if corrupt or lost or traceback or status not in {0, 15} else []
    figures.tell(f"full disk, {place}, {limit}", request.config.option.seed, count, keep=request.config.option.record)
    assert wrong == []
    assert count["refused"] or place == "temporary"
