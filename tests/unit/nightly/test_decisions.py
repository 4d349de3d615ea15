"""Which cells a nightly run makes, and why."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from torchstrata.commands import nightly
from torchstrata.errors import AbsentError, OsPartError
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix import matrix
from torchstrata.nightly import decisions
from torchstrata.nightly.decisions import Look, Patch, Report
from torchstrata.nightly.os_updates import Base, News
from torchstrata.release.ledger import Author, Ledger, Move
from torchstrata.store.store import Store

MATRIX = matrix.load()
NOW = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
(CELL,) = matrix.select(MATRIX, "2.13-cpu")
NEWS = News(system=CELL.os, moves=(PackageMove(package="openssl", locked="1", found="2"),), security=("openssl",))
UBUNTU = MATRIX.systems["ubuntu24.04"]
OLD, NEW = (f"{UBUNTU.image}@sha256:{digit * 64}" for digit in "12")
MOVED = News(system=UBUNTU, moves=(), security=(), base=Base(system=UBUNTU.id, old=OLD, new=NEW))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Give an empty store: what is made from what does not depend on it."""
    monkeypatch.setenv("TORCHSTRATA_CACHE", str(tmp_path))
    return Store.open()


def look(store, made_from=None, cells=(CELL,)):
    """Return a look where the channel has an entry of images made from that, if given."""
    ledger = Ledger()
    if made_from is not None:
        images = {"base": f"sha256:{'a' * 64}"}
        move = Move(action="publish", channel="nightly", cell=CELL.id, images=images, tags={}, why="x", inputs=made_from)
        ledger = ledger.append([move], Author(name="x", email=""), NOW)
    return Look(matrix=MATRIX, cells=cells, store=store, state=ledger.state, root=matrix.ROOT)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return what the images of the cell are made from; asking reads the whole checkout."""
    return decisions.inputs(MATRIX, CELL, Store(tmp_path_factory.mktemp("inputs")), matrix.ROOT)


def test_a_cell_that_nobody_has_published_is_made(store, inputs):
    """It is not in the channel."""
    (work,) = look(store).work()
    assert (work.cell, work.why, work.inputs) == (CELL, ("it is not in the channel yet",), inputs)


def test_a_cell_whose_inputs_are_those_of_the_channel_is_left_alone(store, inputs):
    """Nothing has changed, so nothing is done."""
    assert look(store, inputs).work() == ()


@pytest.mark.parametrize(("name", "says"), [("os", "OS packages"), ("payload", "wheels"), ("settings", "environment, labels or facts")])
def test_what_changed_is_named(store, inputs, name, says):
    """By the kind of input."""
    (work,) = look(store, inputs | {name: "other"}).work()
    assert work.why == (f"{says} changed since 2026-11-24",)


def test_what_came_by_hand_is_made_once(store):
    """Nobody knows what it was made from."""
    (work,) = look(store, {}).work()
    assert work.why == ("it came into the channel by hand",)


def test_inputs_depend_on_the_cell_alone(store):
    """Cells on two OSes share their payload only where Python is the same, and never their OS parts."""
    inputs = [decisions.inputs(MATRIX, cell, store, matrix.ROOT) for cell in matrix.select(MATRIX, "2.8-cu121", "2.8-cu121-debian12", "2.8-cu128")]
    assert inputs[0]["os"] != inputs[1]["os"]
    assert (inputs[0]["os"], inputs[0]["payload"]) == (inputs[2]["os"], inputs[2]["payload"])
    assert len({each["settings"] for each in inputs}) == 3


def test_cells_that_are_not_locked_are_told_by_reason(store):
    """One line for all cells with the same reason."""
    (unlocked,) = matrix.select(MATRIX, "2.8-cu126")
    assert look(store, cells=(unlocked,)).work() == ()
    assert decisions.grouped({"a": "x", "b": "y", "c": "x"}) == {"x": ["a", "c"], "y": ["b"]}


def test_the_report_is_the_same_for_people_and_programs():
    """Every finding is a row, and a key of the document."""
    work = decisions.Work(cell=CELL, why=("1 OS packages moved",), inputs={})
    report = Report(
        news=(NEWS, MOVED),
        patches=(Patch(torch="2.8", old="2.8.0", new="2.8.1"),),
        work=(work,),
        left_out={"2.8-cu126": "not locked"},
        silent=("the index does not answer",),
        failed=("ubuntu22.04: no route to host",),
    )
    assert list(decisions.table(report).columns[0].cells) == ["debian12", "ubuntu24.04", "torch 2.8", CELL.id]
    assert decisions.document(report) == {
        "cells": [CELL.id],
        "why": {CELL.id: ["1 OS packages moved"]},
        "os": {"debian12": {"moves": ["openssl 1 -> 2"], "security": ["openssl"]}, "ubuntu24.04": {"moves": [], "security": []}},
        "patches": {"2.8": ["2.8.0", "2.8.1"]},
        "bases": {"ubuntu24.04": [OLD, NEW]},
        "left_out": {"2.8-cu126": "not locked"},
        "silent": ["the index does not answer"],
        "failed": ["ubuntu22.04: no route to host"],
    }


def test_a_move_of_an_os_is_a_reason_for_its_cells(store, inputs):
    """Even if the lock has not moved yet: a plan says what a run would do."""
    looked = look(store, inputs)
    assert looked._work(CELL, inputs, NEWS).why == ("1 OS packages moved",)
    assert looked._work(CELL, inputs, None) is None


def test_an_update_that_the_new_lock_lacks_is_pending(tmp_path):
    """Mirrors have it, the lock was to be made anew, and still has the old version: nobody would hear of it otherwise."""
    for version, pending in (("1", ("debian12: updates are pending that its lock does not have: openssl 1 -> 2",)), ("2", ()), ("3", ())):
        lock = os_locks.OsLock(system=CELL.os.id, date="2026-11-24", sections={"os": {"openssl": version}, "base": {}})
        os_locks.write(lock, CELL.os, tmp_path)
        assert decisions.pending((NEWS,), tmp_path) == pending


def test_an_os_image_that_moved_is_named_before_packages():
    """What its tag named, and what it names now, in so many digits that people can compare them."""
    base = "OS image docker.io/library/ubuntu:24.04 sha256:111111111111 -> sha256:222222222222"
    assert decisions.words(MOVED) == base
    assert decisions.words(dataclasses.replace(MOVED, moves=NEWS.moves)) == f"{base}; 1 OS packages: openssl 1 -> 2"


def test_an_os_image_that_moved_is_a_reason_for_its_cells(store, inputs):
    """Though no package of it has moved."""
    assert look(store)._work(CELL, inputs, MOVED).why == ("its OS image moved", "it is not in the channel yet")


def test_an_os_image_that_the_new_lock_lacks_is_pending(tmp_path):
    """A lock that could not be written anew does not go by in silence."""
    for image, lines in ((OLD, [f"ubuntu24.04: its lock still has the old OS image: {MOVED.base}"]), (NEW, [])):
        os_locks.write(os_locks.OsLock(system=UBUNTU.id, date="2026-11-24", sections={"os": {}}, image=image), UBUNTU, tmp_path)
        assert list(decisions.pending((MOVED,), tmp_path)) == lines


@pytest.mark.parametrize("error", [AbsentError("the registry has no x", fix="y"), OsPartError("apt says no", fix="y")])
def test_an_os_of_a_registry_that_cannot_be_locked_keeps_no_other_from_it(store, monkeypatch, error):
    """Fixes of Debian do not wait for a registry; the failure is named, and is one of the run."""

    def relock(self, systems, *lineages):
        if MOVED.system in systems:
            raise error
        return [os_locks.path(system) for system in systems]

    monkeypatch.setattr(OsPartBuilder, "relock", relock)
    failures = []
    written = nightly.move_locks((MOVED, NEWS), commit=False, author=Author(name="x", email=""), on_failure=failures.append)
    assert ([path.stem for path in written], failures) == (["debian12"], [f"ubuntu24.04: {error.what}"])


def test_an_os_of_packages_that_cannot_be_locked_ends_the_night(store, monkeypatch):
    """As before: nothing goes on with packages that have known faults."""

    def relock(self, systems, *lineages):
        raise OsPartError("apt says no", fix="y")

    monkeypatch.setattr(OsPartBuilder, "relock", relock)
    with pytest.raises(OsPartError):
        nightly.move_locks((NEWS,), commit=False, author=Author(name="x", email=""), on_failure=print)


def test_another_cell_s_entry_does_not_count(store, inputs):
    """The ledger is asked about the cell itself."""
    (other,) = matrix.select(MATRIX, "2.4-cu121")
    (work,) = dataclasses.replace(look(store, inputs), cells=(other,)).work()
    assert work.why == ("it is not in the channel yet",)
