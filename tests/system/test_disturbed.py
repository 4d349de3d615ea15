"""Builds that are disturbed: a full disk, Ctrl-C, a kill, another build at the same time, a mirror that has moved on.

Each in a store of its own; the one on a small disk lives through most of it.
"""

from __future__ import annotations

import dataclasses
import re
import signal
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from tests.built import CPU, DISK, Built, Disk, cell_of, damage, index, is_converting, is_in_engine, lend_os, lists, unfinished
from tests.checkout import Checkout, Ended
from torchstrata import errors

BASE = ("--flavour", "base")
DEVEL = ("--flavour", "devel")


@dataclass(frozen=True)
class Fate:
    """What became of a build that was disturbed.

    :param damage: what is wrong in its store right afterwards.
    """

    ended: Ended
    damage: list[str]


@pytest.fixture(scope="module")
def on_disk(checkout: Checkout, disk: Disk, cpu_base: Built) -> Checkout:
    """Give this checkout with a store on the small disk, which has nothing but the OS."""
    lend_os(cpu_base, disk.store)
    return dataclasses.replace(checkout, env={"TORCHSTRATA_CACHE": str(disk.store)})


@pytest.fixture(scope="module")
def refused(on_disk: Checkout, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Fate:
    """Build with a disk that is too full from the start."""
    disk.fill(leave=50_000_000)
    ended = on_disk.build(CPU, *BASE, "--to", str(tmp_path_factory.mktemp("refused")))
    disk.relieve()
    return Fate(ended, damage(disk.store))


@pytest.fixture(scope="module")
def filled(on_disk: Checkout, disk: Disk, refused: Fate, tmp_path_factory: pytest.TempPathFactory) -> Fate:
    """Build, and fill the disk while torch is converted."""
    with on_disk.start_build(CPU, *BASE, "--to", str(tmp_path_factory.mktemp("filled"))) as running:
        running.wait_for(lambda: is_converting(disk.store, ()), "the conversion of torch")
        disk.fill(leave=0)
        ended = running.ended()
    disk.relieve()
    return Fate(ended, damage(disk.store))


def disturbed(checkout: Checkout, disk: Disk, how: signal.Signals, to: Path) -> Fate:
    """Build, and send a signal while torch is converted."""
    before = set((disk.store / "tmp").iterdir())
    with checkout.start_build(CPU, *BASE, "--to", str(to)) as running:
        running.wait_for(lambda: is_converting(disk.store, before), "the conversion of torch")
        running.process.send_signal(how)
        ended = running.ended()
    return Fate(ended, damage(disk.store))


@pytest.fixture(scope="module")
def interrupted(on_disk: Checkout, disk: Disk, filled: Fate, tmp_path_factory: pytest.TempPathFactory) -> Fate:
    """Build, and press Ctrl-C while torch is converted."""
    return disturbed(on_disk, disk, signal.SIGINT, tmp_path_factory.mktemp("interrupted"))


@pytest.fixture(scope="module")
def killed(on_disk: Checkout, disk: Disk, interrupted: Fate, tmp_path_factory: pytest.TempPathFactory) -> Fate:
    """Build, and kill it while torch is converted."""
    return disturbed(on_disk, disk, signal.SIGKILL, tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def recovered(on_disk: Checkout, disk: Disk, killed: Fate, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fate, Path]:
    """Build once more, undisturbed; the images go into a directory."""
    to = tmp_path_factory.mktemp("recovered")
    return Fate(on_disk.build(CPU, *BASE, "--to", str(to)), damage(disk.store)), to


def said(fate: Fate) -> list[str]:
    """Return the lines of an error."""
    return [line for line in fate.ended.output.splitlines() if line.startswith("error:")]


def test_full_disk_is_refused_before_the_build(refused: Fate) -> None:
    """What is needed is known from the plan, and said together with what is free."""
    assert refused.ended.status == errors.DiskFullError.code
    assert len(said(refused)) == 1
    assert "Traceback" not in refused.ended.output
    assert refused.ended.steps == []


def test_disk_that_gets_full_is_told(filled: Fate) -> None:
    """A disk that somebody else fills ends the build with its own code, and no part is there by half."""
    assert filled.ended.status == errors.DiskFullError.code, filled.ended.output
    assert len(said(filled)) == 1
    assert "Traceback" not in filled.ended.output
    assert filled.damage == []


def test_interrupted_build_ends(interrupted: Fate) -> None:
    """Ctrl-C ends everything that the build has started, and what was complete is whole."""
    assert interrupted.ended.status == errors.INTERRUPTED, interrupted.ended.output
    assert "Traceback" not in interrupted.ended.output
    assert interrupted.damage == []


def test_killed_build_leaves_a_sound_store(killed: Fate) -> None:
    """A kill in the middle of a conversion leaves nothing under a final name that is not complete."""
    assert killed.ended.status == -signal.SIGKILL
    assert killed.damage == []


def test_next_build_goes_on_where_it_stopped(recovered: tuple[Fate, Path], disk: Disk) -> None:
    """After a full disk, Ctrl-C and a kill the same store gives the image, and what they have left is gone, in the engine too."""
    fate, to = recovered
    assert fate.ended.status == 0, fate.ended.output
    assert fate.damage == []
    assert unfinished(disk.store) == []
    own = chain.from_iterable(lists(disk.store))
    assert len(lists(disk.store)) == 1
    assert [leaving.name for leaving in own if is_in_engine(leaving)] == []
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index(to)["manifests"]] == [f"{CPU}-base"]


def test_store_stays_small(recovered: tuple[Fate, Path], disk: Disk) -> None:
    """What a build leaves is its layers: wheels go when they are converted."""
    kept = sum(path.stat().st_size for path in disk.store.rglob("*") if path.is_file())
    layers = sum(path.stat().st_size for path in (disk.store / "blobs").rglob("*") if path.is_file())
    assert kept - layers < DISK // 100


@dataclass(frozen=True)
class Twins:
    """Two builds at once, from another checkout under another umask and temporary directory, in one store that has nothing but the OS."""

    checkout: Checkout
    store: Path
    ended: tuple[Ended, Ended]
    directories: tuple[Path, ...]


@pytest.fixture(scope="module")
def twins(checkout: Checkout, cpu_base: Built, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Build twice at the same time."""
    root = tmp_path_factory.mktemp("twins")
    (root / "tmp").mkdir()
    store = root / "store"
    lend_os(cpu_base, store)
    other = checkout.copy(root / "another-place", umask=0o077, env={"TORCHSTRATA_CACHE": str(store), "TMPDIR": str(root / "tmp"), "TZ": "Asia/Tokyo"})
    directories = (root / "one", root / "two")
    first, second = (other.start_build(CPU, *BASE, "--to", str(directory)) for directory in directories)
    with first, second:
        return Twins(other, store, (first.ended(), second.ended()), directories)


def test_two_builds_at_once_make_each_part_once(twins: Twins) -> None:
    """Both succeed; what one makes the other waits for and uses."""
    assert [ended.status for ended in twins.ended] == [0, 0], twins.ended[0].output + twins.ended[1].output
    steps = chain.from_iterable(ended.steps for ended in twins.ended)
    done = sorted(name for verb, name in steps if verb in {"convert", "compile"})
    assert done == sorted(set(done))
    assert done
    assert damage(twins.store) == []


def test_digests_depend_on_the_commit_alone(twins: Twins, recovered: tuple[Fate, Path]) -> None:
    """Another directory, umask, time zone, temporary directory and store give the same images, byte for byte (``test_osparts.py`` says so of the OS)."""
    files = [directory / "index.json" for directory in (*twins.directories, recovered[1])]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.fixture(scope="module")
def stale(twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Give a checkout whose lock names a version of make, which devel adds, that no mirror has; its store has the base."""
    other = dataclasses.replace(twins.checkout.copy(tmp_path_factory.mktemp("stale") / "checkout"), env=twins.checkout.env)
    lock = other.root / "locks" / "os" / f"{cell_of(CPU).os.id}.lock"
    text, count = re.subn(r"^make=.*$", "make=0.0.1-1", lock.read_text(), flags=re.MULTILINE)
    assert count == 1
    lock.write_text(text)
    return other


@pytest.fixture(scope="module")
def stale_and_locked(stale: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Build with the stale lock and ``--locked``."""
    return stale.build(CPU, *DEVEL, "--locked", "--to", str(tmp_path_factory.mktemp("locked")))


@pytest.fixture(scope="module")
def stale_and_built(stale: Checkout, stale_and_locked: Ended, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Build with the stale lock."""
    return stale.build(CPU, *DEVEL, "--to", str(tmp_path_factory.mktemp("today")))


def test_stale_os_lock_is_refused_if_only_locked_will_do(stale_and_locked: Ended) -> None:
    """``--locked`` takes nothing but the locked versions, and names what the mirror has dropped."""
    assert stale_and_locked.status == errors.StaleLockError.code, stale_and_locked.output
    assert "make 0.0.1-1 ->" in stale_and_locked.output
    assert "Traceback" not in stale_and_locked.output


def told(ended: Ended) -> int:
    """Return how many lines tell what make has become."""
    return sum("not as locked" in line and "make 0.0.1-1 ->" in line for line in ended.output.splitlines())


def test_stale_os_lock_is_told_in_one_line(stale_and_built: Ended) -> None:
    """Otherwise the build takes today's version, says so once, and the closing table has its state."""
    assert stale_and_built.status == 0, stale_and_built.output
    assert told(stale_and_built) == 1
    assert re.search(rf"^pytorch-cuda:{CPU}-devel .* drifted: ", stale_and_built.output, re.MULTILINE)


def test_drift_is_recorded(stale: Checkout, stale_and_built: Ended, tmp_path: Path) -> None:
    """The next build has the part from the store and still tells; with ``--locked`` it does not count as made."""
    again = stale.build(CPU, *DEVEL, "--to", str(tmp_path / "again"))
    assert again.status == 0, again.output
    assert again.steps == []
    assert told(again) == 1
    assert re.search(rf"^pytorch-cuda:{CPU}-devel .* drifted: ", again.output, re.MULTILINE)
    assert stale.build(CPU, *DEVEL, "--locked", "--to", str(tmp_path / "locked")).status == errors.StaleLockError.code
