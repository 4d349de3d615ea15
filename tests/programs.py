"""Programs that tests run as independent readers: Debian 13's, unpacked, not installed, so that no root is needed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from torchstrata.attestations import signing
from torchstrata.layers import deb

SUITE: Final = "trixie"
"""Older releases, and Ubuntu's, lack some of them; these run on Debian 12 and on Ubuntu as well, since Go needs no libraries."""


@functools.cache
def directory(name: str) -> Path:
    """Return the directory that holds a program: where it is installed, else where the package of that name is unpacked, once."""
    if found := shutil.which(name):
        return Path(found).parent
    place = _own() / f"{SUITE}-{name}"
    with FileLock(place.with_suffix(".lock")):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as work:
                _unpack(name, Path(work))
                Path(work, "unpacked").rename(place)
    return place / "usr/bin"


def _own() -> Path:
    """Return a directory for programs that no other user can write to."""
    place = Path(tempfile.gettempdir()) / f"torchstrata-programs-{os.geteuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    assert place.stat().st_uid == os.geteuid(), f"{place} belongs to another user"
    return place


def _unpack(name: str, work: Path) -> None:
    with deb.downloaded(SUITE, "main", name, print) as (file, content), (work / file).open("wb") as package:
        shutil.copyfileobj(content, package)
    subprocess.run(["dpkg-deb", "-x", work / file, work / "unpacked"], check=True)


@contextlib.contextmanager
def alone(directories: pytest.TempPathFactory, password: str) -> Iterator[pytest.MonkeyPatch]:
    """Let this process find cosign and oras, with a home of its own and nobody to sign as.

    :param password: of the keys that cosign makes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*(str(directory(name)) for name in ("cosign", "oras")), os.environ["PATH"]]))
        patch.setenv("DOCKER_CONFIG", str(directories.mktemp("docker")))
        patch.setenv("HOME", str(directories.mktemp("home")))
        patch.setenv("COSIGN_PASSWORD", password)
        for name in (signing.KEY, signing.PUBLIC_KEY, "GITHUB_REPOSITORY", "GITHUB_ACTIONS", "XDG_STATE_HOME", *signing.AMBIENT):
            patch.delenv(name, raising=False)
        yield patch
