"""Containers in this machine's engine that are ours: found by a label, made, started, awaited, stopped."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import docker.types
import requests
from docker.models.containers import Container

from torchstrata import platforms, progress
from torchstrata.containers import loopback
from torchstrata.containers.description import HOME, JUPYTER, KEYS_VARIABLE, LOOPBACK, ContainerDescription
from torchstrata.containers.graphics import OR_NONE, Graphics
from torchstrata.errors import (
    BusyPortError,
    ContainerError,
    DiskFullError,
    EngineError,
    NameTakenError,
    NoContainerError,
    NoGpuError,
    TorchstrataError,
    WorkspaceError,
)
from torchstrata.image.runtime import WORKSPACE
from torchstrata.machine.gpu_access import CURE
from torchstrata.progress import Step
from torchstrata.text import printable

LABEL: Final = "torchstrata.up"
"""Label of our containers; its value is the user of the host who wanted one."""

OF_RUN: Final = "torchstrata.up.run"
"""Label with the process that has made a container: what it undoes is its own."""

OF_TAG: Final = "torchstrata.up.image"
"""Label with the name that the image was asked for by."""

OF_SERVICES: Final = "torchstrata.up.services"
"""Label with name and scheme of each service by its port in the container, as JSON."""

OF_IDENTITY: Final = "torchstrata.up.identity"
"""Label with the file by which ssh finds the private key of the public one that was asked for; empty where it looks by itself."""

TOKEN: Final = "/run/secrets/jupyter-token"  # noqa: S105  # its file
STOP_SECONDS: Final = 15
PAUSE: Final = 0.2
"""Seconds between two questions how a container is."""

HALF_MADE: Final = "created"
"""State of a container that was never started: a run was killed before."""

NO_SPACE: Final = "no space left on device"

BY_HAND: Final = "to see all that it says, start it by hand: inv up --print gives the line"
OTHER_PORT: Final = "end what listens there, or take another: --port SERVICE=PORT"

LAST_LINES: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A container that somebody wants.

    :param tag: the name that the image was asked for by.
    :param identity: the image's ID in the engine.
    :param owner: user of the host.
    :param token: file with Jupyter's token.
    :param ports: port of this machine by service, where that was asked for.
    :param run: what tells this process from others.
    :param limits: those of the description that the engine may set.
    :param address: where the ports are to be, where that was asked for.
    :param shm: bytes of ``/dev/shm``, where that was asked for.
    :param identity_file: by which ssh finds the private key, where a key was asked for.
    :param needs_ssh: somebody has asked for what only a container with SSH has.
    """

    description: ContainerDescription
    tag: str
    identity: str
    owner: str
    graphics: Graphics
    token: Path
    ports: Mapping[str, int]
    run: str
    limits: Mapping[str, int]
    address: str | None = None
    shm: int | None = None
    identity_file: str = ""
    needs_ssh: bool = False

    @property
    def secret(self) -> bool:
        """Whether the container has a service that wants a token."""
        return any(each.name == JUPYTER for each in self.description.endpoints)


class LimitsRefused(ContainerError):
    """The engine may not give a container the limits that it was asked for: it runs in a container itself, or without root."""


@contextlib.contextmanager
def refusals(description: ContainerDescription | None = None) -> Iterator[None]:
    """Let what the engine refuses be an error of ours, by what is the matter."""
    try:
        yield
    except docker.errors.APIError as error:
        raise _refusal(str(error.explanation or error), description) from error
    except (requests.RequestException, docker.errors.DockerException) as error:
        raise EngineError("the engine does not answer any more", fix="start it, and try again") from error


REFUSALS: Final[tuple[tuple[str, type[TorchstrataError], str, str], ...]] = (
    (NO_SPACE, DiskFullError, "the engine's disk is full", "free space (docker system prune, inv cache --prune), and try again"),
    ("port is already allocated", BusyPortError, "a port is taken", OTHER_PORT),
    ("address already in use", BusyPortError, "a port is taken", OTHER_PORT),
    ("select device driver", NoGpuError, "the engine cannot hand GPUs to containers", CURE + OR_NONE),
    ("CDI", NoGpuError, "the engine cannot hand GPUs to containers", CURE + OR_NONE),
    ("nvidia-container", NoGpuError, "the engine cannot hand GPUs to containers", CURE + OR_NONE),
    ("setting rlimit", LimitsRefused, "the engine may not set limits", "let the engine run with CAP_SYS_RESOURCE"),
    ("bind source path does not exist", WorkspaceError, "a directory of the container is gone", "make it again, or inv up --replace with another"),
)
"""Words in what an engine says, the error that they are, what is wrong, and the cure."""


