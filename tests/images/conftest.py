"""What tests of images share: the image or machine under test, what it must be, and containers that are always removed.

``--image`` names an image, ``--hosts`` a machine that is not a container. An image of a flavour runs the directories of its
parents and its own. Tests that do not apply are left out, never skipped: markers say what to.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import testinfra
from testinfra.host import Host

from tests.images.boxes import CLIENTS, Box, Result, ssh_options, starting
from torchstrata import matrix
from torchstrata.errors import TorchstrataError
from torchstrata.verification import Expectation

HERE = Path(__file__).parent
PYTHON = "/opt/venv/bin/python"
CONTAINER_FIXTURES = {"engine", "image", "inspect", "start", "start_shared", "client"}
"""Who uses one of them needs a container engine."""

MARKERS = {
    "gpu": "needs a GPU",
    "cuda": "applies to cells with CUDA only",
    "vision": "applies to cells with torchvision only",
    "container": "needs a container, not just a machine",
}
RUN_PROBE = f'd=$(mktemp -d) && trap "rm -rf $d" EXIT && printf %s "$1" | base64 -d >"$d/$2" && f=$d/$2 && shift 2 && {PYTHON} "$f" "$@"'


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say what is tested, and against what."""
    group = parser.getgroup("images", "the image or machine under test")
    group.addoption("--image", metavar="REF", help="image under test: any name or digest that the engine has")
    group.addoption("--cell", metavar="CELL", help="the cell that it must be (default: the one that its label claims)")
    group.addoption("--flavour", metavar="FLAVOUR", help="the flavour that it must be (default: the one that its label claims)")
    group.addoption("--gpu", choices=("auto", "required", "none"), default="auto", help="whether to run the tests that need a GPU (default: if there is one)")


def pytest_configure(config: pytest.Config) -> None:
    """Find out what is tested, before any test is collected."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if config.option.help or config.option.markers:
        return
    try:
        config.stash[EXPECTED] = _expectation(config)
    except TorchstrataError as error:
        pytest.exit(str(error), returncode=error.code)


EXPECTED = pytest.StashKey[Expectation]()


def _expectation(config: pytest.Config) -> Expectation:
    """Return what the image must be; its own labels only say what it claims to be."""
    labels = {} if config.option.cell and config.option.flavour else _labels(config)
    cell, flavour = config.option.cell or labels.get("torchstrata.cell"), config.option.flavour or labels.get("torchstrata.flavour")
    if not cell or not flavour:
        raise pytest.UsageError("name an image of ours with --image, or say with --cell and --flavour what is tested")
    table = matrix.load()
    table.chain(flavour)
    return Expectation(cell=matrix.select(table, cell)[0], flavour=flavour)


def _labels(config: pytest.Config) -> dict[str, str]:
    if not config.option.image:
        return {}
    with contextlib.closing(docker.from_env()) as engine:
        return dict(engine.images.get(config.option.image).labels)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the flavours that the image does not contain."""
    others = set(matrix.load().flavours) - set(config.stash[EXPECTED].chain)
    return True if collection_path.parent == HERE and collection_path.name in others else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply."""
    absent = _absent(config)
    for item in items:
        if CONTAINER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("container")
        if HERE / "gpu" in item.path.parents:
            item.add_marker("gpu")
    left_out = [item for item in items if absent & {mark.name for mark in item.iter_markers()}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _absent(config: pytest.Config) -> set[str]:
    """Return the markers of what the subject does not have."""
    expected = config.stash[EXPECTED]
    has = {
        "gpu": config.option.gpu == "required",
        "cuda": expected.facts.cuda_version is not None,
        "vision": expected.has_vision,
        "container": not _is_machine(config),
    }
    return {name for name, there in has.items() if not there}


def _is_machine(config: pytest.Config) -> bool:
    return bool(config.option.hosts)


@pytest.fixture(scope="session")
def expected(request: pytest.FixtureRequest) -> Expectation:
    """What the subject must be."""
    return request.config.stash[EXPECTED]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The container engine."""
    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> str:
    """The image under test."""
    return str(request.config.option.image)


