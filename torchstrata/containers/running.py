"""Our containers in this machine's engine: finds them by a label, makes, starts, awaits and stops them."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import docker.types
import requests
from docker.models.containers import Container

from torchstrata import platforms, progress
from torchstrata.building.engine import NO_SPACE
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
"""Label of our containers; its value is the host's user who wanted one."""

OF_RUN: Final = "torchstrata.up.run"
"""Label that tells which process has made a container: a process undoes only its own work."""

OF_TAG: Final = "torchstrata.up.image"
"""Label with the name by which the image was asked for."""

OF_SERVICES: Final = "torchstrata.up.services"
"""Label with name and scheme of each service by its port in the container, as JSON."""

OF_IDENTITY: Final = "torchstrata.up.identity"
"""Label with the file by which ssh finds the private key of the public one that was asked for; empty where it looks by itself."""

TOKEN: Final = "/run/secrets/jupyter-token"  # noqa: S105  # its file
STOP_SECONDS: Final = 15
PAUSE: Final = 0.2
"""Seconds between two looks at a container's state."""

HALF_MADE: Final = "created"
"""State of a container that was never started, since its run was killed before."""

OF_ALL: Final[Mapping[str, str]] = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104  # these bind nothing
"""The loopback address among all addresses of a family."""

START_ONE: Final = "start one: inv up"
BY_HAND: Final = "to see all that it says, start it by hand: inv up --print gives the line"
OTHER_PORT: Final = loopback.OTHER_PORT.format(service="SERVICE")
NO_GPUS: Final = "the engine cannot hand GPUs to containers"
PORT_TAKEN: Final = "a port is taken"

FREE_SPACE: Final = "free space (docker image prune, docker buildx prune, inv cache --prune), and try again"
OTHER_DIRECTORY: Final = "make it again, or give the same command another: --replace --workspace DIR"

LAST_LINES: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A container that somebody wants.

    :param tag: the name by which the image was asked for.
    :param identity: the image's ID in the engine.
    :param owner: user of the host.
    :param token: file with Jupyter's token.
    :param ports: port of this machine by service, as far as these were asked for.
    :param run: tells this process from others.
    :param limits: limits of the description that the engine may set.
    :param address: address of the ports, if one was asked for.
    :param shm: bytes of ``/dev/shm``, if these were asked for.
    :param identity_file: by which ssh finds the private key, if a key was asked for.
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
        return any(endpoint.name == JUPYTER for endpoint in self.description.endpoints)


class LimitsRefused(ContainerError):
    """The engine may not set a container's limits, since it runs in a container itself, or without root."""


@contextlib.contextmanager
def refusals(description: ContainerDescription | None = None) -> Iterator[None]:
    """Turn what the engine refuses into an error of ours, which says what is wrong."""
    try:
        yield
    except docker.errors.APIError as error:
        raise _refusal(str(error.explanation or error), description) from error
    except (requests.RequestException, docker.errors.DockerException) as error:
        raise EngineError("the engine does not answer any more", fix="start it, and try again") from error


REFUSALS: Final[tuple[tuple[str, type[TorchstrataError], str, str], ...]] = (
    (NO_SPACE, DiskFullError, "the engine's disk is full", FREE_SPACE),
    ("port is already allocated", BusyPortError, PORT_TAKEN, OTHER_PORT),
    ("address already in use", BusyPortError, PORT_TAKEN, OTHER_PORT),
    ("select device driver", NoGpuError, NO_GPUS, CURE + OR_NONE),
    ("CDI", NoGpuError, NO_GPUS, CURE + OR_NONE),
    ("nvidia-container", NoGpuError, NO_GPUS, CURE + OR_NONE),
    ("setting rlimit", LimitsRefused, "the engine may not set limits", "let the engine run with CAP_SYS_RESOURCE"),
    ("bind source path does not exist", WorkspaceError, "a directory of the container is gone", OTHER_DIRECTORY),
)
"""Words in what an engine says, the error that they mean, what is wrong, and the cure."""


def _refusal(cause: str, description: ContainerDescription | None) -> TorchstrataError:
    said = printable(cause, 300)
    if "is already in use by container" in cause and description:
        return taken(description.name)
    for words, kind, what, fix in REFUSALS:
        if words in cause:
            return kind(f"{what}: {said}", fix=fix)
    fix = "read the line; `docker info` shows whether the engine is well"
    return ContainerError(f"the engine refused a container: {said}", fix=fix)


def taken(name: str) -> NameTakenError:
    """Return the error about a name that a container of somebody else has."""
    fix = f"take another name: --name NAME; or docker rm --force {name}, if nobody needs it"
    return NameTakenError(f"the engine has a container {name} that inv up has not made", fix=fix)


