"""What an image must be, where it says that its OS packages are not as locked."""

from __future__ import annotations

import pytest

from torchstrata.image import runtime
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix import matrix
from torchstrata.verification.expectation import Expectation

(CELL,) = matrix.select(matrix.load(), "2.13-cpu")
LESS = PackageMove(package="less", locked=os_locks.read(CELL.os).installed(("base",))["less"], found="9")


def expectation(*drift: PackageMove) -> Expectation:
    """Return what the base must be that says so."""
    return Expectation(cell=CELL, flavour="base", drift=drift)


def test_an_image_that_says_nothing_is_as_locked() -> None:
    """All versions are the lock's, and there is no label."""
    assert expectation().os_packages == expectation().locked_os_packages
    assert runtime.DRIFT not in expectation().labels


def test_recorded_drift_is_expected_and_nothing_else() -> None:
    """The package that is named, in the version that is named."""
    found = expectation(LESS)
    assert os_locks.moves(found.locked_os_packages, found.os_packages) == (LESS,)
    assert found.labels[runtime.DRIFT] == str(LESS)


@pytest.mark.parametrize("flavour", ["base", "ssh"])
def test_the_python_is_the_one_that_is_there(flavour: str) -> None:
    """Of the lock, or of the drift."""
    package = f"python{CELL.os.python}"
    locked = Expectation(cell=CELL, flavour=flavour)
    assert locked.os_python == os_locks.python_version(CELL.os)
    moved = PackageMove(package=package, locked=locked.os_packages[package], found="3.11.99-1")
    assert Expectation(cell=CELL, flavour=flavour, drift=(moved,)).os_python == "3.11.99"