def _refusal(cause: str, description: ContainerDescription | None) -> TorchstrataError:
    said = printable(cause, 300)
    if "is already in use by container" in cause and description:
        return taken(description.name)
    for words, kind, what, fix in REFUSALS:
        if words in cause:
            return kind(f"{what}: {said}", fix=fix)
    return ContainerError(f"the engine refused a container: {said}", fix="read the line; `docker info` shows whether the engine is well")


def taken(name: str) -> NameTakenError:
    """Return the error about a name that somebody else's container has."""
    fix = f"take another name: --name NAME; or docker rm --force {name}, if nobody needs it"
    return NameTakenError(f"the engine has a container {name} that inv up has not made", fix=fix)


class Containers:
    """Our containers in an engine."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    def own(self) -> tuple[Container, ...]:
        """Return them, by name."""
        with refusals():
            found = self.client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        return tuple(sorted(found, key=lambda each: str(each.name)))

    def find(self, name: str) -> Container | None:
        """Return the container of a name.

        :raises NameTakenError: it is not ours.
        """
        with refusals():
            try:
                found = self.client.containers.get(name)
            except docker.errors.NotFound:
                return None
        if LABEL not in found.labels or found.name != name:
            raise taken(name)
        return found

    def choose(self, name: str | None) -> Container:
        """Return the container of a name; without one the only one that runs, or that there is.

        :raises NoContainerError: there is none, or several.
        """
        if name is not None:
            found = self._ours(name)
            if found is None:
                known = ", ".join(str(each.name) for each in self.own())
                raise NoContainerError(f"there is no container {printable(name, 60)}", fix=f"there are: {known}" if known else "start one: inv up")
            return found
        own = self.own()
        chosen = [each for each in own if each.status == "running"] or list(own)
        if len(chosen) != 1:
            names = ", ".join(str(each.name) for each in chosen)
            raise NoContainerError(
                "there are several containers" if chosen else "there is no container", fix=f"name one: {names}" if chosen else "start one: inv up"
            )
        return chosen[0]

    def _ours(self, name: str) -> Container | None:
        try:
            return self.find(name)
        except NameTakenError as error:
            fix = f"use docker itself: docker logs, docker exec or docker stop {name}; inv ps shows what inv up has made"
            raise NameTakenError(error.what, fix=fix) from error

    def published(self) -> set[int]:
        """Return the ports of this machine that running containers have, though their engine may hold them by rules of the firewall alone."""
        with refusals():
            listed = self.client.api.containers()
        return {int(port["PublicPort"]) for each in listed for port in each.get("Ports") or () if "PublicPort" in port}

    def create(self, order: Order) -> Container:
        """Make a container, not started yet."""
        with refusals(order.description):
            return self.client.containers.create(**_request(order))

    def state(self, container: Container) -> str:
        """Return how a container is, and whether the name of its image means another one now."""
        health = (container.attrs["State"].get("Health") or {}).get("Status")
        state = f"{container.status}, {health}" if container.status == "running" and health else container.status
        with refusals():
            try:
                now = self.client.images.get(container.labels[OF_TAG]).id
            except docker.errors.ImageNotFound:
                return state
        return state if now == container.attrs["Image"] else f"{state}, of an older image"

    def made_by(self, run: str) -> tuple[Container, ...]:
        """Return what a process has made."""
        with refusals():
            found = self.client.containers.list(all=True, filters={"label": f"{OF_RUN}={run}"}, ignore_removed=True)
        return tuple(found)

    def has_volume(self, name: str) -> bool:
        """Return whether there is a volume."""
        with refusals():
            try:
                self.client.volumes.get(name)
            except docker.errors.NotFound:
                return False
        return True

    def discard_volume(self, name: str) -> None:
        """Remove a volume that was made a moment ago, and that nobody uses."""
        with refusals(), contextlib.suppress(docker.errors.NotFound):
            self.client.volumes.get(name).remove()


def _request(order: Order) -> dict[str, Any]:
    """Return what the engine's interface is asked for."""
    wanted = order.description
    gpus = order.graphics.request(wanted.gpus) if wanted.gpus else {}
    return gpus | {
        "image": wanted.image,
        "platform": platforms.foreign(wanted.platform),
        "name": wanted.name,
        "user": wanted.user,
        "environment": gpus.get("environment", {}) | wanted.environment | ({"JUPYTER_TOKEN_FILE": TOKEN} if order.secret else {}),
        "labels": {LABEL: order.owner, OF_TAG: order.tag, OF_RUN: order.run, OF_SERVICES: _services(wanted), OF_IDENTITY: order.identity_file},
        "ports": {f"{each.port}/tcp": (wanted.address, each.published) for each in wanted.endpoints},
        "mounts": [
            docker.types.Mount(WORKSPACE, wanted.workspace, type="bind"),
            docker.types.Mount(HOME, wanted.volume, type="volume"),
            *([docker.types.Mount(TOKEN, str(order.token), type="bind", read_only=True)] if order.secret else []),
        ],
        "shm_size": wanted.shm,
        "ulimits": [docker.types.Ulimit(name=name, soft=value, hard=value) for name, value in order.limits.items()],
        "tty": wanted.is_interactive,
        "stdin_open": wanted.is_interactive,
    }