class Containers:
    """Our containers in an engine."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    def own(self) -> tuple[Container, ...]:
        """Return our containers, sorted by name."""
        return tuple(sorted(self._labelled(LABEL), key=lambda container: str(container.name)))

    def made_by(self, run: str) -> tuple[Container, ...]:
        """Return the containers that a process has made."""
        return tuple(self._labelled(f"{OF_RUN}={run}"))

    @refusals()
    def _labelled(self, label: str) -> list[Container]:
        return self.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)

    def find(self, name: str) -> Container | None:
        """Return the container of a name.

        :raises NameTakenError: it is not ours.
        """
        with refusals():
            try:
                container = self.client.containers.get(name)
            except docker.errors.NotFound:
                return None
        if LABEL not in container.labels or container.name != name:
            raise taken(name)
        return container

    def choose(self, name: str | None) -> Container:
        """Return the container of a name; without a name the only one that runs, or the only one at all.

        :raises NoContainerError: there is none, or several.
        """
        if name is not None:
            return self._named(name)
        own = self.own()
        chosen = [container for container in own if container.status == "running"] or own
        if not chosen:
            raise NoContainerError("there is no container", fix=START_ONE)
        if len(chosen) > 1:
            raise NoContainerError("there are several containers", fix=f"name one: {_names(chosen)}")
        return chosen[0]

    def _named(self, name: str) -> Container:
        if not name:
            raise NoContainerError("an empty word names no container", fix="leave it out for the only one, or name one: inv ps")
        try:
            container = self.find(name)
        except NameTakenError as error:
            use = f"use docker itself: docker logs, docker exec or docker stop {name}"
            raise NameTakenError(error.what, fix=f"{use}; inv ps shows what inv up has made") from error
        if container is None:
            own = self.own()
            fix = f"there are: {_names(own)}" if own else START_ONE
            raise NoContainerError(f"there is no container {printable(name, 60)}", fix=fix)
        return container

    @refusals()
    def published(self) -> set[int]:
        """Return the ports of this machine that running containers have.

        An engine may hold them by rules of the firewall alone, so that nothing listens there.
        """
        ports = itertools.chain.from_iterable(container.get("Ports") or () for container in self.client.api.containers())
        return {int(port["PublicPort"]) for port in ports if "PublicPort" in port}

    def create(self, order: Order) -> Container:
        """Make a container, and do not start it yet."""
        with refusals(order.description):
            return self.client.containers.create(**_request(order))

    def state(self, container: Container) -> str:
        """Return a container's state in words, and whether the name of its image means another one now."""
        health = (container.attrs["State"].get("Health") or {}).get("Status")
        state = container.status
        if state == "running" and health:
            state = f"{state}, {health}"
        with refusals():
            try:
                now = self.client.images.get(container.labels[OF_TAG]).id
            except docker.errors.ImageNotFound:
                return state
        return state if now == container.attrs["Image"] else f"{state}, of an older image"

    @refusals()
    def has_volume(self, name: str) -> bool:
        """Return whether there is a volume."""
        with contextlib.suppress(docker.errors.NotFound):
            return bool(self.client.volumes.get(name))
        return False

    @refusals()
    def discard_volume(self, name: str) -> None:
        """Remove a volume that was made a moment ago and that nobody uses."""
        with contextlib.suppress(docker.errors.NotFound):
            self.client.volumes.get(name).remove()


def _request(order: Order) -> dict[str, Any]:
    """Return the arguments of ``containers.create``."""
    wanted = order.description
    gpus = order.graphics.request(wanted.gpus) if wanted.gpus else {}
    secret = {"JUPYTER_TOKEN_FILE": TOKEN} if order.secret else {}
    limits = order.limits.items()
    return gpus | {
        "image": wanted.image,
        "platform": platforms.foreign(wanted.platform),
        "name": wanted.name,
        "user": wanted.user,
        "environment": gpus.get("environment", {}) | wanted.environment | secret,
        "labels": {LABEL: order.owner, OF_TAG: order.tag, OF_RUN: order.run, OF_SERVICES: _services(wanted), OF_IDENTITY: order.identity_file},
        "ports": {f"{endpoint.port}/tcp": (wanted.address, endpoint.published) for endpoint in wanted.endpoints},
        "mounts": [*_mounts(order)],
        "shm_size": wanted.shm,
        "ulimits": [docker.types.Ulimit(name=name, soft=value, hard=value) for name, value in limits],
        "tty": wanted.is_interactive,
        "stdin_open": wanted.is_interactive,
    }


def _mounts(order: Order) -> Iterator[docker.types.Mount]:
    yield docker.types.Mount(WORKSPACE, order.description.workspace, type="bind")
    yield docker.types.Mount(HOME, order.description.volume, type="volume")
    if order.secret:
        yield docker.types.Mount(TOKEN, str(order.token), type="bind", read_only=True)


