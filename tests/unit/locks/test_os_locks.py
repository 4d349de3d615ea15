"""Locks of OS packages."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from dataclasses import replace
from pathlib import Path

import pytest

from torchstrata.errors import LockError
from torchstrata.layers import contexts
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock, PackageMove
from torchstrata.matrix import matrix

DEBIAN13 = matrix.load().systems["debian13"]
BOOTSTRAPPED = [system for system in matrix.load().systems.values() if system.bootstrap]

LOCK = OsLock(
    system="debian13",
    date="2026-11-24",
    sections={"os": {"libc6": "2.41-12"}, "base": {"git": "1:2.47.3-0+deb13u1", "python3.13": "3.13.5-2"}, "devel": {"libc6": "2.41-12+deb13u1"}},
)

NOW = dt.datetime(2027, 1, 4, 5, 6, 7, tzinfo=dt.UTC)

STATUS = """\
Package: git
Status: install ok installed
Version: 1:2.47.3-0+deb13u1
Description: fast
 Status: install ok installed, says a description

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def test_text_is_read_back() -> None:
    """A lock survives being written and read."""
    assert os_locks.parse("debian13", os_locks.text(LOCK)) == LOCK


def test_a_flavour_has_its_parents_packages() -> None:
    """What a flavour changes wins over what its parents have."""
    assert os_locks.OsLock.installed(LOCK, ("base", "devel")) == {"libc6": "2.41-12+deb13u1", "git": "1:2.47.3-0+deb13u1", "python3.13": "3.13.5-2"}
    assert LOCK.installed(()) == {"libc6": "2.41-12"}


def test_digest_ignores_children() -> None:
    """A change of devel's packages leaves base's identity alone, and changes devel's."""
    other = OsLock(system=LOCK.system, date=LOCK.date, sections={**LOCK.sections, "devel": {"make": "4"}})
    assert other.digest(("base",)) == LOCK.digest(("base",))
    assert other.digest(("base", "devel")) != LOCK.digest(("base", "devel"))


def test_solved_keeps_what_each_flavour_changes() -> None:
    """Packages that a flavour has from its parent are not repeated."""
    installed = {"os": {"a": "1", "b": "1"}, "base": {"a": "1", "b": "2", "c": "1"}}
    assert os_locks.solved(OsLock(system="debian13", date="2026-11-24", sections={}), installed, {"base": "os"}).sections == {
        "os": {"a": "1", "b": "1"},
        "base": {"b": "2", "c": "1"},
    }


def test_siblings_are_solved_over_their_parent() -> None:
    """What one adds is no concern of the other, though they stand one after the other."""
    installed = {"os": {"a": "1"}, "base": {"a": "1"}, "gym": {"a": "1", "x": "1"}, "vision": {"a": "1", "x": "1", "y": "1"}}
    lock = os_locks.solved(OsLock(system="debian13", date="2026-11-24", sections={}), installed, {"base": "os", "gym": "base", "vision": "base"})
    assert lock.sections == {"os": {"a": "1"}, "base": {}, "gym": {"x": "1"}, "vision": {"x": "1", "y": "1"}}
    assert lock.installed(("base", "vision")) == installed["vision"]


def test_a_new_flavour_moves_no_other_one() -> None:
    """What it adds is taken as it comes; what is locked is held against the lock as ever. Other lineages keep their identity."""
    opened = replace(LOCK, opened=frozenset({"gym"}), opened_at="2026-11-29T00:00:00+00:00")
    lineage, found = ("base", "gym"), {**LOCK.installed(("base",)), "new": "1"}
    assert opened.lacks(("base", "devel", "gym")) == ("gym",)
    assert opened.moves(lineage, found) == ()
    assert [str(move) for move in LOCK.moves(lineage, found)] == ["new (not locked) -> 1"]
    assert [str(move) for move in opened.moves(lineage, found | {"libc6": "9"})] == ["libc6 2.41-12 -> 9"]
    solved = os_locks.solved(opened, {"base": LOCK.installed(("base",)), "gym": found}, {"gym": "base"})
    assert solved.sections == {**LOCK.sections, "gym": {"new": "1"}}
    assert solved.moves(lineage, found) == ()
    assert (solved.digest(("base", "devel")), opened.digest(("base",))) == (LOCK.digest(("base", "devel")), LOCK.digest(("base",)))
    assert len({each.digest(lineage) for each in (LOCK, opened, solved)}) == 3


def test_moves_name_every_difference() -> None:
    """Another version, a package that went and one that came are told, in order of names."""
    moves = os_locks.moves({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "3"})
    assert moves == (
        PackageMove(package="b", locked="1", found="2"),
        PackageMove(package="c", locked="1", found=None),
        PackageMove(package="d", locked=None, found="3"),
    )
    assert [str(move) for move in moves] == ["b 1 -> 2", "c 1 -> (not installed)", "d (not locked) -> 3"]


