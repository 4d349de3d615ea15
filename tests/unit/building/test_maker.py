"""Making what a plan lacks: with real wheels and a real store, in as many threads as it takes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path

import pytest
from rich.console import Console

from tests import tars
from tests.parts import CODEC, missing, os_part, plan, stratum, wheels
from tests.waiting import PATIENCE, until
from tests.wheelhouse import Index
from torchstrata import process
from torchstrata.building.maker import Budget, Maker
from torchstrata.building.workers import Workers
from torchstrata.errors import IntegrityError
from torchstrata.layers import strata
from torchstrata.progress import PlainReporter


@pytest.fixture(autouse=True)
def pip(tmp_path, monkeypatch, unconfigured_pip):
    """Let pip look into a directory of this test alone, and return it."""
    directory = tmp_path / "wheelhouse"
    directory.mkdir()
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", str(PATIENCE))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def out():
    """Return where progress goes."""
    return io.StringIO()


@pytest.fixture
def making(store, out):
    """Return a function that opens a maker for items."""

    def open_(*items):
        return Maker(plan(*items), store, CODEC, PlainReporter(Console(file=out, width=200)), locked=False)

    return open_


def names(store, part):
    """Return the names in the layers of a part."""
    found = []
    for layer in part.layers:
        with tars.opened(store, layer) as archive:
            found += archive.getnames()
    return found


def test_everything_that_is_missing_is_made(store, out, making, pip):
    """Each stratum becomes a part with its wheel's files, and is told in one line for its fetch and one for its conversion."""
    items = [missing(stratum(pin)) for pin in wheels(pip, "one", "two", "three").values()]
    with making(*items) as maker:
        parts = [maker.part(item.identity) for item in items]
    assert [any(name.endswith(f"/{item.title}.py") for name in names(store, part)) for item, part in zip(items, parts, strict=True)] == [True] * 3
    assert [store.find(item.identity) for item in items] == parts
    told = [tuple(line.split(":")[0].split()) for line in out.getvalue().splitlines()]
    assert sorted(told) == sorted(product(("fetch", "convert"), (item.title for item in items)))


def test_what_is_there_is_not_made(store, out, making, pip):
    """A part of the plan is handed out as it is, without a step."""
    item = os_part(store, {"etc/os": b"x"})
    with making(item) as maker:
        assert maker.part(item.identity) is item.part
    assert not out.getvalue()


def test_what_another_build_has_made_meanwhile_is_used(store, out, making, pip):
    """The plan said missing; the store has it by now: nothing is fetched."""
    item = missing(stratum(wheels(pip, "one")["one"]))
    with making(item) as maker:
        made = maker.part(item.identity)
    out.truncate(0)
    (pip / "one-1.0-py3-none-any.whl").unlink()
    with making(item) as maker:
        assert maker.part(item.identity) == made
    assert "convert" not in out.getvalue()


def test_two_makers_at_once_make_it_once(store, making, out, pip):
    """While one holds the identity the other waits; both end with the same part."""
    items = [missing(stratum(pin)) for pin in wheels(pip, "one", "two").values()]
    with making(*items) as first, making(*items) as second:
        assert [first.part(item.identity) for item in items] == [second.part(item.identity) for item in items]
    assert sorted(line.split(":")[0] for line in out.getvalue().splitlines() if line.startswith("convert")) == ["convert   one", "convert   two"]


def test_a_failure_is_the_one_that_is_reported(store, making, pip):
    """A tampered wheel fails the build with its own error, whichever part was waited for; what was complete stays."""
    pins = wheels(pip, "good", "bad")
    good, bad = (missing(stratum(pin)) for pin in pins.values())
    path = pip / pins["bad"].filename
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with making(good) as maker:
        kept = maker.part(good.identity)
    other = missing(stratum(*wheels(pip, "third").values()))

    def both():
        with making(good, bad, other) as maker:
            for item in (other, bad):
                maker.part(item.identity)

    with pytest.raises(IntegrityError, match=r"bad-1\.0"):
        both()
    assert store.find(good.identity) == kept
    assert store.find(bad.identity) is None


def test_a_failure_ends_programs_that_other_parts_run(store, making, pip, monkeypatch, tmp_path):
    """Whoever waits for a long bake learns at once that a wheel cannot be had."""
    long, bad = (missing(stratum(pin)) for pin in wheels(pip, "long", "bad").values())
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    program = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep({PATIENCE}); pathlib.Path({str(ended)!r}).touch()"

    def make(what, *_):
        if what is long.source:
            process.run(sys.executable, "-c", program)
        until(begun.exists, "the program of the other part")
        raise IntegrityError("it is bad", fix="none")

    monkeypatch.setattr(strata, "make", make)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def build():
        with making(long, bad) as maker:
            maker.part(long.identity)

    with pytest.raises(IntegrityError, match="it is bad"):
        build()
    assert not ended.exists()