def _services(wanted: ContainerDescription) -> str:
    return json.dumps({endpoint.port: [endpoint.name, endpoint.scheme] for endpoint in wanted.endpoints})


def _names(containers: Iterable[Container]) -> str:
    return ", ".join(str(container.name) for container in containers)


def start(container: Container) -> None:
    """Start a container, or let a paused one go on.

    :raises BusyPortError: one of its ports is taken.
    """
    try:
        with refusals():
            (container.unpause if container.status == "paused" else container.start)()
    except BusyPortError as error:
        for binding in bindings(container):
            if re.search(rf":{binding.published}\b", error.what):
                raise loopback.busy(binding.address, binding.published, binding.name) from error
        raise


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """A port of this machine that leads to a service of a container.

    :param scheme: of the service's URL; empty if it has none.
    """

    name: str
    address: str
    published: int
    scheme: str = ""

    @property
    def reachable(self) -> str:
        """The address at which this machine itself reaches the service."""
        return OF_ALL.get(self.address, self.address)


def bindings(container: Container) -> tuple[Binding, ...]:
    """Return the ports of this machine that a container has, or would have if it ran, sorted by service."""
    services = json.loads(container.labels.get(OF_SERVICES, "{}"))
    bound_ports: list[Binding] = []
    for port, addresses in (container.attrs["HostConfig"].get("PortBindings") or {}).items():
        name, scheme = services.get(port.removesuffix("/tcp"), [port, ""])
        for bound in addresses:
            published = int(bound["HostPort"])
            bound_ports.append(Binding(name=name, address=bound["HostIp"], published=published, scheme=scheme))
    return tuple(sorted(bound_ports, key=lambda binding: binding.name))


def source(container: Container, target: str) -> str:
    """Return the path of the host that is mounted at a path of a container; empty if none is."""
    sources = (str(mount["Source"]) for mount in container.attrs["Mounts"] if mount["Destination"] == target)
    return next(sources, "")


def authorized(container: Container) -> tuple[str, ...]:
    """Return the public keys that a container was made with."""
    variables = dict(variable.partition("=")[::2] for variable in container.attrs["Config"].get("Env") or ())
    return tuple(variables.get(KEYS_VARIABLE, "").splitlines())


def identity_file(container: Container) -> str:
    """Return the file by which ssh finds the key that a container was made with; empty where ssh looks by itself."""
    return container.labels.get(OF_IDENTITY, "")


@refusals()
def text_of(container: Container, path: str) -> str | None:
    """Return the text of a file in a running container; ``None`` if nobody can read it."""
    status, output = container.exec_run(["cat", path], user=str(container.attrs["Config"]["User"]))
    assert isinstance(output, bytes)  # no stream was asked for
    return output.decode(errors="replace") if status == 0 else None


def wait(container: Container, seconds: float, step: Step) -> None:
    """Wait until the services of a container answer.

    :raises ContainerError: the container ended before, or takes longer.
    """
    deadline = time.monotonic() + seconds
    while (state := _state(container)) != "healthy":
        if container.status not in {"running", "created"}:
            raise ContainerError(f"{container.name} ended before it was ready: {last_line(container)}", fix=BY_HAND)
        if time.monotonic() > deadline:
            what = f"{container.name} is not ready after {seconds:g} s: {last_line(container)}"
            raise ContainerError(what, fix="give it more time: --wait SECONDS")
        step.note(state)
        time.sleep(PAUSE)


@refusals()
def _state(container: Container) -> str:
    """Return a container's state: ``healthy`` once it is ready."""
    container.reload()
    health = container.attrs["State"].get("Health")
    return str(health["Status"]) if health else {"running": "healthy"}.get(container.status, container.status)


@refusals()
def last_line(container: Container) -> str:
    """Return the last line that a container has printed."""
    log = b"".join(container.logs(tail=LAST_LINES, stream=True, follow=False)).decode(errors="replace")
    lines = filter(None, (line.strip() for line in reversed(log.split("\n"))))
    return printable(next(lines, "it said nothing"), 300)


@refusals()
def stop(container: Container) -> None:
    """Stop a container; it stays, with all that is in it."""
    with progress.overdue(f"waiting until {container.name} has ended, {STOP_SECONDS} s at most: then it is killed"):
        container.stop(timeout=STOP_SECONDS)


@refusals()
def rename(container: Container, name: str) -> None:
    """Give a container another name, unless it has that one."""
    container.reload()
    if container.name != name:
        container.rename(name)
        container.reload()


@refusals()
def remove(container: Container) -> None:
    """Remove a container, running or not; its workspace and volumes stay."""
    with contextlib.suppress(docker.errors.NotFound):
        container.remove(force=True, v=False)
