"""Locks stay: what is right keeps every byte, what is new sees what its parent saw, and every cure that an error names cures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading

import msgspec
import pytest

from tests import trees
from tests.standin import Scratch, scratch
from tests.waiting import PATIENCE, until
from torchstrata.errors import LockError, StoreError
from torchstrata.locks import lock_writer, lockfile, requirements, wheel_locks
from torchstrata.locks.lockfile import WAITING
from torchstrata.matrix import compat, matrix
from torchstrata.matrix.compat import Upstream

DAY = "2026-11-17"
GENERATED = wheel_locks._generated


@contextlib.contextmanager
def looking_there(place, patch):
    """Yield a small checkout; this process, too, looks where its commands do."""
    with scratch(place) as found:
        found.look_there(patch)
        upstream = Upstream(packages=compat.facts().upstream.packages, indexes=dict.fromkeys(compat.facts().upstream.indexes, found.upstream.url))
        here = msgspec.structs.replace(compat.facts(), upstream=upstream)
        patch.setattr(compat, "facts", lambda: here)
        yield found


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a small checkout that nobody has locked."""
    with looking_there(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def locks(tmp_path_factory):
    """Return the locks of a row, made once: they name no place, and serve in every such checkout."""
    with pytest.MonkeyPatch.context() as patch, looking_there(tmp_path_factory.mktemp("locked"), patch) as found:
        write(found, exclude_newer=DAY)
        return found.locks()


@pytest.fixture
def locked(locks, made):
    """Return a small checkout with the locks of a row."""
    for name, content in locks.items():
        (made.root / "locks" / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / "locks" / name).write_bytes(content)
    return made


def write(made: Scratch, *globs: str, **options) -> lock_writer.Outcome:
    """Lock in this process, as ``inv lock`` does."""
    table = matrix.load(made.root / "matrix.yaml")
    outcome = lock_writer.write(table, matrix.select_rows(table, *(globs or ("2.8-cu128",))), root=made.root, **options)
    if outcome.failed:
        raise next(iter(outcome.failed.values()))
    return outcome


def versions(made: Scratch, name: str) -> dict[str, str]:
    """Return what a lock pins."""
    text = made.locks()[name].decode()
    return dict(line.partition(" ")[0].split("==") for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize(
    ("globs", "folders"),
    [
        (("2.8-cu128",), {"2.8.0-cu128/cp311", "2.8.0-cu128/cp313"}),
        (("*-cu128",), {"2.8.0-cu128/cp311", "2.8.0-cu128/cp313"}),
        (("2.8-cu128-old",), {"2.8.0-cu128/cp311"}),
        (("*-new",), {"2.8.0-cu128/cp313", "2.8.0-cu126/cp313"}),
    ],
)
def test_a_short_id_means_all_oses_of_its_row(made, globs, folders):
    """A full id means one of them."""
    write(made, *globs, exclude_newer=DAY)
    assert {name.rpartition("/")[0] for name in made.locks()} == folders


def test_each_lock_contains_its_parents(made):
    """What a flavour needs itself is all that its lock has more."""
    outcome = write(made, "2.8-cu128-new", exclude_newer=DAY)
    assert outcome.changed == tuple(f"locks/2.8.0-cu128/cp313/{flavour}.lock" for flavour in ("base", "devel", "lab"))
    table = matrix.load(made.root / "matrix.yaml")
    base, lab = (wheel_locks.read(table.cells[0], flavour, made.root) for flavour in ("base", "lab"))
    assert [pin.name for pin in base.pins] == ["numpy", "nvidia-x", "soundfile", "torch", "torchaudio", "torchvision"]
    assert [pin.name for pin in wheel_locks.own(lab, base)] == ["notebook"]


def test_same_date_gives_the_same_bytes_which_name_no_place(made):
    """Neither an address nor a path of the machine that made a lock is in it."""
    write(made, exclude_newer=DAY)
    before = made.locks()
    outcome = write(made, exclude_newer=DAY)
    assert (outcome.changed, outcome.unchanged) == ((), 6)
    assert made.locks() == before
    assert not [name for name, content in before.items() if b"://" in content or str(made.root).encode() in content]


def test_conflict_with_the_parent_is_reported(made):
    """A flavour that needs another version than its parent locked cannot be locked; nothing of the lineage is written."""
    made.default.add("notebook", "2.0", "numpy<2")
    (made.root / "images/lab/requirements.in").write_text("notebook>=2\n")
    with pytest.raises(LockError, match="uv finds no solution"):
        write(made, exclude_newer=DAY)
    assert made.locks() == {}


def test_what_is_right_keeps_every_byte(locked):
    """Also when there are newer versions."""
    before = locked.locks()
    locked.default.add("numpy", "3.0", uploaded="2026-11-10T00:00:00Z")
    outcome = write(locked)
    assert (outcome.changed, outcome.unchanged) == ((), 6)
    assert locked.locks() == before


def test_a_new_flavour_changes_no_lock(locked):
    """It sees what its parent saw, on its parent's day, and keeps what its parent has."""
    before = locked.locks()
    locked.default.add("numpy", "3.0", uploaded="2026-11-10T00:00:00Z")
    locked.default.add("gymnasium", "1.0", "numpy", uploaded="2026-11-10T00:00:00Z")
    locked.default.add("gymnasium", "2.0", "numpy", uploaded="2026-11-18T00:00:00Z")
    (trees.grow(locked.root, {"gym": "lab"}) / "images/gym/requirements.in").write_text("gymnasium\n")
    assert write(locked).changed == tuple(f"locks/2.8.0-cu128/{python}/gym.lock" for python in ("cp311", "cp313"))
    assert {name: content for name, content in locked.locks().items() if "gym" not in name} == before
    assert versions(locked, "2.8.0-cu128/cp313/gym.lock") == versions(locked, "2.8.0-cu128/cp313/lab.lock") | {"gymnasium": "1.0"}


def test_a_tree_without_the_compiler_is_locked(made, monkeypatch):
    """A team that needs base alone removes the other flavours; base then need not keep what the compiler of CUDA 13's wheels wants."""
    monkeypatch.setattr(wheel_locks, "_generated", lambda cell, flavour: ("nvidia-x",) if flavour == "devel" else GENERATED(cell, flavour))
    for flavour in ("devel", "lab"):
        shutil.rmtree(made.root / "images" / flavour)
    (made.root / "matrix.yaml").write_text((made.root / "matrix.yaml").read_text().replace("all_in_one: lab", "all_in_one: base"))
    assert write(made, "2.8-cu128-new", exclude_newer=DAY).changed == ("locks/2.8.0-cu128/cp313/base.lock",)


def test_a_new_os_gets_the_wheels_of_the_others(made):
    """It sees the files of their day, so that what fits any Python is in the same layers."""
    write(made, "2.8-cu128-new", exclude_newer=DAY)
    before = made.locks()
    made.default.add("numpy", "3.0", uploaded="2026-11-18T00:00:00Z")
    made.default.add("nvidia-x", "2.0", uploaded="2026-11-18T00:00:00Z")
    write(made)
    assert {name: made.locks()[name] for name in before} == before
    assert versions(made, "2.8.0-cu128/cp311/lab.lock") == versions(made, "2.8.0-cu128/cp313/lab.lock")


def test_a_new_row_changes_no_lock(locked):
    """It is locked at its own day."""
    before = locked.locks()
    locked.default.add("numpy", "3.0", uploaded="2026-11-18T00:00:00Z")
    write(locked, "*")
    assert {name: locked.locks()[name] for name in before} == before
    assert "2.8.0-cu126/cp313/lab.lock" in locked.locks()


def test_a_stale_lock_moves_no_more_than_it_must(locked):
    """A new requirement comes in at the day of the locks, the rest stays as it was."""
    before = versions(locked, "2.8.0-cu128/cp313/lab.lock")
    locked.default.add("numpy", "3.0", uploaded="2026-11-18T00:00:00Z")
    locked.default.add("tqdm", "1.0")
    (locked.root / "images/base/requirements.in").write_text("numpy\ntqdm\n")
    assert len(write(locked).changed) == 6
    assert versions(locked, "2.8.0-cu128/cp313/lab.lock") == before | {"tqdm": "1.0"}


@pytest.mark.parametrize(
    ("options", "version", "day"), [({"upgrade": True}, "3.0", None), ({"exclude_newer": "2026-11-18"}, "2.5", "2026-11-18T00:00:00Z")], ids=["upgrade", "day"]
)
def test_an_upgrade_takes_newer_versions(locked, options, version, day):
    """As of a week ago, or as of the day that is named; the lock says which."""
    locked.default.add("numpy", "2.5", uploaded="2026-11-17T12:00:00Z")
    locked.default.add("numpy", "3.0", uploaded="2026-11-19T00:00:00Z")
    before = lock_writer.cut_off(None)
    write(locked, **options)
    days = {day} if day else {before, lock_writer.cut_off(None)}  # midnight may pass meanwhile
    assert versions(locked, "2.8.0-cu128/cp313/base.lock")["numpy"] == version
    lock = locked.locks()["2.8.0-cu128/cp313/base.lock"].decode()
    assert days & {*re.findall(r"^# exclude-newer: (.*)$", lock, re.MULTILINE)}


def test_after_a_kill_between_two_files_the_next_run_goes_on(locked):
    """A lineage of which the parents are new and the rest old is refused, and ends as it would have."""
    old = locked.locks()
    locked.default.add("numpy", "3.0", uploaded="2026-11-17T12:00:00Z")
    write(locked, exclude_newer="2026-11-18")
    new = locked.locks()
    for name in ("devel", "lab"):
        (locked.root / f"locks/2.8.0-cu128/cp313/{name}.lock").write_bytes(old[f"2.8.0-cu128/cp313/{name}.lock"])
    (locked.root / "locks/2.8.0-cu128/cp313/.lab.lock.partial").write_text("# Made by")
    table = matrix.load(locked.root / "matrix.yaml")
    assert "devel.lock does not contain numpy 3.0 of its parent" in wheel_locks.check(table, locked.root)[0].what
    write(locked)
    assert locked.locks() == new


# What is typed


def spoilt(path: str, old: str, new: str):
    """Return what replaces something in a file."""
    return lambda made: made.edit(path, old, new)


BUILD = "locks/2.8.0-cu128"

WRONG = {
    "a file that nobody has locked": lambda made: (made.root / f"{BUILD}/cp311/devel.lock").unlink(),
    "a new requirement": spoilt("images/lab/requirements.in", "notebook", "notebook\nsoundfile"),
    "one that is gone": spoilt("images/base/requirements.in", "numpy", ""),
    "what a merge left": spoilt(f"{BUILD}/cp313/base.lock", "numpy==", "<<<<<<< HEAD\nnumpy=="),
    "an edited header": spoilt(f"{BUILD}/cp313/base.lock", "# python: 3.13", "# python: 3.12"),
    "a lost pin": spoilt(f"{BUILD}/cp313/lab.lock", "soundfile==", "#"),
    "the lock of another Python": lambda made: shutil.copy(made.root / f"{BUILD}/cp311/lab.lock", made.root / f"{BUILD}/cp313/lab.lock"),
    "the lock of another flavour": lambda made: shutil.copy(made.root / f"{BUILD}/cp313/base.lock", made.root / f"{BUILD}/cp313/lab.lock"),
}
"""What is wrong with locks, by what cures it: the command that locks the row."""

OTHERWISE = {
    "a row that nobody has locked": (lambda made: shutil.rmtree(made.root / BUILD), "inv lock 2.8-cu128"),
    "bytes that are no text": (lambda made: (made.root / f"{BUILD}/cp313/base.lock").write_bytes(b"\xff"), "inv lock 2.8-cu128"),
    "a copy by a file manager": (
        lambda made: shutil.copytree(made.root / f"{BUILD}/cp313", made.root / f"{BUILD}/cp313 copy"),
        f"rm -r '{BUILD}/cp313 copy'",
    ),
    "what no cell has, beside what is missing": (
        lambda made: [
            shutil.copytree(made.root / f"{BUILD}/cp311", made.root / f"{BUILD}/cp39"),
            shutil.copy(made.root / f"{BUILD}/cp311/lab.lock", made.root / f"{BUILD}/cp311/x.lock"),
            (made.root / f"{BUILD}/cp313/lab.lock").unlink(),
        ],
        f"inv lock 2.8-cu128 && rm {BUILD}/cp311/x.lock && rm -r {BUILD}/cp39",
    ),
}
"""The same, with the line that the check names."""


def problems(made: Scratch) -> tuple[LockError, ...]:
    """Return what is wrong with the locks."""
    return wheel_locks.check(matrix.load(made.root / "matrix.yaml"), made.root)


@pytest.mark.parametrize("name", WRONG)
def test_locking_the_row_cures_what_names_it(locked, name):
    """Each error names that command; afterwards nothing is wrong."""
    WRONG[name](locked)
    assert {problem.fix for problem in problems(locked)} == {"run: inv lock 2.8-cu128"}
    write(locked, "2.8-cu128")
    assert problems(locked) == ()


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_cure_that_a_check_names_cures(locked, name):
    """What `inv lock --check` says is typed as it stands; then nothing is wrong."""
    commit = "git -c user.name=x -c user.email=x@example.org commit -qm x"
    assert locked.typed(f"git init -q && git add locks && {commit}").status == 0
    spoil, cure = OTHERWISE[name]
    spoil(locked)
    refused = locked.typed("inv lock --check")
    assert (refused.status, refused.cure) == (LockError.code, cure)
    cured = locked.typed(refused.cure)
    assert cured.status == 0, cured.err
    assert problems(locked) == ()


def test_a_requirement_younger_than_the_locks_is_cured_by_an_upgrade(locked):
    """The error says of which day the locks are, and the command that takes newer wheels."""
    locked.default.add("tqdm", "1.0", uploaded="2026-11-18T00:00:00Z")
    (locked.root / "images/base/requirements.in").write_text("numpy\ntqdm\n")
    before = locked.locks()
    with pytest.raises(LockError, match=r"\(as of 2026-11-17, the day of its locks\)") as refused:
        write(locked)
    assert locked.locks() == before
    command = "inv lock 2.8-cu128 --upgrade"
    assert f"{command};" in refused.value.fix
    assert locked.typed(command).status == 0
    assert problems(locked) == ()


def test_a_word_that_is_no_day_is_answered_with_one(made):
    """Typed instead, it is one."""
    with pytest.raises(LockError, match="'yesterday' is no time") as refused:
        write(made, exclude_newer="yesterday")
    day = refused.value.fix.rpartition(" ")[2]
    assert made.typed(f"inv lock 2.8-cu128 --exclude-newer {day}").status == 0
    assert "# exclude-newer: 2026-11-24T" in made.locks()["2.8.0-cu128/cp313/base.lock"].decode()


# PyTorch's own index


def test_only_torch_and_its_family_come_from_upstreams_index(made):
    """A common package is not taken from there, though its version is higher; the default index is asked for it, and for it alone."""
    made.upstream.add("numpy", "99.0")
    made.upstream.add("soundfile", "99.0")
    write(made, "2.8-cu126")
    found = versions(made, "2.8.0-cu126/cp313/lab.lock")
    assert (found["torch"], found["torchvision"], found["numpy"], found["soundfile"]) == ("2.8.0+cu126", "0.23.0+cu126", "2.0", "1.0")
    assert set(made.upstream.asked) == {"torch", "torchvision", "torchaudio"}


def test_upstreams_index_tells_no_size_and_is_asked_for_it(made):
    """The lock has hash and size of the very file."""
    path = made.upstream.add("torch", "2.8.0+cu126", "numpy")
    write(made, "2.8-cu126")
    line = next(line for line in made.locks()["2.8.0-cu126/cp313/base.lock"].decode().splitlines() if line.startswith("torch=="))
    assert line.endswith(f"# {path.name} {path.stat().st_size}")


def test_pips_own_places_come_first(made, tmp_path, monkeypatch):
    """Where they have the build, upstream's index is not asked."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.upstream.folder))
    write(made, "2.8-cu126")
    assert versions(made, "2.8.0-cu126/cp313/base.lock")["torch"] == "2.8.0+cu126"
    assert made.upstream.asked == []


NOWHERE = f"http://127.0.0.1:9/{'long/' * 20}simple"
"""Longer than a line of a terminal, at whose end uv would break what it says."""


def test_an_index_that_does_not_answer_is_named_with_the_way_around_it(made, monkeypatch):
    """One line says which, nothing is written, and a mirror of it, typed as the error says, cures."""
    indexes = dict.fromkeys(compat.facts().upstream.indexes, NOWHERE)
    away = msgspec.structs.replace(compat.facts(), upstream=Upstream(packages=compat.facts().upstream.packages, indexes=indexes))
    monkeypatch.setattr(compat, "facts", lambda: away)
    with pytest.raises(LockError, match=r"2\.8-cu126 cannot be locked: http://127\.0\.0\.1:9/\S*simple/torch\w*/ does not answer: ") as refused:
        write(made, "2.8-cu126")
    assert made.locks() == {}
    around, _, command = refused.value.fix.partition(", then run: ")
    assert "point pip to a mirror of it (extra-index-url)" in around
    assert made.typed(command, PIP_EXTRA_INDEX_URL=made.upstream.url).status == 0
    assert len(made.locks()) == 3


def test_credentials_of_an_index_are_not_shown(made, monkeypatch):
    """Its address is, where it does not answer."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(LockError, match=r"http://127\.0\.0\.1:9/\S*simple/\w+/ does not answer") as refused:
        write(made)
    assert "secret" not in str(refused.value)


def test_what_locks_the_tool_names_such_an_index_too(made, monkeypatch):
    """Its locks stay as they are."""
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    before = {name: (made.root / name).read_bytes() for name in requirements.LOCKS}
    with pytest.raises(LockError, match=r"^http://127\.0\.0\.1:9/\S*simple/[\w.-]+/ does not answer: "):
        requirements.write("2026-11-17T00:00:00Z", made.root)
    assert {name: (made.root / name).read_bytes() for name in requirements.LOCKS} == before


def test_a_place_that_takes_no_lock_is_named(made):
    """In one line, with what to do; it is left as it is."""
    shutil.rmtree(made.root / "locks")
    (made.root / "locks").write_text("mine")
    with pytest.raises(StoreError, match="/locks: ") as refused:
        write(made)
    assert "use a clone of your own" in refused.value.fix
    assert (made.root / "locks").read_text() == "mine"


def test_no_index_forbids_upstreams_too(made, monkeypatch):
    """The error says so, and where else the wheels may lie; there they are found. Other rows are locked all the same."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.default.folder))
    table = matrix.load(made.root / "matrix.yaml")
    outcome = lock_writer.write(table, table.cells, root=made.root)
    (refused,) = outcome.failed.values()
    assert "2.8-cu126 comes from PyTorch's own index, and pip's no-index forbids to look there" in refused.what
    assert "find-links" in refused.fix
    assert len(outcome.changed) == 6
    assert made.upstream.asked == []
    monkeypatch.setenv("PIP_FIND_LINKS", f"{made.default.folder} {made.upstream.folder}")
    assert len(write(made, "2.8-cu126").changed) == 3


# Two at once, and interruptions


def stalled(made: Scratch, command: str) -> subprocess.Popen[str]:
    """Start a command, and return it when the index keeps it waiting for the last flavour."""
    made.default.held = "notebook"
    process = made.start(command)
    until(made.default.stalled.is_set, "the index was asked", alive=lambda: process.poll() is None)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_whoever_ends_locking_leaves_nothing_half_written(made, number, status):
    """One line and a code, after a kill not even that; the next run locks."""
    process = stalled(made, "inv lock 2.8-cu128")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert made.locks() == {}
    assert [line for line in f"{out}{err}".splitlines() if line] == (
        ["interrupted; what was complete is kept, and the next run goes on from there"] * (status == 130)
    )
    made.default.released.set()
    assert len(write(made).changed) == 6


def test_locking_that_is_interrupted_waits_for_nothing_that_has_not_begun(made, monkeypatch):
    """Of many builds and Pythons a few are under way at a time, and the others never end."""
    monkeypatch.setattr(lock_writer, "WORKERS", 1)
    main, stalled = threading.get_ident(), made.default.stalled
    interrupter = threading.Thread(target=lambda: stalled.wait(PATIENCE) and signal.pthread_kill(main, signal.SIGINT), daemon=True)
    made.default.held = "notebook"
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            write(made, "*")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert not made.default.released.is_set()


@pytest.mark.parametrize(("number", "is_passed_over"), [(errno.EBADF, True), (errno.ENOLCK, True), (errno.EIO, False)])
def test_a_directory_that_cannot_be_locked_is_written_to(tmp_path, monkeypatch, number, is_passed_over):
    """As one on NFS, where only files can be."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with contextlib.nullcontext() if is_passed_over else pytest.raises(StoreError, match="error"), lockfile.writing(tmp_path, print):
        lockfile.replaced(tmp_path / "a.lock", "x\n")
    assert (tmp_path / "a.lock").exists() is is_passed_over


def test_two_at_once_wait_for_each_other(made):
    """The second finds what the first has made, and changes nothing."""
    first = stalled(made, "inv lock 2.8-cu128")
    with made.start("inv lock 2.8-cu128") as second:
        assert second.stdout is not None
        assert second.stdout.readline() == f"{WAITING}\n"
        made.default.released.set()
        first.communicate(timeout=PATIENCE)
        out, _ = second.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "0 locks written, 6 unchanged" in out


def test_a_day_that_is_to_come_is_refused(made):
    """Nothing of then is there to lock, and images would be dated by it."""
    with pytest.raises(LockError, match="2999-01-01 is still to come"):
        write(made, exclude_newer="2999-01-01")
    assert made.locks() == {}


@pytest.mark.parametrize(
    ("asked", "time"),
    [
        ("2026-11-17", "2026-11-17T00:00:00Z"),
        ("2026-11-17T10:00:00Z", "2026-11-17T10:00:00Z"),
        ("2026-11-17T10:00:00+02:00", "2026-11-17T08:00:00Z"),
        ("0999-01-01", "0999-01-01T00:00:00Z"),
    ],
)
def test_dates_are_recorded_in_utc(asked, time):
    """Whatever way the date is given, the lock records one form of it."""
    assert lock_writer.cut_off(asked) == time