def test_pins_win_over_newer_versions() -> None:
    """Only a priority over 1000 makes apt downgrade."""
    assert os_locks.preferences({"git": "1:2-1"}) == "Package: git\nPin: version 1:2-1\nPin-Priority: 1001\n"


def test_installed_reads_dpkg_status() -> None:
    """Packages that only left their configuration do not count, and descriptions are no fields."""
    assert os_locks.installed(STATUS) == {"git": "1:2.47.3-0+deb13u1"}


def test_time_of_layers_stays_when_packages_move(tmp_path: Path) -> None:
    """A lock that is solved anew keeps its first day, so that layers whose packages did not move stay; mirrors are asked anew each time."""
    os_locks.write(LOCK, DEBIAN13, tmp_path)
    asked = [os_locks.unlocked(DEBIAN13, when, tmp_path) for when in (NOW, NOW + dt.timedelta(hours=1))]
    assert asked[0].digest(()) != asked[1].digest(())
    moved = os_locks.solved(asked[0], {"os": {"apt": "4"}}, {})
    os_locks.write(moved, DEBIAN13, tmp_path)
    assert os_locks.read(DEBIAN13, tmp_path) == moved
    assert (moved.date, moved.epoch) == ("2027-01-04", LOCK.epoch)
    again = os_locks.solved(os_locks.unlocked(DEBIAN13, NOW, tmp_path), LOCK.sections, {"base": "os", "devel": "base"})
    assert (again.epoch, again.digest(())) == (LOCK.epoch, LOCK.digest(()))


def test_date_is_midnight_utc() -> None:
    """The epoch of a lock does not depend on the time zone."""
    assert LOCK.epoch == 1_795_478_400


UBUNTU = matrix.load().systems["ubuntu24.04"]
IMAGE = f"{UBUNTU.image}@sha256:{'1' * 64}"


def test_the_os_image_of_a_registry_is_kept(tmp_path: Path) -> None:
    """Its tag and its digest stand in the lock, and nothing beside the lock stays when it is written."""
    lock = dataclasses.replace(LOCK, system=UBUNTU.id, image=IMAGE)
    os_locks.write(lock, UBUNTU, tmp_path)
    assert os_locks.read(UBUNTU, tmp_path) == lock
    assert [path.name for path in (tmp_path / "locks" / "os").iterdir()] == ["ubuntu24.04.lock"]


@pytest.mark.parametrize(
    ("system", "image", "says"),
    [
        (UBUNTU, "", "of no OS image, and matrix.yaml names docker.io/library/ubuntu:24.04"),
        (UBUNTU, IMAGE.replace("24.04", "26.04"), "of docker.io/library/ubuntu:26.04, and matrix.yaml names docker.io/library/ubuntu:24.04"),
        (DEBIAN13, IMAGE, "of docker.io/library/ubuntu:24.04, and matrix.yaml names none"),
    ],
)
def test_a_lock_of_another_os_image_is_stale(tmp_path: Path, system: matrix.OperatingSystem, image: str, says: str) -> None:
    """Somebody has changed matrix.yaml since; locking anew cures it."""
    os_locks.write(dataclasses.replace(LOCK, system=system.id, image=image), system, tmp_path)
    with pytest.raises(LockError, match=f"{says}\n.*inv lock --os"):
        os_locks.read(system, tmp_path)
    assert os_locks.unlocked(system, NOW, tmp_path, image=IMAGE).epoch == LOCK.epoch


def test_a_half_written_lock_can_be_written_anew(tmp_path: Path) -> None:
    """The cure that its error names does not stumble over it."""
    os_locks.write(LOCK, DEBIAN13, tmp_path).write_text("date 2026-11-24\n[os]\nlibc6")
    with pytest.raises(LockError, match="inv lock --os debian13"):
        os_locks.read(DEBIAN13, tmp_path)
    assert os_locks.unlocked(DEBIAN13, NOW, tmp_path).date == "2027-01-04"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"date 2026-11-24\nimage {IMAGE}\nimage {IMAGE}\n[os]\n", "line 3 says what was said before"),
        ("date 2026-11-24\nimage docker.io/library/ubuntu:24.04\n[os]\n", "line 2 is no package=version"),
        ("date 2026-11-24\n[os]\nlibc6\n", "line 3 is no package=version"),
        ("date 2026-11-24\n[os]\nlibc6=\n", "line 3 is no package=version"),
        ("[os]\nlibc6=1\n", "no date"),
        ("date 2026-11-24\n[base]\nlibc6=1\n", r"no \[os\]"),
    ],
)
def test_bad_lock_is_refused(content: str, message: str) -> None:
    """A damaged lock is an error that says where."""
    with pytest.raises(LockError, match=message):
        os_locks.parse("debian13", content)


def test_missing_lock_names_the_cure(tmp_path: Path) -> None:
    """An OS that nobody has locked is an error with the command to lock it."""
    with pytest.raises(LockError, match="inv lock --os debian13"):
        os_locks.read(DEBIAN13, tmp_path)