def _services(wanted: ContainerDescription) -> str:
    return json.dumps({each.port: [each.name, each.scheme] for each in wanted.endpoints})


def start(container: Container) -> None:
    """Start a container, or let one that is paused go on.

    :raises BusyPortError: one of its ports is taken.
    """
    try:
        with refusals():
            (container.unpause if container.status == "paused" else container.start)()
    except BusyPortError as error:
        for each in bindings(container):
            if re.search(rf":{each.published}\b", error.what):
                raise loopback.busy(each.address, each.published, each.name) from error
        raise


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """A port of this machine that leads to a service of a container; ``scheme`` is that of its URL."""

    name: str
    address: str
    published: int
    scheme: str = ""

    @property
    def reachable(self) -> str:
        """The address by which this machine itself reaches it."""
        return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.address, self.address)  # noqa: S104  # all addresses, loopback among them


def bindings(container: Container) -> tuple[Binding, ...]:
    """Return the ports of this machine that a container has, or would have if it ran."""
    found = container.attrs["HostConfig"].get("PortBindings") or {}
    names = json.loads(container.labels.get(OF_SERVICES, "{}"))
    pairs = ((names.get(port.removesuffix("/tcp"), [port, ""]), each) for port, bound in found.items() for each in bound)
    made = (Binding(name=name, address=each["HostIp"], published=int(each["HostPort"]), scheme=scheme) for (name, scheme), each in pairs)
    return tuple(sorted(made, key=lambda each: each.name))


def source(container: Container, target: str) -> str:
    """Return the directory or file of the host that is mounted somewhere in a container; empty if none is."""
    return next((str(mount["Source"]) for mount in container.attrs["Mounts"] if mount["Destination"] == target), "")


def authorized(container: Container) -> tuple[str, ...]:
    """Return the public keys that a container was made with."""
    variables = dict(variable.partition("=")[::2] for variable in container.attrs["Config"].get("Env") or ())
    return tuple(variables.get(KEYS_VARIABLE, "").splitlines())


def identity_file(container: Container) -> str:
    """Return the file by which ssh finds the key that a container was made with; empty where ssh looks by itself."""
    return container.labels.get(OF_IDENTITY, "")


def text_of(container: Container, path: str) -> str | None:
    """Return the text of a file in a container that runs; ``None`` if it cannot be read."""
    with refusals():
        status, output = container.exec_run(["cat", path], user=str(container.attrs["Config"]["User"]))
    assert isinstance(output, bytes)  # no stream was asked for
    return output.decode(errors="replace") if status == 0 else None


def wait(container: Container, seconds: float, step: Step) -> None:
    """Wait until the services of a container answer.

    :raises ContainerError: it ended before, or takes longer.
    """
    deadline = time.monotonic() + seconds
    while (state := _state(container)) != "healthy":
        if container.status not in {"running", "created"}:
            raise ContainerError(f"{container.name} ended before it was ready: {last_line(container)}", fix=BY_HAND)
        if time.monotonic() > deadline:
            raise ContainerError(f"{container.name} is not ready after {seconds:g} s: {last_line(container)}", fix="give it more time: --wait SECONDS")
        step.note(state)
        time.sleep(PAUSE)


def _state(container: Container) -> str:
    """Return how a container is: ``healthy``, or what else it is."""
    with refusals():
        container.reload()
    health = container.attrs["State"].get("Health")
    return str(health["Status"]) if health else {"running": "healthy"}.get(container.status, container.status)


def last_line(container: Container) -> str:
    """Return the last line that a container has printed."""
    with refusals():
        lines = b"".join(container.logs(tail=LAST_LINES, stream=True, follow=False)).decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing"), 300)


def stop(container: Container) -> None:
    """Stop a container; it stays, with all that is in it."""
    waits = f"waiting until {container.name} has ended, {STOP_SECONDS} s at most: then it is killed"
    with refusals(), progress.overdue(waits):
        container.stop(timeout=STOP_SECONDS)


def rename(container: Container, name: str) -> None:
    """Give a container another name."""
    with refusals():
        container.rename(name)
        container.reload()


def remove(container: Container) -> None:
    """Remove a container, running or not; its workspace and volumes stay."""
    with refusals(), contextlib.suppress(docker.errors.NotFound):
        container.remove(force=True, v=False)
