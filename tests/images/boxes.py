"""Containers under test: starting, using and removing them."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import docker.models.containers

from tests.waiting import PATIENCE, Found, until
from torchstrata import platforms
from torchstrata.matrix.flavours import Service
from torchstrata.verification import leftovers

CLIENTS: Final = Path(__file__).parent / "clients"
PROBES: Final = CLIENTS.with_name("probes")
COMPILES_ALONE: Final = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""For what compiles one function: torch's compiler then starts no second process, which would import torch for nothing (7 s of CPU)."""

VECTORS_KNOWN: Final = {"TORCHINDUCTOR_VEC_ISA_OK": "1"}
"""For what need not see that torch's compiler tries out whether vector code compiles here (7 s of CPU): the doctor on ``base`` does."""

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1"}
"""For what trains beside other tests: torch's threads wait for each other by spinning. The notebook took 97 s with two, 25 s with one."""

GRACE: Final = {"QEMU_CPU": "neoverse-n2"}
"""For what torch compiles where it is emulated: a CPU with vectors of 128 bits, as Grace's. QEMU's own has such of 512, for which torch makes
wrong code (docs/arm64.md)."""

EMULATED: Final = 6
"""How much longer things may take where the programs of an image are emulated: there a start of Python takes ten times as long."""

PROBED: Final[dict[str, Any]] = {"healthcheck": None}
"""Option of a container whose health the engine asks for, as of users' containers; of others nobody would read the answers."""

LEADS: Final = 'test "$(cat /proc/1/comm)" = tini && ps -o pid=,pgid= --ppid 1 | { read -r pid group; test "$pid" = "$group"; }'
"""Whether the child of the init is in a group of its own, which it makes itself, a moment after the init has become able to take signals."""

READY: Final = "JupyterLab is ready"
SSH_READY: Final = "SSH is ready"

PUBLIC_KEY: Final = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
"""A key, without which SSH stays off; nobody has the other half."""

LOCKED: Final[dict[str, dict[str, Any]]] = {
    "read-only": {"read_only": True, "tmpfs": {"/tmp": "mode=1777"}},
    "no capabilities": {"cap_drop": ["ALL"]},
    "no new privileges": {"security_opt": ["no-new-privileges"]},
    "no network": {"network_mode": "none"},
}
LOCKED["all at once"] = {name: value for options in list(LOCKED.values()) for name, value in options.items()}
"""Options of containers on locked-down hosts: every restriction that a policy may ask for."""


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

    def wait_for(self, text: str) -> str:
        """Return the log once it contains ``text``."""
        self.until(lambda: text in self.log, f"{text!r} in the log")
        return self.log

    def has_begun(self) -> bool:
        """Wait until its start is over, and what the init has started leads the group to which it passes signals: before, tini loses them."""
        return self.until(lambda: self.run("sh", "-c", LEADS).status == 0, "the init and its child")

    def is_healthy(self) -> bool:
        """Wait until it is healthy for the engine."""
        return self.until(lambda: self._health() == "healthy", "health")

    def until(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait until something is true of it while it lives; return what ``condition`` returns."""
        return until(condition, what, alive=lambda: self.alive, state=lambda: self.log, within=self._patience)

    @functools.cached_property
    def _patience(self) -> float:
        platform = f"linux/{self.container.image.attrs['Architecture']}"
        return PATIENCE if platforms.is_native(platform) else PATIENCE * EMULATED

    def _health(self) -> str:
        self.container.reload()
        return str(self.container.attrs["State"]["Health"]["Status"])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        self.container.reload()
        return str(self.container.status) in {"created", "running"}

    def ended(self) -> int:
        """Wait for its end and return its exit status."""
        return int(self.container.wait(timeout=PATIENCE)["StatusCode"])


def stop(box: Box) -> int:
    """Stop the container as ``docker stop`` does and return its exit status: 137 if the engine had to kill it.

    The engine waits long. What a stop itself waits for is in tests/unit/container/test_runtime_supervisor.py, how fast it is in bench/start.py.
    """
    box.container.stop(timeout=int(PATIENCE))
    return box.ended()


@contextlib.contextmanager
def starting(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Give a function that starts containers, and remove them all at the end."""
    boxes: list[Box] = []

    def start(*command: str, **options: Any) -> Box:
        options = {"shm_size": "256m", "user": "1000:0", "labels": leftovers.labels(), "healthcheck": {"test": ["NONE"]}} | options
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


def serving(start: Callable[..., Box], services: Sequence[Service], **options: Any) -> Box:
    """Start a container with all services of its image, those that wait to be asked too, until they answer; one that sleeps where there are none.

    :param services: the image's, as its flavours have them.
    """
    names = " ".join(service.name for service in services)
    environment = {"SSH_PUBLIC_KEY": PUBLIC_KEY} | ({"TORCHSTRATA_SERVICES": names} if names else {})
    box = start(*([] if names else ["sleep", "infinity"]), environment=environment, **options)
    for service in services:
        box.wait_for((service.ready or f"{service.name} is ready").partition("{")[0])
    return box


def refuses(box: Box, name: str, value: str) -> None:
    """Make sure that a start in a container does nothing where a variable has a value that it cannot have, and quotes no secret."""
    done = box.run("torchstrata-entrypoint", "touch", f"/tmp/{name}", env={name: value})
    (line,) = done.err.splitlines()
    assert (done.status, line.isprintable()) == (78, True)
    assert line.startswith(f"torchstrata: {name}")
    assert "sesame" not in line
    assert box.run("test", "-e", f"/tmp/{name}").status == 1


@contextlib.contextmanager
def deriving(engine: docker.DockerClient, image: str, nothing: Path) -> Iterator[Callable[..., str]]:
    """Give a function that builds images over ``image``, which a Dockerfile calls IMAGE, and remove them all at the end.

    What is built from has a tag: BuildKit takes no digest as a name.

    :param nothing: an empty directory, the context of builds that ask for none.
    """
    tags: list[str] = []

    def tag() -> str:
        tags.append(f"torchstrata-derived:{secrets.token_hex(8)}")
        return tags[-1]

    def derive(text: str, *, base: str = image, context: Path = nothing) -> str:
        if base.startswith("sha256:"):
            engine.images.get(base).tag(tag())
            base = tags[-1]
        (context / "Dockerfile").write_text(text.replace("IMAGE", base), encoding="utf-8")
        marks = [f"--label={name}={value}" for name, value in leftovers.labels().items()]
        words = ("docker", "build", "--quiet", "--no-cache", "--network=none", *marks, "--tag", tag(), str(context))
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return tags[-1]

    try:
        yield derive
    finally:
        for name in reversed(tags):
            with contextlib.suppress(docker.errors.ImageNotFound):
                engine.images.remove(name, force=True)


def ssh_options(key: str = "good") -> tuple[str, ...]:
    """Return options of ssh, scp and sftp that need no answer from a person."""
    settings = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        f"ConnectTimeout={PATIENCE:.0f}",
    )
    return ("-i", f"/tmp/{key}", *(word for setting in settings for word in ("-o", setting)))


def mounted(directory: Path, target: str = "/workspace", mode: str = "rw") -> dict[str, dict[str, str]]:
    """Return the ``volumes`` option that mounts ``directory``."""
    return {str(directory): {"bind": target, "mode": mode}}


def status(client: Box, url: str, *options: str) -> str:
    """Return the HTTP status of a request from the client container."""
    return client.run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20", *options, url).out
