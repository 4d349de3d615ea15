"""The OS image by every way that mmdebstrap can run: as root, as an ordinary user, in a container; the layer is the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import zstandard

from tests import registries
from tests.overlaid import Overlaid, overlaid
from torchstrata.layers import os_image

SYSTEM = "debian13"

MAKE = f"""
import sys
from pathlib import Path
from torchstrata.matrix import matrix
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store
from torchstrata.locks import os_locks
from torchstrata.layers import contexts, os_image, os_layers
system, store = matrix.load().systems["{SYSTEM}"], Store(Path(sys.argv[1]))
lock, command = os_locks.read(system), os_image.Command.find(print)
print(command.image or command.mode)
with command.tar(system, lock, contexts.apt_config(matrix.ROOT)) as tar:
    taken = os_layers.take(tar, store, Codec(), title="", epoch=lock.epoch)
print(taken.layer.diff_id, taken.layer.digest)
"""
"""Makes the OS image in a store, and says by which way and what came out."""

FETCH = """
import hashlib
from torchstrata.layers import deb
with deb.downloaded("trixie", "main", "hello", print) as (name, content):
    print(name, hashlib.file_digest(content, "sha256").hexdigest())
"""

DOCKERFILE = """\
FROM scratch
ADD os.tar /
RUN rm -f /etc/apt/preferences.d/torchstrata
"""
"""A minimal image of Debian; without the pins that the OS image is made with."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Overlaid]:
    """Give a view of this machine that has mmdebstrap and what ordinary users need for it, such a user, and one who has sudo instead."""
    with overlaid() as view:
        wanted = (*os_image.PACKAGES, *os_image.HELPERS, "sudo")
        view.run(f"from torchstrata.host import apt; apt.install({wanted}, print, unless=lambda: False)")
        view.add_user()
        view.root("useradd", "--create-home", "--home-dir", view.scratch / "helper", "helper")
        view.root("sh", "-c", "sed -i /helper/d /etc/subuid /etc/subgid && echo 'helper ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/helper")
        yield view


@pytest.fixture(scope="module")
def made_by_root(machine: Overlaid) -> str:
    """Give what root makes: digests of the layer, unpacked and compressed."""
    way, made = machine.run(MAKE, f"{machine.scratch}/root-store")[-2:]
    assert way == "root"
    return made


@pytest.fixture(scope="module")
def image(machine: Overlaid, made_by_root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the reference, by digest, of a minimal image of Debian that only a registry on loopback has."""
    digest = made_by_root.split()[1].removeprefix("sha256:")
    blob = f"{machine.scratch}/root-store/blobs/sha256/{digest}"
    work = tmp_path_factory.mktemp("image")
    (work / "Dockerfile").write_text(DOCKERFILE)
    with subprocess.Popen([*machine.enter, "cat", blob], stdout=subprocess.PIPE) as layer, (work / "os.tar").open("wb") as tar:
        assert layer.stdout is not None
        zstandard.ZstdDecompressor().copy_stream(layer.stdout, tar)
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        name = f"{served.host}/debian:trixie"
        subprocess.run(["docker", "build", "--quiet", "--tag", name, work], check=True, capture_output=True)
        subprocess.run(["docker", "push", "--quiet", name], check=True, capture_output=True)
        reference = f"{served.host}/debian@{served.tags('debian')['trixie']}"
        subprocess.run(["docker", "image", "rm", "--force", name, reference], check=True, capture_output=True)
        yield reference
        subprocess.run(["docker", "image", "rm", "--force", reference], check=False, capture_output=True)


def test_ordinary_user_makes_the_same_layer(machine: Overlaid, made_by_root: str) -> None:
    """In user namespaces, with a store that other users cannot enter and a strict umask, not one byte differs."""
    way, made = machine.run(f"import os; os.umask(0o077)\n{MAKE}", f"{machine.scratch}/tester/store", user="tester")[-2:]
    assert way == "unshare"
    assert made == made_by_root


def test_container_makes_the_same_layer(machine: Overlaid, made_by_root: str, image: str) -> None:
    """In a container that may neither mount nor gain rights, with another mmdebstrap than this machine's, not one byte differs.

    The engine does not see the files of this view, as one on another machine would not.
    """
    way, made = machine.run(MAKE, f"{machine.scratch}/contained-store", env={os_image.CONTAINER_VARIABLE: image})[-2:]
    assert way == image
    assert made == made_by_root


@pytest.mark.parametrize(("way", "user"), [("root", "root"), ("unshare", "tester"), ("sudo", "helper"), ("container", "root")])
def test_package_is_the_same_by_every_way(machine: Overlaid, request: pytest.FixtureRequest, way: str, user: str) -> None:
    """What the compiler of CUDA is fetched by works for everybody, too."""
    env = {os_image.CONTAINER_VARIABLE: request.getfixturevalue("image")} if way == "container" else {}
    expected = machine.run(FETCH)[-1]
    assert expected.startswith("hello_")
    lines = machine.run(FETCH, user=user, env=env)
    assert lines[-1] == expected
    assert ("using sudo, which asks for no password" in lines[0]) == (way == "sudo")
