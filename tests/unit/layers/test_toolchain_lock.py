"""The lock of a toolchain: what is refused, and the identity that follows from it."""

from __future__ import annotations

import shutil

import pytest

from torchstrata.errors import LockError
from torchstrata.layers import toolchain_lock
from torchstrata.matrix.matrix import ROOT
from torchstrata.store.codec import Codec

NAME = "cuda-12.4"


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the committed toolchain locks, to be spoilt."""
    shutil.copytree(ROOT / toolchain_lock.FOLDER, tmp_path / toolchain_lock.FOLDER)
    return tmp_path


@pytest.mark.parametrize("name", [NAME, "cuda-13"])
def test_the_committed_lock_is_what_its_inputs_ask_for(name):
    """The lock fits the ``.in`` file, and every wheel of it is pinned."""
    chain = toolchain_lock.read(name)
    assert all(package.version in chain.title for package in chain.packages)
    assert [f"{pin.name}=={pin.version}" for pin in chain.pins] == [line for line in chain.requires if not line.startswith(toolchain_lock.DEBIAN)]


def test_a_missing_lock_says_how_to_make_it(copy):
    """Without the lock nothing is guessed."""
    (copy / toolchain_lock.FOLDER / f"{NAME}.lock").unlink()
    with pytest.raises(LockError, match="is missing") as caught:
        toolchain_lock.read(NAME, copy)
    assert "inv lock --toolchain" in caught.value.fix


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read: No such file"), ("deb nvidia-cuda-toolkit\n", "names no Debian package: deb nvidia")])
def test_an_input_that_is_none_is_one_line(copy, text, says):
    """Whether it is read or locked anew; the error says how to get it back, or what to write."""
    path = copy / toolchain_lock.FOLDER / f"{NAME}.in"
    path.unlink() if text is None else path.write_text(text)
    for work in (lambda: toolchain_lock.read(NAME, copy), lambda: toolchain_lock.write(NAME, "2026-11-17T00:00:00Z", root=copy)):
        with pytest.raises(LockError, match=says):
            work()


def test_a_lock_that_no_longer_fits_is_refused(copy):
    """A change of the inputs asks for a new lock."""
    path = copy / toolchain_lock.FOLDER / f"{NAME}.in"
    path.write_text(path.read_text().replace("12.4.131", "12.4.99"))
    with pytest.raises(LockError, match=r"no longer matches cuda-12\.4\.in"):
        toolchain_lock.read(NAME, copy)


def test_a_package_that_nobody_knows_is_refused(copy):
    """What is taken of a package is said in one place; one that is not there is no input."""
    for path in (copy / toolchain_lock.FOLDER / f"{NAME}.in", copy / toolchain_lock.FOLDER / f"{NAME}.lock"):
        path.write_text(path.read_text().replace("nvidia-cuda-dev", "nvidia-cuda-other"))
    with pytest.raises(LockError, match="has nvidia-cuda-other, of which nothing is taken"):
        toolchain_lock.read(NAME, copy)


def test_a_damaged_lock_is_refused(copy):
    """A lock that was edited into something else says so."""
    path = copy / toolchain_lock.FOLDER / f"{NAME}.lock"
    path.write_text(path.read_text().replace('"sha256"', '"sha"', 1))
    with pytest.raises(LockError, match="is damaged"):
        toolchain_lock.read(NAME, copy)


def test_the_identity_follows_the_lock_and_the_codec():
    """Another package or codec is another stratum."""
    chain = toolchain_lock.read(NAME)
    assert chain.identity(Codec()) == toolchain_lock.read(NAME).identity(Codec())
    assert chain.identity(Codec()) != chain.identity(Codec(level=5))