@pytest.fixture(scope="session")
def inspect(engine: docker.DockerClient, image: str) -> dict[str, Any]:
    """What ``docker image inspect`` says of the image."""
    found: dict[str, Any] = engine.images.get(image).attrs
    return found


@pytest.fixture(scope="session")
def labels() -> dict[str, str]:
    """The labels of the containers that this run starts."""
    return {"torchstrata.verification": f"{socket.gethostname()}:{os.getpid()}"}


@pytest.fixture
def start(engine: docker.DockerClient, image: str, labels: dict[str, str]) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the test."""
    with starting(engine, image, labels) as function:
        yield function


@pytest.fixture(scope="module")
def start_shared(engine: docker.DockerClient, image: str, labels: dict[str, str]) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the module's tests."""
    with starting(engine, image, labels) as function:
        yield function


@pytest.fixture(scope="session")
def shared(engine: docker.DockerClient, image: str, labels: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Box]:
    """One container without a network, for all tests that only read."""
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if "gpu" not in _absent(request.config) else []
    with starting(engine, image, labels) as function:
        yield function("sleep", "infinity", network_mode="none", shm_size="1g", device_requests=gpus)


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """The machine of ``--hosts``, or a container of the image; for reading only."""
    if _is_machine(request.config):
        return testinfra.get_host(request.config.option.hosts)
    return testinfra.get_host(f"docker://{request.getfixturevalue('shared').container.id}")


@pytest.fixture(scope="session")
def probe(host: Host) -> Callable[..., Any]:
    """Run a script of ``probes/`` on the host and return the JSON that it prints: ``probe("name", "argument", env={...})``."""

    def run(name: str, *arguments: str, env: dict[str, str] | None = None) -> Any:
        script = base64.b64encode((HERE / "probes" / f"{name}.py").read_bytes()).decode()
        variables = (f"{key}={value}" for key, value in (env or {}).items())
        words = ("env", *variables, "sh", "-c", RUN_PROBE, "sh", script, f"{name}.py", *arguments)
        done = host.run(shlex.join(words))
        assert done.rc == 0, f"probe {name} failed with status {done.rc}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def gpus(host: Host) -> int:
    """The number of GPUs that the host has."""
    return len(host.check_output("nvidia-smi -L").splitlines())


@pytest.fixture(scope="session")
def client(engine: docker.DockerClient, image: str, labels: dict[str, str]) -> Iterator[Box]:
    """A second container, from which services are used over the network."""
    with starting(engine, image, labels) as function:
        yield function("sleep", "infinity")


@pytest.fixture(scope="session")
def public_key(client: Box) -> str:
    """The public key that belongs to the client's good key; only images with SSH have what makes it."""
    for kind in ("good", "bad"):
        assert client.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/tmp/{kind}").status == 0
    return client.run("cat", "/tmp/good.pub").out.strip()


@pytest.fixture(scope="session")
def ssh(client: Box, public_key: str) -> Callable[..., Result]:
    """Run ``ssh`` from the client: ``ssh(box, "command", options=[...])``."""

    def connect(box: Box, *command: str, options: tuple[str, ...] = (), key: str = "good", port: int = 22, stdin: bytes | None = None) -> Result:
        return client.run("ssh", *ssh_options(key), "-p", str(port), *options, f"dev@{box.address}", *command, stdin=stdin)

    return connect


@pytest.fixture(scope="session")
def notebook(client: Box) -> Callable[..., Result]:
    """Use Jupyter from the client: ``notebook(box, token, "kernel", "print(1)")`` or ``"terminal", "echo 1"``."""

    def use(box: Box, token: str, what: str, code: str) -> Result:
        script = (CLIENTS / "notebook.py").read_bytes()
        return client.run("/opt/venv/bin/python", "-", f"http://{box.address}:8888/", token, what, code, stdin=script)

    return use


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A directory of the host to mount at /workspace, owned by uid and gid 1234."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    os.chown(directory, 1234, 1234)
    return directory


@pytest.fixture
def volume(engine: docker.DockerClient) -> Iterator[str]:
    """A named volume, removed at the end."""
    made = engine.volumes.create()
    yield str(made.name)
    with contextlib.suppress(docker.errors.APIError):
        made.remove(force=True)
