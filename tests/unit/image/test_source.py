"""The revision that images carry, in real repositories."""

from __future__ import annotations

import subprocess

import pytest

from tests.parts import CELL
from torchstrata.image import source

CHAIN = ("base", "devel")


@pytest.fixture
def repository(tmp_path):
    """Return a repository with one commit of an image's inputs, and a function that runs git in it."""

    def git(*words):
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    write(tmp_path, "images/base/Dockerfile", "FROM scratch\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return tmp_path, git


def write(root, name, text):
    """Write a file below ``root``."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def commit(repository, name, text):
    """Commit a file and return the commit."""
    root, git = repository
    write(root, name, text)
    git("add", ".")
    git("commit", "--quiet", "--message", name)
    return git("rev-parse", "HEAD")


def test_the_revision_is_the_last_commit_of_the_inputs(repository):
    """A commit that no image is made from leaves it as it is, and so all digests."""
    root, git = repository
    first = git("rev-parse", "HEAD")
    commit(repository, "README.md", "words")
    commit(repository, "images/jupyter/Dockerfile", "a child's")
    commit(repository, f"locks/{CELL.build}/{CELL.os.python_tag}/jupyter.lock", "a child's")
    commit(repository, f"locks/{CELL.build}/cp300/base.lock", "another Python's")
    commit(repository, "locks/os/another.lock", "another OS's")
    assert source.revision(CELL, CHAIN, root) == first


@pytest.mark.parametrize(
    "name",
    [
        "images/apt/install",
        "images/base/rootfs/etc/profile",
        "images/devel/Dockerfile",
        f"locks/{CELL.build}/{CELL.os.python_tag}/base.lock",
        f"locks/{CELL.build}/{CELL.os.python_tag}/devel.lock",
        f"locks/os/{CELL.os.id}.lock",
        "locks/toolchain/x",
    ],
)
def test_each_input_moves_the_revision(repository, name):
    """The directories and locks of the flavour and its parents, the lock of the OS and the toolchain's are inputs."""
    root, _ = repository
    made = commit(repository, name, "changed")
    assert source.revision(CELL, CHAIN, root) == made


def test_changes_that_nobody_has_committed_are_told(repository):
    """An image of them can not be made again from the commit; a new file counts, and so does an edit."""
    root, git = repository
    head = git("rev-parse", "HEAD")
    write(root, "README.md", "words")
    assert source.revision(CELL, CHAIN, root) == head
    write(root, "images/base/rootfs/etc/new", "x")
    assert source.revision(CELL, CHAIN, root) == f"{head}-dirty"


def test_a_tree_without_a_repository_has_none(tmp_path, monkeypatch):
    """Whoever unpacked an archive can build all the same."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source.revision(CELL, CHAIN, tmp_path) == "unknown"
