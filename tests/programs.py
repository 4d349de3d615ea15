"""Programs that tests run as independent readers: Debian 13's cosign and oras, unpacked, not installed, so that no root is needed."""

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

from torchstrata.engines import bootstrap
from torchstrata.supplychain import signing

SUITE: Final = "trixie"
"""Older releases have none of them; these run on Debian 12 as well."""


@functools.cache
def directory(name: str) -> Path:
    """Return the directory that holds a program: where it is installed, else where its package is unpacked.

    The package comes from the mirror that apt takes Debian from, with lists of its own, so that apt's stay as they are.
    """
    if found := shutil.which(name):
        return Path(found).parent
    place = Path(tempfile.gettempdir()) / f"torchstrata-{SUITE}-{name}-{os.geteuid()}"
    if not (place / "usr/bin" / name).exists():
        with tempfile.TemporaryDirectory() as work:
            _unpack(name, Path(work))
            shutil.copytree(Path(work, "unpacked"), place, dirs_exist_ok=True)
    return place / "usr/bin"


def _unpack(name: str, work: Path) -> None:
    lists = work / "lists"
    for needed in (lists / "partial", work / "cache/archives/partial", work / "unpacked"):
        needed.mkdir(parents=True)
    source = f"Types: deb\nURIs: {bootstrap._archive()}\nSuites: {SUITE}\nComponents: main\nSigned-By: {bootstrap.KEYRING}\n"
    (work / "only.sources").write_text(source)
    settings = {
        "Dir::Etc::sourcelist": work / "only.sources",
        "Dir::Etc::sourceparts": work / "none",
        "Dir::Etc::preferencesparts": work / "none",
        "Dir::State::lists": lists,
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    for command in (["update"], ["download", name]):
        subprocess.run(["apt-get", *options, *command], cwd=work, check=True, capture_output=True)
    (package,) = work.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, work / "unpacked"], check=True)


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
        for name in (signing.KEY, signing.PUBLIC_KEY, "GITHUB_REPOSITORY", "GITHUB_ACTIONS", *signing.AMBIENT):
            patch.delenv(name, raising=False)
        yield patch
