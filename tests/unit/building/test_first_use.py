"""A build of a cell that nobody has locked locks it first, with the rest of its row; with --locked it does not."""

from __future__ import annotations

import io
import signal

import pytest
from rich.console import Console

from tests.parts import CODEC
from tests.standin import Scratch, scratch
from tests.waiting import PATIENCE, until
from torchstrata.building import first_use
from torchstrata.building.first_use import FirstUse
from torchstrata.errors import LockError
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.locks.lockfile import WAITING
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import matrix
from torchstrata.progress import PlainReporter
from torchstrata.store.store import Store

LOCKED = OsLock(system="new", date="2026-11-24", sections={"os": {"libc6": "2"}, "base": {"python3.13": "3.13.5-1"}, "devel": {}, "lab": {}})

BUILD = """python -c "from torchstrata.commands import sessions; sessions.build('{cell}', ['--to', 'images', '--flavour', 'lab', *{words}])" """
"""What the session of a cell calls; it needs an engine only once it builds OS packages."""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a small checkout whose OS is locked; this process looks for wheels where its commands do."""
    with scratch(tmp_path) as found:
        found.look_there(monkeypatch)
        os_locks.write(LOCKED, matrix.load(found.root / "matrix.yaml").systems["new"], found.root)
        yield found


def using(made: Scratch, cell: str, *flavours: str) -> str:
    """Lock what a build of the cell's flavours lacks; return what was said."""
    table, said = matrix.load(made.root / "matrix.yaml"), io.StringIO()
    reporter = PlainReporter(Console(file=said, width=200))
    FirstUse(matrix=table, store=Store.open(), codec=CODEC, root=made.root).lock(matrix.select(table, cell), flavours, reporter)
    return said.getvalue()


def test_the_first_build_locks_the_row_and_says_what_to_commit(made):
    """Afterwards every lock of it is right, and the next build says nothing."""
    assert "2.8-cu128: nobody had locked the wheels; now they are locked: commit locks/2.8.0-cu128\n" in using(made, "2.8-cu128", "base", "devel", "lab")
    table = matrix.load(made.root / "matrix.yaml")
    assert wheel_locks.check(table, made.root) == ()
    assert len(made.locks()) == 6
    assert using(made, "2.8-cu128", "base", "devel", "lab") == ""


def test_a_stale_lock_is_not_replaced(made):
    """Who has changed its inputs decides when; only what nobody has locked is locked."""
    using(made, "2.8-cu128", "base", "devel", "lab")
    made.edit("images/base/requirements.in", "numpy", "numpy<2")
    before = made.locks()
    assert using(made, "2.8-cu128", "base", "devel", "lab") == ""
    assert made.locks() == before


def test_another_os_of_the_row_that_cannot_be_locked_stops_nobody(made):
    """The locks of the one that is built are there."""
    for version in ("1.0", "2.0"):
        (name,) = [name for name in made.default.uploads if name.startswith(f"numpy-{version}")]
        del made.default.uploads[name]
        path = made.default.folder / name
        path.rename(path.with_name(name.replace("py3-none-any", "cp313-cp313-manylinux_2_28_x86_64")))
        made.default.uploads[name.replace("py3-none-any", "cp313-cp313-manylinux_2_28_x86_64")] = "2026-01-01T00:00:00Z"
    using(made, "2.8-cu128-new", "base", "devel", "lab")
    assert {name.rpartition("/")[0] for name in made.locks()} == {"2.8.0-cu128/cp313"}
    with pytest.raises(LockError, match="uv finds no solution"):
        using(made, "2.8-cu128-old", "base", "devel", "lab")


def test_os_packages_that_nobody_has_locked_are_locked_by_building_them(made, monkeypatch):
    """Those of every flavour of a bootstrapped OS, once; the line names the file."""
    asked = []

    class RecordingBuilder(first_use.OsPartBuilder):
        def relock(self, systems, flavours):
            asked.append(([system.id for system in systems], flavours))
            return [os_locks.write(LOCKED, system, self.root) for system in systems]

    monkeypatch.setattr(first_use, "OsPartBuilder", RecordingBuilder)
    using(made, "2.8-cu128-new", "base")
    assert asked == []
    said = using(made, "2.8-cu128-old", "base")
    assert asked == [(["old"], ("base", "devel", "lab"))]
    assert said.endswith("old: nobody had locked the OS packages; now they are locked: commit locks/os/old.lock\n")


def test_locked_refuses(made):
    """With its code, the cure, and no request to anybody."""
    refused = made.typed(BUILD.format(cell="2.8-cu128-new", words=["--locked"]))
    assert refused.status == LockError.code
    assert refused.error == ["locks/2.8.0-cu128/cp313/base.lock is missing", "run: inv lock 2.8-cu128"]
    assert (made.locks(), made.default.asked) == ({}, [])


@pytest.mark.parametrize(
    ("cell", "where"),
    [("2.8-cu128-new", {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}), ("2.8-cu126-new", {})],
    ids=["the index that pip knows", "PyTorch's own"],
)
def test_a_source_that_does_not_answer_is_named(made, cell, where):
    """In one line with what to do, before anything is built or written."""
    (facts,) = made.root.glob("torchstrata/*/facts/compat.json")
    facts.write_text(facts.read_text().replace(made.upstream.url, "http://127.0.0.1:9/simple"))
    refused = made.typed(BUILD.format(cell=cell, words=[]), **where)
    assert refused.status == LockError.code
    assert f"{cell.removesuffix('-new')} cannot be locked: http://127.0.0.1:9/simple/" in refused.error[0]
    assert refused.error[1].startswith("check network and proxy")
    assert made.locks() == {}
    assert not (made.root / "images/index.json").exists()


def test_two_first_uses_at_once_make_one_set_and_ctrl_c_none(made):
    """The second waits for the first, and takes over when that is interrupted; the line of an interruption is one, its code 130."""
    made.default.held = "notebook"
    command = BUILD.format(cell="2.8-cu128-new", words=["--codec", "gzip"])
    first = made.start(command)
    until(made.default.stalled.is_set, "the index was asked", alive=lambda: first.poll() is None)
    second = made.start(command)
    second_said: list[str] = []
    assert second.stdout is not None
    while WAITING not in "".join(second_said):
        second_said.append(second.stdout.readline())
        assert second_said[-1], second_said
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130
    assert [line for line in err.splitlines() if line] == ["interrupted; what was complete is kept, and the next run goes on from there"]
    made.default.released.set()
    rest, _ = second.communicate(timeout=PATIENCE)
    assert "nobody had locked the wheels; now they are locked" in rest
    assert wheel_locks.check(matrix.load(made.root / "matrix.yaml"), made.root) == ()
