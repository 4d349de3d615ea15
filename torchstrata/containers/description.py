"""What a container of an image is to be, whatever starts it: a pure value, from which files are rendered and engines are asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from torchstrata.image import runtime
from torchstrata.image.declarations import DeclaredService
from torchstrata.matrix.flavours import usual_variable
from torchstrata.platforms import PLATFORM

SHM: Final = 8 << 30
"""Bytes of ``/dev/shm``: engines give 64 MB, which DataLoader workers and NCCL fill at once."""

LIMITS: Final[Mapping[str, int]] = {"memlock": -1, "stack": 64 << 20}
"""Bytes of memory that may be locked, and of a thread's stack: what NVIDIA advises for NCCL and InfiniBand.

Only containers with GPUs get them: an engine in a container, or one without root, may not raise the first, and then starts nothing.
"""

HOME: Final = runtime.PERSON["HOME"]

JUPYTER: Final = "jupyter"
SSH: Final = "ssh"
KEYS_VARIABLE: Final = "SSH_PUBLIC_KEY"

PRIVILEGED: Final = range(1, 1024)
"""Ports that not every user may bind everywhere; services take others instead."""

SPARE: Final[Mapping[int, int]] = {22: 2222}
"""What they take; else one that is 8000 higher, as 8080 for 80."""

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """GPUs that a container gets.

    :param count: how many; -1 means all.
    :param devices: which ones instead, by number or UUID.
    """

    count: int = -1
    devices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what ``all``, a number, or ``device=0,2`` means, as in ``docker run --gpus``; ``None`` for ``none``.

        :raises ValueError: it means nothing.
        """
        if text in {"none", "0"}:
            return None
        if text == "all":
            return cls()
        if text.isdecimal():
            return cls(count=int(text))
        devices = re.fullmatch(r"device=([\w:/-]+(?:,[\w:/-]+)*)", text)
        if devices is None:
            raise ValueError(f"{text!r} is no choice of GPUs")
        return cls(count=0, devices=tuple(devices[1].split(",")))

    @property
    def amount(self) -> int:
        """How many a scheduler is asked for, which has no word for all."""
        return len(self.devices) or max(self.count, 1)

    def __str__(self) -> str:
        """Return the value of ``--gpus`` of ``docker run``: a line of CSV, in which several devices are one field."""
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
    :param variable: what a container is told another port by; empty if it has none.
    :param is_moved: the port is another than the image's own.
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

    :param image: reference with its digest; with a host where it can be pulled.
    :param name: of the container.
    :param title: what the image is, in one line, as :func:`plain` returns it.
    :param gpus: ``None`` for none.
    :param user: numeric ``uid:gid``.
    :param shm: bytes of ``/dev/shm``.
    :param workspace: directory of the host that is mounted at ``/workspace``; relative ones begin with ``./``.
    :param address: of the host, on which ports are published.
    :param platform: that the image is for; files say so where that is not the usual one.
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
        """The platform where engines have to be told; empty for the usual one."""
        return "" if self.platform == PLATFORM else self.platform

    @property
    def is_pullable(self) -> bool:
        """Whether the image lies in a registry; else only this machine's engine has it."""
        host, slash, _ = self.image.partition("/")
        return bool(slash) and (host == "localhost" or "." in host or ":" in host)

    @property
    def pinned(self) -> str:
        """The image by its digest alone, for what takes no tag beside it (containers/image: Apptainer, Podman)."""
        rest, _, digest = self.image.partition("@")
        path, slash, last = rest.rpartition("/")
        return f"{path}{slash}{last.partition(':')[0]}@{digest}"

    @property
    def bindings(self) -> tuple[str, ...]:
        """The ports as engines read them: ``127.0.0.1:8890:8888``, ``[::1]:8890:8888``."""
        return tuple(f"{bracketed(self.address)}:{each.published}:{each.port}" for each in self.endpoints)

    @property
    def moved(self) -> str:
        """What to read otherwise in the address that the log shows, which knows the container's own ports alone; empty if nothing."""
        pairs = (f"{each.published} instead of {each.port}" for each in self.endpoints if each.published != each.port and each.scheme)
        return ", ".join(pairs)

    def made(self, workspace: str) -> str:
        """Return the command of a shell that makes the workspace.

        :param workspace: quoted.
        """
        owner = f" && chown {self.user.partition(':')[0]} {workspace}" if self.is_handed_over else ""
        return f"mkdir -p {workspace}{owner}"

    @property
    def memory(self) -> str:
        """The size of ``/dev/shm`` as engines read it: ``8g``, ``512m``."""
        return f"{self.shm >> 30}g" if self.shm % (1 << 30) == 0 else f"{self.shm >> 20}m"

    @property
    def label(self) -> str:
        """The name as a label of DNS (RFC 1123), as Kubernetes and Compose want names."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:63].rstrip("-")

    @property
    def volume(self) -> str:
        """The volume of the home directory."""
        return f"{self.name}-home"

    @property
    def limits(self) -> Mapping[str, int]:
        """Limits of resources by name; -1 is none."""
        return LIMITS if self.gpus else {}

    @property
    def is_interactive(self) -> bool:
        """Whether it runs a shell, since the image has no services: the shell ends at once where it has no terminal."""
        return not self.endpoints

    @property
    def has_ssh(self) -> bool:
        """Whether the image has an SSH server."""
        return any(endpoint.name == SSH for endpoint in self.endpoints)

    def without_idle_ssh(self) -> Self:
        """Return it without the port of an SSH server that does not start, since it has nobody to let in."""
        kept = tuple(each for each in self.endpoints if each.name != SSH or self.authorized_keys)
        return replace(self, endpoints=kept)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by name; the key of SSH only where there is one."""
        moved = {each.variable: str(each.port) for each in self.endpoints if each.is_moved}
        return moved | ({KEYS_VARIABLE: "\n".join(self.authorized_keys)} if self.has_ssh and self.authorized_keys else {})


