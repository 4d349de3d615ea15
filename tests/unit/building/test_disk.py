"""Disk space: said before a build, and refused if it is not there."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from types import SimpleNamespace

import pytest

from tests.parts import missing, os_part, plan, stratum
from torchstrata.building import disk, engine
from torchstrata.errors import DiskFullError
from torchstrata.locks.lockfile import Pin
from torchstrata.store.store import Store

GB = 1_000_000_000


def wheel_of(size, name="torch"):
    """Return an item that needs a wheel of that size, which nobody has."""
    return missing(stratum(Pin(name=name, version="1.0", filename=f"{name}-1.0-py3-none-any.whl", sha256="0" * 64, size=size)))


@pytest.fixture
def store(tmp_path):
    """Return a store that nobody has written to."""
    return Store(tmp_path / "not" / "yet" / "there")


@pytest.fixture
def free(monkeypatch):
    """Return a function that sets how much of every disk is free."""

    def set_(count):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))

    return set_


def roomy(free_space, *, shares=True):
    """Return an engine of which only its disk and what it lacks are asked."""
    return SimpleNamespace(
        free_space=lambda: free_space,
        shares_disk=lambda _: shares,
        lacks=lambda stacks: tuple(itertools.chain.from_iterable(stacks)),
        space_for=engine.Engine.space_for,
    )


def test_what_is_needed_is_said(store, free):
    """Layers take about what their wheels do, and some wheels lie beside them for a while."""
    free(50 * GB)
    assert disk.check(plan(wheel_of(3 * GB)), store, None) == "to fetch 3.0 GB; needs 4.9 GB in the store, 0 B in the engine; 50 GB free"
    assert not store.root.parent.exists()


def test_what_is_there_needs_nothing(store, free):
    """A second build fits a full disk."""
    item = os_part(store, {"etc/x": b"x"})
    free(0)
    assert disk.check(plan(item), store, None).startswith("to fetch 0 B; needs 0 B in the store")


@pytest.mark.parametrize(
    ("lineage", "needed"),
    [
        (("base",), "250 MB in the store, 750 MB in the engine"),
        (("base", "devel"), "100 MB in the store, 300 MB in the engine"),
    ],
)
def test_an_os_part_that_is_missing_needs_space_too(store, free, lineage, needed):
    """Its size is estimated: only the first has the OS; counting it for every flavour refused builds that fit a disk."""
    free(50 * GB)
    item = dataclasses.replace(os_part(store, {"etc/x": b"x"}, lineage=lineage), part=None)
    assert disk.check(plan(item), store, roomy(None)) == f"to fetch 0 B; needs {needed}; 50 GB free"


def test_a_build_that_cannot_end_is_not_begun(store, free):
    """The error says what is needed, what is free, and what to do."""
    free(4 * GB)
    with pytest.raises(DiskFullError, match=r"needs 4\.9 GB .* 4\.0 GB are free") as caught:
        disk.check(plan(wheel_of(3 * GB)), store, None)
    assert "--flavour base" in caught.value.fix


@pytest.mark.parametrize(("here", "there"), [(10, 10), (100, 5)], ids=["the same disk", "a small disk of its own"])
def test_the_disk_of_an_engine_counts(store, free, here, there):
    """The engine unpacks: what fits the store alone may not fit both, nor the engine where its disk is another one."""
    found = plan(wheel_of(3 * GB))
    free(here * GB)
    disk.check(found, store, None)
    disk.check(found, store, roomy(None) if here > there else None)
    with pytest.raises(DiskFullError, match=r"9\.3 GB in the engine"):
        disk.check(found, store, roomy(there * GB))


def test_an_engine_on_a_large_disk_of_its_own_takes_nothing_from_the_store(store, free):
    """What it unpacks need not fit where the store is."""
    free(5 * GB)
    disk.check(plan(wheel_of(3 * GB)), store, roomy(10 * GB, shares=False))
