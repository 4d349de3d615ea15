"""Fixtures for tests of running containers: every container that a test starts is removed, whatever happens.

``--image`` names the image under test, of the largest flavour by default. Tests that only read share containers; tests that
change something start their own with ``start``.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.models.containers
import pytest

CLIENTS = Path(__file__).parent / "clients"
PATIENCE = 40.0
"""Seconds until something that takes a moment counts as not happening; machines of CI are slow."""

READY = "JupyterLab is ready"
SSH_READY = "SSH is ready"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the image."""
    parser.addoption("--image", default=os.environ.get("TORCHSTRATA_TEST_IMAGE", "pytorch-cuda:2.8-cu121-ssh"), help="image under test, of flavour ssh")


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


class Box:
    """A container under test."""

    def __init__(self, container: docker.models.containers.Container) -> None:
        self.container = container

    @property
    def address(self) -> str:
        """Its address on the engine's network."""
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    @property
    def log(self) -> str:
        """Everything that it has printed."""
        return self.container.logs().decode(errors="replace")

    @property
    def errors(self) -> str:
        """What it has printed on standard error: the lines of its start."""
        return self.container.logs(stdout=False).decode(errors="replace")

    @property
    def token(self) -> str:
        """The token that its log shows."""
        return self.log.split("?token=")[1].split()[0]

    def run(self, *command: str, user: str = "", env: dict[str, str] | None = None, stdin: bytes | None = None) -> Result:
        """Run a command in it, as ``docker exec`` does."""
        if stdin is not None:
            self.put("/tmp/stdin", stdin)
            command = ("sh", "-c", 'exec "$@" </tmp/stdin', "sh", *command)
        status, (out, err) = self.container.exec_run(list(command), user=user, environment=env, demux=True)
        return Result(status, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))

    def put(self, path: str, content: bytes, *, mode: int = 0o644, owner: int = 1000) -> None:
        """Write a file into it."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(Path(path).name)
            member.size, member.mode, member.uid = len(content), mode, owner
            archive.addfile(member, io.BytesIO(content))
        self.container.put_archive(str(Path(path).parent), buffer.getvalue())

    def wait_for(self, text: str, *, seconds: float = PATIENCE) -> str:
        """Return the log once it contains ``text``."""
        until(lambda: text in self.log or not self.alive, seconds)
        assert text in self.log, f"{text!r} is not in the log:\n{self.log}"
        return self.log

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        self.container.reload()
        return str(self.container.status) in {"created", "running"}

    def ended(self, *, seconds: float = PATIENCE) -> int:
        """Wait for its end and return its exit status."""
        return int(self.container.wait(timeout=seconds)["StatusCode"])


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    """Wait until ``condition`` holds; return whether it came to that."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The container engine."""
    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> str:
    """The image under test."""
    return str(request.config.getoption("--image"))


@contextlib.contextmanager
def starting(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Give a function that starts containers, and remove them all at the end."""
    boxes: list[Box] = []

    def start(*command: str, **options: Any) -> Box:
        options = {"shm_size": "256m", "user": "1000:0"} | options
        container = engine.containers.create(options.pop("image", image), list(command) or None, **options)
        boxes.append(Box(container))
        container.start()
        return boxes[-1]

    try:
        yield start
    finally:
        for box in boxes:
            with contextlib.suppress(docker.errors.NotFound):
                box.container.remove(force=True, v=True)


@pytest.fixture
def start(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the test."""
    with starting(engine, image) as function:
        yield function


@pytest.fixture(scope="module")
def start_shared(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the module's tests."""
    with starting(engine, image) as function:
        yield function


@pytest.fixture(scope="session")
def client(engine: docker.DockerClient, image: str) -> Iterator[Box]:
    """A second container, from which services are used over the network."""
    with starting(engine, image) as function:
        box = function("sleep", "infinity")
        for kind in ("good", "bad"):
            assert box.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/tmp/{kind}").status == 0
        yield box


@pytest.fixture(scope="session")
def public_key(client: Box) -> str:
    """The public key that belongs to the client's good key."""
    return client.run("cat", "/tmp/good.pub").out.strip()


@pytest.fixture(scope="session")
def ssh(client: Box) -> Callable[..., Result]:
    """Run ``ssh`` from the client: ``ssh(box, "command", options=[...])``."""

    def connect(box: Box, *command: str, options: tuple[str, ...] = (), key: str = "good", port: int = 22, stdin: bytes | None = None) -> Result:
        return client.run("ssh", *ssh_options(key), "-p", str(port), *options, f"dev@{box.address}", *command, stdin=stdin)

    return connect


def ssh_options(key: str = "good") -> tuple[str, ...]:
    """Return options of ssh, scp and sftp that need no answer from a person."""
    settings = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=5")
    return ("-i", f"/tmp/{key}", *(word for setting in settings for word in ("-o", setting)))


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


def mounted(directory: Path, target: str = "/workspace", mode: str = "rw") -> dict[str, dict[str, str]]:
    """Return the ``volumes`` option that mounts ``directory``."""
    return {str(directory): {"bind": target, "mode": mode}}


@pytest.fixture
def volume(engine: docker.DockerClient) -> Iterator[str]:
    """A named volume, removed at the end."""
    made = engine.volumes.create()
    yield str(made.name)
    with contextlib.suppress(docker.errors.APIError):
        made.remove(force=True)
