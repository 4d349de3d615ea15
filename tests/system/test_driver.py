"""The image and NVIDIA's own driver libraries, of several releases and without a GPU behind them: what it reads out of them and says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from tests.built import MATRIX, Built
from torchstrata.nightly import os_updates

pytestmark = pytest.mark.usefixtures("own_turn")

RELEASES = {"libnvidia-tesla-470-cuda1": False, "libcuda1": True}
"""Packages of debian12 (its non-free part), and whether CUDA 12 runs on the driver that they belong to."""

IN_IMAGE = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"

INSUFFICIENT = 35
"""cudaErrorInsufficientDriver."""

AS_CUDA_SEES_IT = """\
import ctypes, json, torch
runtime = ctypes.CDLL(f"libcudart.so.{torch.version.cuda.split('.')[0]}")
version, count = ctypes.c_int(), ctypes.c_int()
assert runtime.cudaDriverGetVersion(ctypes.byref(version)) == 0
print(json.dumps({"version": version.value, "error": runtime.cudaGetDeviceCount(ctypes.byref(count))}))
"""
"""What torch's own CUDA runtime says."""


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the environment in which apt has debian12's packages that are not free, in a directory of its own."""
    (of_debian,) = os_updates.folders(tmp_path_factory.mktemp("mirrors"), {"debian12": MATRIX.systems["debian12"]})
    of_debian.offer(("base-files",))
    sources = of_debian.folder / "etc/apt/sources.list"
    sources.write_text("".join(f"{line.removesuffix('main')}non-free\n" for line in sources.read_text().splitlines() if line.endswith(" main")))
    environment = {**os.environ, "APT_CONFIG": str(of_debian.folder / "apt.conf")}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
    return environment


@pytest.fixture(params=RELEASES)
def package(request: pytest.FixtureRequest) -> str:
    """Give the package of each release."""
    return str(request.param)


@pytest.fixture
def library(apt: dict[str, str], package: str, tmp_path: Path) -> Path:
    """Give NVIDIA's ``libcuda`` of a release."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=tmp_path, env=apt, check=True)
    (archive,) = tmp_path.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", archive, tmp_path / "files"], check=True)
    (found,) = (path for path in (tmp_path / "files").rglob("libcuda.so.*.*") if not path.is_symlink())
    return found


@pytest.fixture
def container(cuda_base: Built, library: Path, tmp_path: Path) -> Iterator[Container]:
    """Run the base image as on a host with that driver, whose GPU is not there."""
    control = tmp_path / "nvidiactl"
    control.touch()
    control.chmod(0o666)
    volumes = {str(library): {"bind": IN_IMAGE, "mode": "ro"}, str(control): {"bind": "/dev/nvidiactl"}}
    run = cuda_base.client.containers.run(cuda_base.tag, ["sleep", "infinity"], detach=True, network_mode="none", volumes=volumes)
    yield run
    run.remove(force=True)


def test_the_driver_is_judged_as_cuda_judges_it(container: Container, package: str) -> None:
    """The doctor reads the version that CUDA reads, finds fault with it where CUDA does, and takes no library for a GPU."""
    cuda = _answer(container, "python", "-c", AS_CUDA_SEES_IT)
    findings = {row["subject"]: row for row in _answer(container, "torchstrata-doctor", "--quick", "--json")}
    assert (cuda["error"] != INSUFFICIENT) is RELEASES[package]
    assert findings["driver"]["severity"] == ("ok" if RELEASES[package] else "error")
    assert f"supports CUDA {cuda['version'] // 1000}.{cuda['version'] % 1000 // 10}" in findings["driver"]["what"]
    assert findings["gpu"]["what"] == "a driver is here but no GPU is visible"


def _answer(container: Container, *command: str) -> Any:
    """Return the JSON that a command prints."""
    output = container.exec_run(list(command), stderr=False).output
    assert isinstance(output, bytes)
    return json.loads(output)
