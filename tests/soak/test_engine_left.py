"""Builds that die while the engine works for them: the next one removes containers and images that they have left there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import docker
import pytest

from tests.checkout import Running
from tests.waiting import until
from torchstrata import errors
from torchstrata.matrix.matrix import ROOT
from torchstrata.store.store import Store


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """Connect to the engine."""
    found = docker.from_env()
    yield found
    found.close()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory for a store and for temporary files."""
    found = tmp_path_factory.mktemp("engine")
    (found / "tmp").mkdir()
    return found


def start(work: Path) -> Running:
    """Start a build that compiles; the wheel lies beside the store."""
    env = {**os.environ, "TORCHSTRATA_CACHE": str(work / "store"), "TMPDIR": str(work / "tmp")}
    wheels = {"PIP_FIND_LINKS": str(work), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    return Running.start([sys.executable, "-m", "tests.soak.compiled", str(Store.open().root), str(work)], cwd=ROOT, env={**env, **wheels})


def ours(client: docker.DockerClient) -> set[str]:
    """Return names of containers and images in the engine that builds make for themselves."""
    images = set(chain.from_iterable(image.tags for image in client.images.list("torchstrata-os")))
    return images | {container.name for container in client.containers.list(all=True, ignore_removed=True) if container.name.startswith("torchstrata-")}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_that_dies_while_python_is_compiled(work: Path, client: docker.DockerClient, number: signal.Signals) -> None:
    """Who is asked to end leaves nothing; of a killed build the next one removes container and image before it begins."""
    before = ours(client)
    with start(work) as running:
        running.wait_for(lambda: {name for name in ours(client) - before if name.startswith("torchstrata-") and ":" not in name}, "a container that compiles")
        running.process.send_signal(number)
        ended = running.ended()
    assert "Traceback" not in ended.output
    assert ended.status == (-signal.SIGKILL if number == signal.SIGKILL else errors.INTERRUPTED), ended.output
    left = ours(client) - before
    print(f"{number.name}: left in the engine before the next run: {sorted(left)}")
    assert bool(left) == (number == signal.SIGKILL)
    Store(work / "store").scratch()
    until(
        lambda: not ours(client) - before, "what was left to go", state=lambda: subprocess.run(["docker", "ps", "-a"], capture_output=True, check=False).stdout
    )
