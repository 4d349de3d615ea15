"""A mirror that has dropped locked packages, and its snapshot archive: real builds, against stand-ins for both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.archive import SUFFIX, Archive
from tests.system.test_osparts import FLAVOURS, SYSTEM, diff_ids, write
from torchstrata.errors import StaleLockError
from torchstrata.layers import deb, os_image, os_parts, snapshots
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.layers.os_parts import Parts
from torchstrata.locks import os_locks
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

DROPPED = ("less", "make", "tzdata", "netbase", "libselinux1-dev")
"""Of the first two a flavour adds one each, the third is in the OS image; nobody needs the others."""

Lines = list[str]


@pytest.fixture(scope="module")
def address() -> str:
    """Give the address of this machine that containers of the engine reach too."""
    shown = subprocess.run(
        ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Give a locked repository, and the store that has what its lock was made from: the mirror had everything then."""
    root, store = write(tmp_path_factory.mktemp("repository"), "less", "make"), Store(tmp_path_factory.mktemp("store"))
    OsPartBuilder(store=store, codec=Codec(), on_line=print, root=root).relock([SYSTEM], FLAVOURS)
    return root, store


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory that keeps what was downloaded from the true mirror."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def later(downloads: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """Give a mirror that has dropped packages since, and its archive; builds know both."""
    hosts = {urlsplit(source.uri).netloc for source in snapshots.sources(os_image.sources(SYSTEM))}
    with Archive(downloads, DROPPED, address, hosts=sorted(hosts)).serving() as archive:
        for name, value in archive.environment.items():
            monkeypatch.setenv(name, value)
        yield archive


@pytest.fixture
def bare(locked: tuple[Path, Store], tmp_path: Path) -> None:
    """Leave only the OS image in the store that a test bakes in."""
    root, store = locked
    shutil.copytree(store.root, tmp_path / "store", ignore=shutil.ignore_patterns("tmp", "locks"))
    for count in range(1, len(FLAVOURS) + 1):
        (tmp_path / "store" / "parts" / f"{os_parts.identity(SYSTEM, FLAVOURS[:count], Codec(), root)}.json").unlink()


def bake(locked: tuple[Path, Store], tmp_path: Path, lines: Lines | None = None, *, strict: bool = False) -> Parts:
    """Bake both flavours in a store of the test's own."""
    told = [] if lines is None else lines
    return OsPartBuilder(store=Store(tmp_path / "store"), codec=Codec(), on_line=told.append, locked=strict, root=locked[0]).bake([SYSTEM], FLAVOURS)


def parts(locked: tuple[Path, Store]) -> Parts:
    """Return what the lock was made from."""
    root, store = locked
    return OsPartBuilder(store=store, codec=Codec(), on_line=print, locked=True, root=root).bake([SYSTEM], FLAVOURS)


def test_what_mirrors_have_dropped_the_archive_has(locked: tuple[Path, Store], later: Archive, tmp_path: Path) -> None:
    """From nothing the build is as locked, though only that will do, and every layer is what it was when the mirror still had everything."""
    made = bake(locked, tmp_path, strict=True)
    assert later.asked
    assert diff_ids(made) == diff_ids(parts(locked))
    assert not [part for part in made.values() if os_parts.drift(part)]


@pytest.mark.usefixtures("bare")
def test_without_an_archive_it_drifts(locked: tuple[Path, Store], later: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's versions are used; one line tells them, and why there is no help; the parts note which they are."""
    later.has_archive = False
    monkeypatch.setenv("APT_CONFIG", later.environment["APT_CONFIG"])
    lines: Lines = []
    made = bake(locked, tmp_path, lines)
    assert [(move.package, move.found == f"{move.locked}{SUFFIX}") for move in os_parts.drift(made[SYSTEM.id, "devel"])] == [
        ("less", True),
        ("make", True),
    ]
    (line,) = (line for line in lines if "not as locked" in line)
    assert line.endswith("(apt knows no snapshot archive of it)")


@pytest.mark.usefixtures("bare")
def test_an_archive_that_does_not_answer_is_named(locked: tuple[Path, Store], later: Archive, tmp_path: Path) -> None:
    """What is locked cannot be had: ``locked`` refuses that, says what the archive said, and keeps nothing."""
    later.is_gone = True
    with pytest.raises(StaleLockError, match="its snapshot archive does not help"):
        bake(locked, tmp_path, strict=True)
    assert Store(tmp_path / "store").find(os_parts.identity(SYSTEM, ("base",), Codec(), locked[0])) is None


def test_a_package_of_the_toolchain_comes_the_same_way(later: Archive) -> None:
    """What an administrator has told apt counts for it too."""
    assert later.dropped
    with deb.downloaded(SYSTEM.suite, "main", "less", print) as (name, content):
        assert SUFFIX in name.replace("%2b", "+")
        assert content.read(8) == b"!<arch>\n"


@pytest.mark.usefixtures("bare")
def test_a_mirror_that_is_gone_is_replaced_by_the_archive(locked: tuple[Path, Store], later: Archive, tmp_path: Path) -> None:
    """A distribution that has left its mirrors is still built as locked, from the archive alone."""
    later.is_closed = True
    made = bake(locked, tmp_path, strict=True)
    assert diff_ids(made) == diff_ids(parts(locked))


@pytest.mark.usefixtures("bare")
def test_a_lock_of_what_no_archive_has_drifts(locked: tuple[Path, Store], later: Archive, tmp_path: Path) -> None:
    """A version that never was, and a package that is gone: all else is as locked."""
    root = tmp_path / "repository"
    shutil.copytree(locked[0], root, symlinks=True)
    lock = os_locks.read(SYSTEM, root)
    planted = {**lock.sections["base"], "less": "1-1", "no-such-package": "2"}
    os_locks.write(os_locks.OsLock(system=lock.system, date=lock.date, sections={**lock.sections, "base": planted}, moment=lock.moment), SYSTEM, root)
    made = bake((root, locked[1]), tmp_path)
    assert [(move.package, move.locked) for move in os_parts.drift(made[SYSTEM.id, "devel"])] == [("less", "1-1"), ("no-such-package", "2")]
    assert later.asked