@pytest.mark.parametrize(("version", "expected"), [("3.13.5-2+deb13u1", "3.13.5"), ("1:3.13.5-2", "3.13.5"), ("3.13.5", "3.13.5")])
def test_python_version_is_upstreams(tmp_path: Path, version: str, expected: str) -> None:
    """Epoch and Debian revision are no part of Python's version."""
    os_locks.write(OsLock(system="debian13", date="2026-11-24", sections={"os": {}, "base": {"python3.13": version}}), DEBIAN13, tmp_path)
    assert os_locks.python_version(DEBIAN13, tmp_path) == expected


@pytest.mark.parametrize("system", BOOTSTRAPPED, ids=lambda system: system.id)
def test_committed_locks_cover_all_flavours(system: matrix.OperatingSystem) -> None:
    """Each bootstrapped OS has a lock in its canonical form, with a section for each flavour that installs packages, and the matrix's Python."""
    lock = os_locks.read(system)
    assert [name for name in lock.lacks(matrix.load().flavours) if contexts.installs(matrix.ROOT, name)] == []
    assert set(lock.sections) <= {"os", *matrix.load().flavours}
    assert os_locks.path(system).read_text() == os_locks.text(lock)
    assert os_locks.python_version(system).startswith(f"{system.python}.")
    assert set(system.compilers) <= lock.installed(matrix.load().flavours).keys()


# Drift


MOVES = (
    PackageMove(package="a", locked="1", found="1:2~x+b1"),
    PackageMove(package="b", locked=None, found="3"),
    PackageMove(package="c", locked="4", found=None),
)


def test_moves_in_words_are_read_back() -> None:
    """What a note or a label says of drift is what was noted."""
    assert os_locks.in_words(MOVES) == "a 1 -> 1:2~x+b1, b (not locked) -> 3, c 4 -> (not installed)"
    assert os_locks.from_words(os_locks.in_words(MOVES)) == MOVES
    assert os_locks.from_words("") == ()


def test_words_that_tell_of_no_drift_are_refused() -> None:
    """A label that somebody has made up is an error, not an image as locked."""
    with pytest.raises(LockError, match="does not tell how packages differ"):
        os_locks.from_words("a 1 -> 2, none of your business")


def test_what_a_lock_and_its_drift_make_is_what_was_found() -> None:
    """A package moved, one came, one is gone."""
    found = os_locks.applied({"a": "1", "c": "4", "d": "5"}, MOVES)
    assert found == {"a": "1:2~x+b1", "b": "3", "d": "5"}
    assert os_locks.moves({"a": "1", "c": "4", "d": "5"}, found) == MOVES


@pytest.mark.parametrize(
    ("moves", "named", "says"),
    [((), 1, "as locked"), (MOVES[:1], 1, "drifted: a 1 -> 1:2~x+b1"), (MOVES, 1, "drifted: a 1 -> 1:2~x+b1 and 2 more")],
)
def test_state_in_words(moves: tuple[PackageMove, ...], named: int, says: str) -> None:
    """A cell of a table names as many packages as it has room for."""
    assert os_locks.state(moves, named) == says


def test_the_moment_of_a_lock_is_kept_and_changes_no_identity() -> None:
    """It is for archives; locks that do not tell it stay as they are."""
    told = dataclasses.replace(LOCK, moment="2026-11-24T16:12:03+00:00")
    assert os_locks.parse("debian13", os_locks.text(told)) == told
    assert "moment" not in os_locks.text(LOCK)
    assert told.digest(("base",)) == LOCK.digest(("base",))
    assert told.epoch == LOCK.epoch


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_text(path.read_text()[:900]), "is no package=version|has no date"),
        (lambda path: path.write_text(path.read_text().replace("date ", "<<<<<<< HEAD\ndate ", 1)), "is no package=version"),
        (lambda path: path.write_text(path.read_text().replace("python3.13=", "python3.99=")), "does not name python3.13"),
        (lambda path: path.write_text(f"image docker.io/library/debian:13@sha256:{'a' * 64}\n{path.read_text()}"), "and matrix.yaml names none"),
        (lambda path: path.rename(path.with_name("debian99.lock")), "belongs to no OS of matrix.yaml"),
    ],
)
def test_check_reports_what_is_wrong(tmp_path, damage, says) -> None:
    """As after a merge; what nobody has locked is not wrong."""
    path = os_locks.path(DEBIAN13, tmp_path)
    path.parent.mkdir(parents=True)
    assert os_locks.check([DEBIAN13], tmp_path) == []
    path.write_bytes(os_locks.path(DEBIAN13).read_bytes())
    assert os_locks.check([DEBIAN13], tmp_path) == []
    damage(path)
    (problem,) = os_locks.check([DEBIAN13], tmp_path)
    assert re.search(says, problem.what)
    assert problem.fix in {"run: inv lock --os debian13", "run: rm locks/os/debian99.lock"}
