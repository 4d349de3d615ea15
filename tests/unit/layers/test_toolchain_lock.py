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
    lineage = toolchain_lock.read(name)
    assert all(package.version in lineage.title for package in lineage.packages)
    assert [f"{pin.name}=={pin.version}" for pin in lineage.pins] == [line for line in lineage.requires if not line.startswith(toolchain_lock.DEBIAN)]


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


@pytest.mark.parametrize(
    ("files", "old", "new", "what"),
    [
        ((".in",), "12.4.131", "12.4.99", r"no longer matches cuda-12\.4\.in"),
        ((".in", ".lock"), "nvidia-cuda-dev", "nvidia-cuda-other", "has nvidia-cuda-other, of which nothing is taken"),
        ((".lock",), '"sha256"', '"sha"', "is damaged"),
    ],
    ids=["no longer fits", "unknown package", "damaged"],
)
def test_a_lock_that_is_not_what_its_inputs_ask_for_is_refused(copy, files, old, new, what):
    """A change of the inputs asks for a new lock; what is taken of a package is said in one place."""
    for name in files:
        path = copy / toolchain_lock.FOLDER / f"{NAME}{name}"
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(LockError, match=what):
        toolchain_lock.read(NAME, copy)


def test_the_identity_follows_the_lock_and_the_codec():
    """Another package or codec is another stratum."""
    lineage = toolchain_lock.read(NAME)
    assert lineage.identity(Codec()) == toolchain_lock.read(NAME).identity(Codec())
    assert lineage.identity(Codec()) != lineage.identity(Codec(level=5))
