"""What verbs show: notes about a cell, drift, the closing table, plans, the cache."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time

import msgspec
import pytest
from rich.console import Console

from tests.parts import CODEC, MATRIX, missing, os_part, plan, stratum, wheels
from torchstrata.building.assembly import Builder
from torchstrata.commands import build, housekeeping, lock
from torchstrata.commands.options import CacheOptions, PlanOptions
from torchstrata.errors import AbsentError, LockError, MatrixError
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.locks import wheel_locks
from torchstrata.matrix import matrix
from torchstrata.progress import PlainReporter
from torchstrata.store.part import Part
from torchstrata.store.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Let verbs use a store of this test."""
    monkeypatch.setenv("TORCHSTRATA_CACHE", str(tmp_path / "store"))
    return Store.open()


def notes(name):
    """Return what is said of a cell before it is built."""
    return build.notes(matrix.select(MATRIX, name)[0])


def shown(table):
    """Return what a table looks like, line by line."""
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue().splitlines()


def test_who_asks_for_a_cuda_without_wheels_is_told_what_serves_it():
    """One line says that upstream has none, which wheels it is, and for which drivers."""
    line, _ = notes("2.8-cu121")
    assert line.startswith("2.8-cu121: upstream has no torch 2.8 for CUDA 12.1; the cu128 wheels serve its hosts")
    assert "525.60.13" in line


LACKING = "2.8-cu128: nvcc 12.4 cannot compile for compute capability 10.0, 12.0, for which torch has kernels"


@pytest.mark.parametrize(("name", "said"), [("2.8-cu128", [LACKING]), ("2.13-cpu", [])])
def test_architectures_that_nvcc_lacks_are_told(name, said):
    """CUDA 12.4 ends before Blackwell; a plain cell prints no note."""
    assert notes(name) == said


def test_an_unverified_system_is_told():
    """Nobody should take it for a supported one."""
    (cell,) = matrix.select(MATRIX, "2.13-cpu")
    new = dataclasses.replace(cell, os=msgspec.structs.replace(cell.os, verified=False))
    assert build.notes(new) == ["2.13-cpu-debian12: unverified: nobody has built and run images on debian12 yet"]


def test_an_os_whose_registry_is_away_keeps_no_other_from_being_locked(store, monkeypatch, capsys):
    """Those of packages are locked together, each of a registry alone; the first that failed is the error at the end."""
    asked = []

    def relock(self, systems, *lineages):
        asked.append([system.id for system in systems])
        if systems[0].id == "ubuntu24.04":
            raise AbsentError("the registry has no ubuntu:24.04", fix="name another tag")
        return []

    monkeypatch.setattr(OsPartBuilder, "relock", relock)
    with pytest.raises(AbsentError):
        lock.lock_systems([])
    assert asked == [["debian13", "debian12"], ["ubuntu24.04"], ["ubuntu22.04"]]
    assert "ubuntu24.04: not locked: the registry has no ubuntu:24.04" in capsys.readouterr().out


def test_drift_of_a_part_in_the_store_is_told(store):
    """Later builds repeat what the first one said."""
    item = os_part(store, {"etc/x": b"x"})
    drifted = dataclasses.replace(item, part=Part(layers=item.part.layers, notes={"drift": "git 1 -> 2"}))
    assert build.drifts(plan(drifted)) == [f"{item.source.system.id}: not as locked: git 1 -> 2"]
    assert build.drifts(plan(item)) == []


def test_the_closing_table_counts_what_was_made(tmp_path, store, monkeypatch):
    """Image, layers, reused and made, size, digest and state; parts that were found count as reused."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    whole_plan = plan(missing(stratum(*wheels(tmp_path, "one").values())), os_part(store, {"etc/x": b"x"}))
    composed = Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO()))).build(whole_plan)
    head, row = shown(build.closing(whole_plan, composed))
    assert head.split() == ["image", "layers", "reused", "made", "size", "digest", "OS", "packages"]
    assert row.split()[:4] == [composed[0].tags[0], "3", "1", "1"]
    assert row.split()[-3:] == [composed[0].image.digest[7:19], "as", "locked"]


def test_the_closing_table_names_what_has_drifted(store):
    """Also of parts that an earlier build has made, or that came from a registry: what they note is what counts."""
    item = os_part(store, {"etc/x": b"x"})
    drifted = dataclasses.replace(item, part=dataclasses.replace(item.part, notes={"drift": "git 1 -> 2, make 3 -> 4"}))
    whole_plan = plan(drifted)
    composed = Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO()))).build(whole_plan)
    assert shown(build.closing(whole_plan, composed))[1].endswith("drifted: git 1 -> 2 and 1 more")


def test_a_plan_as_json_is_json_alone(store, capsys):
    """Programs read it; nothing else is on standard output, and nothing is written."""
    build.plan(PlanOptions(cells=("2.13-cpu",), json=True))
    document = json.loads(capsys.readouterr().out)
    assert {entry["image"] for entry in document} == {f"2.13-cpu-debian12-{flavour}" for flavour in MATRIX.flavours}
    assert not store.root.exists()


def test_a_plan_as_a_table_ends_with_the_space_it_needs(store, capsys):
    """People see every item and one line on the disk."""
    build.plan(PlanOptions(cells=("2.13-cpu",)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "layers", "of", "reuse", "make", "to", "fetch"]
    assert lines[-1].startswith("to fetch ")
    assert not store.root.exists()


def test_a_cell_that_is_not_locked_does_not_stop_the_plan_of_others(store, capsys, monkeypatch):
    """It is named in one line; asked for alone it is an error."""
    known = wheel_locks.path_of
    monkeypatch.setattr(wheel_locks, "path_of", lambda cell, flavour: known(cell, flavour).replace("cu126", "nowhere"))
    build.plan(PlanOptions(cells=("2.8-cu126", "2.13-cpu"), json=True))
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert printed.err.splitlines() == ["2.8-cu126 is not locked: its wheels are on PyTorch's own index"]
    with pytest.raises(LockError):
        build.plan(PlanOptions(cells=("2.8-cu126",), json=True))


def test_a_plan_of_nothing_is_an_error(store):
    """A glob that matches no cell is a mistake, not an empty plan."""
    with pytest.raises(MatrixError, match="no cell matches"):
        build.plan(PlanOptions(cells=("9.9-*",), json=True))


def test_the_cache_is_shown_and_pruned(store, capsys):
    """The table has every part; pruning says what it gave back."""
    filled = Store.open()
    os_part(filled, {"etc/x": b"x" * 1000})
    filled._scratch._held[0].release()  # as the end of the process that built it does
    for path in store.root.rglob("*"):
        os.utime(path, (time.time(), time.time()))  # the kernel's clock may be another one
    housekeeping.cache(CacheOptions())
    assert "debian13 base" in capsys.readouterr().out
    housekeeping.cache(CacheOptions(prune=True, days=30))
    assert store.usage().parts
    housekeeping.cache(CacheOptions(prune=True))
    assert "freed" in capsys.readouterr().out
    assert not store.usage().parts