def test_wheels_that_were_downloaded_go_when_they_are_converted(store, making, pip, monkeypatch):
    """Disk space is for layers: the download cache ends empty, and files of local sources stay."""
    pin = wheels(pip, "one")["one"]
    served = Index(files={pin.filename: (pip / pin.filename).read_bytes()})
    (pip / pin.filename).unlink()
    local = wheels(pip, "two")["two"]
    with served.serve():
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        items = [missing(stratum(one)) for one in (pin, local)]
        with making(*items) as maker:
            for item in items:
                maker.part(item.identity)
    assert len(served.downloads()) == 1
    assert list(store.downloads.rglob("*.whl")) == []
    assert (pip / local.filename).exists()


def test_a_wheel_that_another_build_has_removed_is_still_there(store, making, pip, monkeypatch):
    """Two builds need one wheel for different layers; the one that ends first takes nothing away from the other."""
    pin = wheels(pip, "one")["one"]
    served = Index(files={pin.filename: (pip / pin.filename).read_bytes()})
    (pip / pin.filename).unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    other = missing(stratum(pin, python="3.11"))
    convert = strata.make

    def slow(what, files, *rest):
        if what.python == "3.13":
            with making(other) as second:
                second.part(other.identity)
        return convert(what, files, *rest)

    monkeypatch.setattr(strata, "make", slow)
    item = missing(stratum(pin))
    with served.serve():
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        with making(item) as first:
            first.part(item.identity)
    assert store.find(item.identity)
    assert store.find(other.identity)
    assert list(store.downloads.rglob("*.whl")) == []
    assert [path for path in store.scratch().rglob("*") if path.is_file()] == []


def test_an_interruption_leaves_no_thread(store, making, pip, monkeypatch):
    """Ctrl-C in the middle of a download that says nothing ends all threads of the maker, and the error comes out as it is."""
    pin = wheels(pip, "one")["one"]
    silent = threading.Event()
    served = Index(files={pin.filename: (pip / pin.filename).read_bytes()}, silent=silent)
    (pip / pin.filename).unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    item = missing(stratum(pin))

    def interrupted():
        with making(item):
            until(served.stalled.is_set, "a download that says nothing")
            raise KeyboardInterrupt

    with served.serve():
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith(("make", "fetch"))]
        silent.set()
    assert store.find(item.identity) is None


def test_ctrl_c_does_not_wait_for_a_thread_that_never_ends(store, making, pip, monkeypatch, out):
    """A conversion that does not look whether it should end, on a hostile wheel say, holds nobody up; a line says so."""
    begun, stop = threading.Event(), threading.Event()

    def endless(*_):
        begun.set()
        while not stop.is_set():
            pass
        raise IntegrityError("it is over", fix="none")

    monkeypatch.setattr(strata, "make", endless)
    item = missing(stratum(wheels(pip, "one")["one"]))

    def interrupted():
        with making(item):
            until(begun.is_set, "a conversion without end")
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [thread.daemon for thread in threading.enumerate() if thread.name.startswith("make")] == [True]
        assert "did not end when asked" in out.getvalue()
    finally:
        stop.set()


def test_a_program_ends_though_a_thread_of_its_pool_does_not():
    """Python waits at its end for the threads of its own pools, but not for ours."""
    program = "from torchstrata.building.workers import Workers; pool = Workers(2, 'x'); pool.submit(exec, 'while True: pass'); print(pool.end(cancel=True, patience=0.1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=Path.cwd())
    assert done.stdout == "False\n"


def test_a_pool_hands_out_results_errors_and_what_was_dropped():
    """An outcome is what the work returned or raised; what had not begun when the pool ends is cancelled."""
    pool, go = Workers(1, "x"), threading.Event()
    outcomes = [pool.submit(go.wait, PATIENCE), pool.submit(int, "x"), pool.submit(int, "3")]
    go.set()
    assert outcomes[2].result(PATIENCE) == 3
    assert isinstance(outcomes[1].exception(), ValueError)
    go.clear()
    held, dropped = pool.submit(go.wait, PATIENCE), pool.submit(int, "4")
    until(held.running, "the first work")
    assert not pool.end(cancel=True, patience=0)
    go.set()
    assert dropped.cancelled()
    assert held.result(PATIENCE)


# Budget


def test_a_budget_holds_back_what_does_not_fit():
    """A second request waits until the first has given its bytes back."""
    budget, entered = Budget(10), threading.Event()

    def second():
        with budget.spend(6):
            entered.set()

    thread = threading.Thread(target=second)
    with budget.spend(6):
        thread.start()
        until(lambda: budget._waiting, "the second request")
        assert not entered.is_set()
    thread.join(PATIENCE)
    assert entered.is_set()


def test_a_request_larger_than_the_budget_runs_alone():
    """One wheel of more than all of it must not wait for ever."""
    budget = Budget(10)
    with budget.spend(100):
        pass
    with budget.spend(4), budget.spend(6):
        pass
