"""What a container of an image is to be, whatever starts it: a pure value, for renderers of files and for engines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from torchstrata.errors import NoGpuError
from torchstrata.image import runtime
from torchstrata.image.declarations import DeclaredService
from torchstrata.matrix.flavours import usual_variable
from torchstrata.platforms import PLATFORM
from torchstrata.text import printable

SHM: Final = 8 << 30
"""Bytes of ``/dev/shm``. Engines give 64 MB, which DataLoader workers and NCCL fill at once."""

LIMITS: Final[Mapping[str, int]] = {"memlock": -1, "stack": 64 << 20}
"""Bytes of memory that may be locked, and of a thread's stack: what NVIDIA advises for NCCL and InfiniBand.

Only containers with GPUs get them: an engine in a container, or one without root, may not raise the first limit, and
would start nothing.
"""

HOME: Final = runtime.PERSON["HOME"]

JUPYTER: Final = "jupyter"
SSH: Final = "ssh"
KEYS_VARIABLE: Final = "SSH_PUBLIC_KEY"

PRIVILEGED: Final = range(1, 1024)
"""Ports that some engines let only root bind; services listen at others instead."""

SPARE: Final[Mapping[int, int]] = {22: 2222}
"""Those others, by port; where none is named, it is 8000 higher: 8080 for 80."""

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """The GPUs that a container gets.

    :param count: how many; -1 means all.
    :param devices: numbers or UUIDs of the GPUs, instead of a count.
    """

    count: int = -1
    devices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``all``, a number, or ``device=0,2``, as in ``docker run --gpus``; return ``None`` for ``none``.

        :raises NoGpuError: the text is none of these.
        """
        if text in {"none", "0"}:
            return None
        if text == "all":
            return cls()
        if re.fullmatch("[1-9][0-9]{0,3}", text):
            return cls(count=int(text))
        devices = re.fullmatch(r"device=([\w:/-]+(?:,[\w:/-]+)*)", text)
        if devices is None:
            raise NoGpuError(f"--gpus: {printable(text, 60)!r} is no choice of GPUs", fix="write all, none, a number, or device=0,2")
        return cls(count=0, devices=tuple(devices[1].split(",")))

    @property
    def amount(self) -> int:
        """How many to ask a scheduler for; it has no word for all."""
        return len(self.devices) or max(self.count, 1)

    def __str__(self) -> str:
        """Return the value of ``docker run --gpus``: a line of CSV, in which several devices are one field."""
        if self.devices:
            devices = f"device={','.join(self.devices)}"
            return f'"{devices}"' if "," in devices else devices
        return "all" if self.count < 0 else str(self.count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A service of a container.

    :param name: such as ``jupyter``.
    :param port: where it listens in the container.
    :param published: port of the host that leads there.
    :param scheme: of its URL; empty if it has none.
    :param variable: variable that tells the service another port; empty if it has none.
    :param is_moved: the port is not the image's own.
    """

    name: str
    port: int
    published: int
    scheme: str = ""
    variable: str = ""
    is_moved: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerDescription:
    """A container of an image.

    :param image: reference with its digest; it names a host where the image can be pulled.
    :param name: of the container.
    :param title: what the image is, in one line, as :func:`plain` returns it.
    :param gpus: ``None`` for none.
    :param user: numeric ``uid:gid``.
    :param shm: bytes of ``/dev/shm``.
    :param workspace: directory of the host to mount at ``/workspace``; a relative one begins with ``./``.
    :param address: address of the host where ports are published.
    :param platform: of the image; files name it where it is not the usual one.
    :param authorized_keys: public keys that SSH lets in; where there are none, files say where to put one.
    :param is_handed_over: root makes the workspace, for the user.
    :param is_for_anybody: who starts it is not known: a shell says the user, or tells Compose.
    """

    image: str
    name: str
    title: str
    endpoints: tuple[Endpoint, ...] = ()
    gpus: Gpus | None = None
    user: str = runtime.DEV
    shm: int = SHM
    workspace: str = "./workspace"
    address: str = LOOPBACK
    authorized_keys: tuple[str, ...] = ()
    platform: str = PLATFORM
    is_handed_over: bool = False
    is_for_anybody: bool = False

    @property
    def unusual_platform(self) -> str:
        """The platform, where engines have to be told; empty for the usual one."""
        return "" if self.platform == PLATFORM else self.platform

    @property
    def is_pullable(self) -> bool:
        """Whether the image lies in a registry; otherwise only this machine's engine has it."""
        return names_a_host(self.image)

    @property
    def pinned(self) -> str:
        """The image by its digest alone: Apptainer and Podman take no tag beside it (containers/image)."""
        rest, _, digest = self.image.partition("@")
        path, slash, last = rest.rpartition("/")
        return f"{path}{slash}{last.partition(':')[0]}@{digest}"

    @property
    def bindings(self) -> tuple[str, ...]:
        """The ports as engines read them: ``127.0.0.1:8890:8888``, ``[::1]:8890:8888``."""
        address = bracketed(self.address)
        return tuple(f"{address}:{endpoint.published}:{endpoint.port}" for endpoint in self.endpoints)

    @property
    def moved(self) -> str:
        """How ports differ from those in the log, which knows the container's own alone; empty if they do not."""
        web = [endpoint for endpoint in self.endpoints if endpoint.scheme]
        return ", ".join(f"{endpoint.published} instead of {endpoint.port}" for endpoint in web if endpoint.published != endpoint.port)

    @property
    def is_workspace_relative(self) -> bool:
        """Whether the workspace lies below the directory in which the container is started."""
        return self.workspace.startswith("./")

    def workspace_below(self, variable: str) -> str:
        """Return the workspace as a word of a shell.

        :param variable: holds the directory that a relative one lies below.
        """
        if self.is_workspace_relative:
            return f'"${variable}"/{shlex.quote(self.workspace[2:])}'
        return shlex.quote(self.workspace)

    def made(self, workspace: str) -> str:
        """Return the shell command that makes the workspace.

        :param workspace: as a word of the shell.
        """
        owner = f" && chown {self.user.partition(':')[0]} {workspace}" if self.is_handed_over else ""
        return f"mkdir -p {workspace}{owner}"

    @property
    def memory(self) -> str:
        """The size of ``/dev/shm`` as engines read it: ``8g``, ``512m``."""
        return f"{self.shm >> 30}g" if self.shm % (1 << 30) == 0 else f"{self.shm >> 20}m"

    @property
    def label(self) -> str:
        """The name as a DNS label (RFC 1123): Kubernetes and Compose take no other names."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:63].rstrip("-")

    @property
    def volume(self) -> str:
        """The name of the volume that holds the home directory."""
        return f"{self.name}-home"

    @property
    def limits(self) -> Mapping[str, int]:
        """Limits of resources by name; -1 means no limit."""
        return LIMITS if self.gpus else {}

    @property
    def is_interactive(self) -> bool:
        """Whether it runs a shell, since the image has no services; without a terminal the shell would end at once."""
        return not self.endpoints

    @property
    def has_ssh(self) -> bool:
        """Whether the image has an SSH server."""
        return any(endpoint.name == SSH for endpoint in self.endpoints)

    @property
    def lacks_ssh_key(self) -> bool:
        """Whether the image has an SSH server, and no public key is known that it could let in."""
        return self.has_ssh and not self.authorized_keys

    def without_idle_ssh(self) -> Self:
        """Return it without the port of an SSH server that has nobody to let in, and so does not start."""
        kept = tuple(endpoint for endpoint in self.endpoints if endpoint.name != SSH or self.authorized_keys)
        return replace(self, endpoints=kept)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by name: the ports that moved, and the keys that SSH lets in."""
        moved = {endpoint.variable: str(endpoint.port) for endpoint in self.endpoints if endpoint.is_moved}
        if not self.has_ssh or self.lacks_ssh_key:
            return moved
        return moved | {KEYS_VARIABLE: "\n".join(self.authorized_keys)}


def endpoints(exposed: Iterable[int], declared: Mapping[str, DeclaredService]) -> tuple[Endpoint, ...]:
    """Return the services of an image, each published at the port where it listens.

    :param exposed: TCP ports of its config; one that no service declares gives its own name to what listens there.
    :param declared: its services by name.
    """
    names = {service.port: name for name, service in declared.items()}
    return tuple(_endpoint(port, names.get(port), declared) for port in sorted(exposed, reverse=True))


def _endpoint(usual: int, name: str | None, declared: Mapping[str, DeclaredService]) -> Endpoint:
    if name is None:
        return Endpoint(name=f"port-{usual}", port=usual, published=usual)
    service = declared[name]
    port = SPARE.get(usual, usual + 8000) if usual in PRIVILEGED else usual
    variable = service.port_variable or usual_variable(name)
    moved = port != usual
    return Endpoint(name=name, port=port, published=port, scheme=service.scheme, variable=variable, is_moved=moved)


def of_image(
    image: str,
    *,
    tag: str,
    title: str,
    endpoints: tuple[Endpoint, ...],
    cuda: bool,
) -> ContainerDescription:
    """Return the container of a published image, for anybody's machine.

    :param image: ``HOST/REPOSITORY:TAG@sha256:...``.
    :param tag: gives the container its name, such as ``2.8-cu121-ssh``.
    :param title: see ``org.opencontainers.image.description``.
    :param cuda: whether its torch can use GPUs; the container then gets all.
    """
    gpus = Gpus() if cuda else None
    return ContainerDescription(image=image, name=name(tag), title=plain(title), endpoints=endpoints, gpus=gpus)


def names_a_host(image: str) -> bool:
    """Return whether a reference names the host of a registry."""
    host, slash, _ = image.partition("/")
    return bool(slash) and (host == "localhost" or "." in host or ":" in host)


def bracketed(address: str) -> str:
    """Return an address as it stands before a port (RFC 3986, 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def plain(title: str) -> str:
    """Return what an image says of itself, without characters that mean something in a file, whoever wrote them."""
    return re.sub(r"[^\w .,:+()-]+", " ", title)[:200]


def name(tag: str) -> str:
    """Return the name of a container of the image with this tag."""
    return f"torchstrata-{tag}"