def endpoints(exposed: Iterable[int], declared: Mapping[str, DeclaredService]) -> tuple[Endpoint, ...]:
    """Return the services of an image, each published at the port where it listens.

    :param exposed: TCP ports of its config; what listens at one that no service declares is called by it.
    :param declared: its services by name.
    """
    names = {service.port: name for name, service in declared.items()}
    return tuple(_endpoint(port, names.get(port), declared) for port in sorted(exposed, reverse=True))


def _endpoint(usual: int, name: str | None, declared: Mapping[str, DeclaredService]) -> Endpoint:
    if name is None:
        return Endpoint(name=f"port-{usual}", port=usual, published=usual)
    port = SPARE.get(usual, usual + 8000) if usual in PRIVILEGED else usual
    variable = declared[name].port_variable or usual_variable(name)
    return Endpoint(name=name, port=port, published=port, scheme=declared[name].scheme, variable=variable, is_moved=port != usual)


def of_image(image: str, *, tag: str, title: str, endpoints: tuple[Endpoint, ...], cuda: bool) -> ContainerDescription:
    """Return what a container of a published image is, for anybody's machine.

    :param image: ``HOST/REPOSITORY:TAG@sha256:...``.
    :param tag: what the container is named after, such as ``2.8-cu121-ssh``.
    :param title: see ``org.opencontainers.image.description``.
    :param cuda: whether its torch can use GPUs, all of which it gets then.
    """
    gpus = Gpus() if cuda else None
    return ContainerDescription(image=image, name=name(tag), title=plain(title), endpoints=endpoints, gpus=gpus)


def bracketed(address: str) -> str:
    """Return an address as it stands before a port (RFC 3986, 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def plain(title: str) -> str:
    """Return what an image says of itself as words that are text in every file, whoever has written them."""
    return re.sub(r"[^\w .,:+()-]+", " ", title)[:200]


def name(tag: str) -> str:
    """Return the name of a container of the image with this tag."""
    return f"torchstrata-{tag}"
