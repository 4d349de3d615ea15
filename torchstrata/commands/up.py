"""The verb ``inv up``: which image, which container of it, and whether it is started here or written down for elsewhere."""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, get_args

import docker.errors
from docker.models.containers import Container
from rich.prompt import Confirm

from torchstrata import platforms, progress
from torchstrata.attestations import remote
from torchstrata.building import engine as engines
from torchstrata.building.engine import Engine
from torchstrata.commands import build, running_containers
from torchstrata.commands.container_options import UpOptions
from torchstrata.commands.options import BuildOptions
from torchstrata.containers import caller, declared_services, description, graphics, launchers, loopback, pulling, reattaching, running
from torchstrata.containers.caller import HostUser
from torchstrata.containers.description import LOOPBACK, SHM, SSH, ContainerDescription
from torchstrata.containers.found_image import FoundImage
from torchstrata.containers.graphics import Graphics
from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.containers.launchers import ELSEWHERE, Launcher, LauncherFile
from torchstrata.containers.running import Containers, Order
from torchstrata.errors import ContainerError, EngineError, LauncherError, MatrixError, NoImageError, PlatformError
from torchstrata.host import emulator
from torchstrata.image import oci
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.platforms import PLATFORM
from torchstrata.progress import Reporter
from torchstrata.registry.reference import TAG, Place
from torchstrata.registry.registry import Registry
from torchstrata.text import printable

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,99}")
"""Names of containers, as engines take them."""

NO_KEY: Final = "no SSH: there is no public key in ~/.ssh (ssh-keygen -t ed25519 makes one; then inv up --replace)"
UNRAISED: Final = "this engine may not raise limits of locked memory and stack, which NCCL needs for InfiniBand"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The image that words mean.

    :param repository: of the images.
    :param tag: its name in a registry, where one stands for all platforms.
    :param place: the team's registry, if one is known.
    :param cell: that a build makes it of, with the flavour; ``None`` if none does.
    """

    repository: str
    tag: str
    platform: str
    place: Place | None
    cell: Cell | None
    flavour: str

    @property
    def local(self) -> str:
        """Its name in an engine that has built it."""
        return f"{self.repository}:{self.tag}{platforms.suffix(self.platform)}"

    @property
    def remote(self) -> str | None:
        """Its name in the registry."""
        return f"{self.place.host}/{self.place.repository(self.repository)}:{self.tag}" if self.place else None

    @property
    def build(self) -> str:
        """The command that builds it."""
        return f"nox -s build-{self.cell.names[0] if self.cell else 'CELL'}" + ("" if self.platform == PLATFORM else f" -- --platform {self.platform}")

    @property
    def others(self) -> tuple[str, ...]:
        """Other names in the engine of the same image: a build gives the default OS none with the OS in it."""
        names = self.cell.names if self.cell and self.tag.endswith(f"-{self.flavour}") else ()
        return tuple(replace(self, tag=f"{name}-{self.flavour}").local for name in names if self.tag != f"{name}-{self.flavour}")

    @property
    def names(self) -> tuple[str, ...]:
        """Both, that of the engine first."""
        return (self.local, *([self.remote] if self.remote else []))


def up(options: UpOptions) -> None:
    """Start a container or go on with it, or write files that start it.

    :raises NoImageError: the image is neither here nor in the team's registry, and nobody wants it built.
    :raises NoGpuError: GPUs were asked for that cannot be had.
    :raises WorkspaceError: the workspace cannot be made or written.
    """
    chosen = [name for name in get_args(Launcher) if getattr(options, name)]
    if options.output and not chosen:
        raise LauncherError("--output DIRECTORY is for files, and none were asked for", fix="add --print, --compose or another one: inv up --help")
    if chosen:
        _write(chosen[0], options)
    else:
        _start(options)


# Which image


def wanted(table: Matrix, options: UpOptions, *, gpu: bool) -> Wanted:
    """Return the image that words mean: of a cell, or by its tag.

    :param gpu: whether this machine has a GPU, to choose where nothing is said.
    :raises MatrixError: they mean none.
    :raises PlatformError: it is not offered on the platform.
    """
    if len(options.cells) > 1:
        raise MatrixError(f"{len(options.cells)} images are named: {' '.join(options.cells)}", fix="name one; each container is one call of inv up")
    platform = _platform(options)
    word = options.cells[0].removesuffix(platforms.suffix(platform)) if options.cells else usual(table, platform, gpu=gpu).names[0]
    flavour = options.flavour or table.all_in_one
    table.chain(flavour)
    place = remote.place(options.registry, table.registry)
    cell = next((each for each in table.cells if word in each.names), None)
    if cell:
        return Wanted(repository=table.name, tag=f"{word}-{flavour}", platform=platform, place=place, cell=cell.on(platform), flavour=flavour)
    found = next(((each, image) for each in table.cells for name in each.names for image in table.flavours if word == f"{name}-{image}"), None)
    found = found or next(((each, table.all_in_one) for each in table.cells if each.named and each.is_default_os and word == each.all_in_one), None)
    if options.flavour or not TAG.fullmatch(word) or (found is None and place is None):
        raise MatrixError(
            f"{printable(word, 60)} is no cell" + ("" if options.flavour else " and no tag"), fix=f"nearest: {', '.join(matrix.nearest(table, word))}"
        )
    cell, flavour = found or (None, "")
    return Wanted(repository=table.name, tag=word, platform=platform, place=place, cell=cell.on(platform) if cell else None, flavour=flavour)


def _platform(options: UpOptions) -> str:
    asked = options.platform or platforms.here()
    if asked not in platforms.MACHINES:
        raise PlatformError(f"{printable(asked, 40)} is no platform of images", fix=f"give one of {', '.join(platforms.MACHINES)}")
    return asked


def usual(table: Matrix, platform: str, *, gpu: bool) -> Cell:
    """Return the newest cell for a machine with a GPU, or without; of all where there is none."""
    newest = sorted(matrix.select_on(table, platform), key=lambda cell: (cell.named, cell.is_default_os, cell.release), reverse=True)
    return next((cell for cell in newest if bool(cell.facts.cuda_version) == gpu), newest[0])


def here(engine: Engine, name: str, platform: str) -> FoundImage | None:
    """Return an image of the engine, ``None`` if it has none of that name for a platform."""
    with running.refusals():
        try:
            found = engine.client.images.get(name).attrs
        except docker.errors.ImageNotFound:
            return None
    if found["Architecture"] not in {"", platforms.architecture(platform)}:
        return None
    repository = name.rpartition(":")[0]
    digest = next((each.rpartition("@")[2] for each in found.get("RepoDigests") or () if each.startswith(f"{repository}@")), None)
    config, identity = found["Config"], str(found["Id"])
    ports = oci.tcp_ports(config.get("ExposedPorts") or ())
    declared = declared_services.in_engine(engine, identity) if ports else {}
    return FoundImage.of(name, identity, config.get("Labels") or {}, description.endpoints(ports, declared), platform, digest=digest)


def in_registry(want: Wanted) -> FoundImage | None:
    """Return the image as the registry has it; ``None`` if no registry is known, or it has none of that name.

    :raises PlatformError: it has it for other platforms only.
    """
    if want.place is None or want.remote is None:
        return None
    repository = want.place.repository(want.repository)
    with Registry(want.place.host, scheme=want.place.scheme) as registry:
        found = registry.find(repository, want.tag)
        if found is None:
            return None
        children = registry.manifest(repository, found.digest).document().children
        listed = {each.platform.name: each.digest for each in children if each.platform} or {want.platform: found.digest}
        digest = listed.get(want.platform, next(iter(listed.values())))
        config = registry.image_config(repository, digest)
        if want.platform not in listed or config.architecture not in {"", platforms.architecture(want.platform)}:
            raise PlatformError(f"{want.remote} is not there for {want.platform}", fix="name another platform, --platform OS/ARCHITECTURE, or another image")
        declared = declared_services.in_registry(registry, repository, registry.manifest(repository, digest).document().layers or ()) if config.ports else {}
    return FoundImage.of(want.remote, digest, config.labels, description.endpoints(config.ports, declared), want.platform, digest=digest)


def obtained(engine: Engine, want: Wanted, reporter: Reporter, options: UpOptions) -> FoundImage | None:
    """Return the image, pulled if it is not here; ``None`` where only a build could make it."""
    found = _here(engine, want)
    if want.remote and (found is None or options.pull):
        with reporter.step("pull", want.remote) as step:
            pulled = pulling.pull(engine.client, want.remote, want.platform, step)
        return here(engine, want.remote, want.platform) if pulled else found
    return found


def _here(engine: Engine, want: Wanted) -> FoundImage | None:
    return next(filter(None, (here(engine, name, want.platform) for name in (*want.names, *want.others))), None)


def _built(engine: Engine, want: Wanted, options: UpOptions) -> FoundImage:
    """Build an image, if it can be built and somebody wants that.

    :raises NoImageError: it is nowhere, and is not built.
    """
    nowhere = f"{want.local} is not in this engine" + (f", and {want.remote} is not in the registry" if want.remote else ", and no registry is known")
    if want.cell is None:
        raise NoImageError(nowhere, fix="name a cell of the matrix: inv plan shows them")
    if not (options.yes or _agrees(f"{nowhere}. Build it here ({want.build})?")):
        raise NoImageError(nowhere, fix=f"build it: {want.build}, or inv up --yes; or name a registry that has it: --registry HOST[/PATH]")
    build.build(want.cell.id, BuildOptions(flavour=(want.flavour,), platform=want.platform, registry=options.registry))
    found = here(engine, want.local, want.platform)
    if found is None:
        raise NoImageError(f"the build has not made {want.local}", fix=f"see what it makes: inv plan {want.cell.names[0]}")
    return found


def _agrees(question: str) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and Confirm.ask(question, default=False)


# Which container


def _described(image: FoundImage, options: UpOptions) -> ContainerDescription:
    """Return the container, but for user, GPUs and free ports, which are this machine's matter.

    :raises ContainerError: its name or the size of ``/dev/shm`` is none.
    """
    if options.name is not None and not NAME.fullmatch(options.name):
        raise ContainerError(f"{printable(options.name, 60)!r} is no name of a container", fix="letters, digits and _ . - after the first; at least two")
    keys = caller.public_keys(options.ssh_key)
    more = {"name": options.name} if options.name else {}
    return image.describe(address=_listens(options) or LOOPBACK, authorized_keys=keys, shm=_shm(options) or SHM, **more)


def _listens(options: UpOptions) -> str | None:
    """Return the address that was asked for.

    :raises ContainerError: engines do not read it.
    """
    if options.listen is None:
        return None
    try:
        return str(ipaddress.ip_address({"localhost": LOOPBACK}.get(options.listen, options.listen)))
    except ValueError as error:
        fix = "write it in numbers, such as 127.0.0.1, or 0.0.0.0 for all: --listen ADDRESS"
        raise ContainerError(f"{printable(options.listen, 60)!r} is no address", fix=fix) from error


def _shm(options: UpOptions) -> int | None:
    """Return the bytes of ``/dev/shm`` that were asked for."""
    return None if options.shm is None else max(int(options.shm * 1024), 1) << 20


def ports(options: UpOptions) -> Mapping[str, int]:
    """Return the port by service that was asked for.

    :raises ContainerError: a word is no such pair.
    """
    pairs = [word.partition("=") for word in options.port]
    for name, _, port in pairs:
        if not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004  # RFC 9293
            raise ContainerError(f"--port {printable(name, 40)}={printable(port, 40)} is no service and port", fix="write --port jupyter=8890")
    found = {name: int(port) for name, _, port in pairs}
    if len(set(found.values())) < len(pairs):
        raise ContainerError("--port gives a port to two services, or two ports to one", fix="write each once: --port jupyter=8890,ssh=2200")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalEngine:
    """An engine of the same machine, with what a container must know of both."""

    engine: Engine
    graphics: Graphics
    user: HostUser

    @classmethod
    def connect(cls) -> Self:
        """Return what its engine says.

        :raises EngineError: none answers, or it is another machine's.
        """
        engine, address = engines.connect(), engines.address()
        if not address.startswith("unix://"):
            raise EngineError(f"the engine at {address} is on another machine, which has no workspace of this one", fix="run inv up there")
        info = engine.client.info()
        user = HostUser(uid=os.geteuid(), rootless="name=rootless" in (info.get("SecurityOptions") or ()))
        return cls(engine=engine, graphics=Graphics.of_host(info), user=user)

    def image(self, options: UpOptions) -> FoundImage:
        """Return the image that is wanted: what is here, else pulled, else built.

        :raises EmulatorError: it is for another platform, whose programs cannot run here.
        """
        want = wanted(matrix.load(), options, gpu=self.graphics.is_here)
        emulator.require(want.platform)
        with progress.reporter() as reporter:
            found = obtained(self.engine, want, reporter, options)
        return found or _built(self.engine, want, options)

    def order(self, image: FoundImage, described: ContainerDescription, asked: Mapping[str, int]) -> Order:
        """Return what its engine is to make."""
        return Order(
            description=described,
            tag=image.name,
            identity=image.identity,
            owner=_login(),
            graphics=self.graphics,
            token=Keepsakes.of(described.name).token,
            ports=asked,
            run=uuid.uuid4().hex,
            limits={} if self.user.rootless else described.limits,
        )


def _start(options: UpOptions) -> None:
    """Start the container and print how to reach it."""
    asked, listens = ports(options), _listens(options)
    if options.gpus is not None:
        graphics.parsed(options.gpus)
    machine = LocalEngine.connect()
    image = machine.image(options)
    gpus, note = machine.graphics.choose(options.gpus, cuda=image.cuda)
    with machine.user.workspace(options.workspace) as workspace, progress.reporter() as reporter:
        user = machine.user.user(workspace.stat().st_uid)
        described = replace(_described(image, options), workspace=str(workspace), gpus=gpus, user=user)
        _check_ssh(described, asked)
        described = described.without_idle_ssh()
        order = replace(machine.order(image, described, asked), address=listens, shm=_shm(options))
        with reporter.step("start", described.name) as step:
            container = reattaching.bring_up(Containers(machine.engine.client), order, step, anew=options.replace, seconds=options.wait)
        if options.ssh_entry and described.has_ssh:
            _add_entry(described.name, running.bindings(container))
        for line in (*filter(None, [note]), *_notes(image, described, container), *running_containers.welcome(container)):
            reporter.say(line)
        reporter.say(f"stop it     inv down {described.name}   (nothing is lost)")


def _check_ssh(described: ContainerDescription, asked: Mapping[str, int]) -> None:
    """Refuse a port for an SSH server that does not start."""
    if SSH in asked and described.has_ssh and not described.authorized_keys:
        fix = "ssh-keygen -t ed25519 makes one; or --ssh-key FILE; or leave ssh out of --port"
        raise ContainerError("SSH is off: there is no public key in ~/.ssh", fix=fix)


def _add_entry(name: str, bindings: tuple[running.Binding, ...]) -> None:
    ssh = next(each for each in bindings if each.name == SSH)
    Keepsakes.of(name).add_entry(ssh.reachable, ssh.published)


def _notes(image: FoundImage, described: ContainerDescription, container: Container) -> Iterator[str]:
    """Yield what the container is, and what may be another way than somebody expects."""
    if described.limits and not container.attrs["HostConfig"].get("Ulimits"):
        yield UNRAISED
    yield f"{described.name}: {described.title}; /workspace is {described.workspace}"
    if image.describe().has_ssh and not described.has_ssh:
        yield NO_KEY


def _login() -> str:
    """Return the user's name; a user without an entry in passwd has a number."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.geteuid())


# Files for elsewhere


def _write(launcher: Launcher, options: UpOptions) -> None:
    """Write the files that start a container by a launcher.

    :raises NoImageError: nobody has the image.
    :raises LauncherError: the files would not work, or others of these names are there.
    """
    asked = ports(options)
    table = matrix.load()
    gpus = graphics.parsed(options.gpus) if options.gpus is not None else None
    want = wanted(table, options, gpu=gpus is not None or Graphics.of_host({}).is_here)
    image = in_registry(want) or _here_alone(want)
    described = _described(image, options)
    loopback.check(described.endpoints, asked)
    chosen = gpus if options.gpus is not None else described.gpus
    user = HostUser(uid=os.geteuid()).user(_owner(options.workspace))
    endpoints = tuple(replace(each, published=asked.get(each.name, each.published)) for each in described.endpoints)
    workspace = options.workspace if options.workspace.is_absolute() else f"./{options.workspace}"
    described = replace(described, gpus=chosen, user=user, endpoints=endpoints, workspace=str(workspace))
    described = replace(described, is_handed_over=not (os.geteuid() or options.workspace.exists()))
    _check(launcher, described, want)
    _save(launchers.files(launcher, described), options.output)


def _owner(workspace: Path) -> int:
    """Return who owns a workspace; 0 where it is not there."""
    with contextlib.suppress(OSError):
        return workspace.stat().st_uid
    return 0


def _here_alone(want: Wanted) -> FoundImage:
    """Return an image that only this machine's engine has.

    :raises NoImageError: it has not.
    """
    engine = engines.connect()
    found = _here(engine, want)
    if found is None:
        fix = f"build it: {want.build}; or name a registry that has it: --registry HOST[/PATH]" if want.cell else "name another: inv plan"
        raise NoImageError(f"{want.local} is in no registry that is known, and not here", fix=fix)
    return found


def _check(launcher: Launcher, described: ContainerDescription, want: Wanted) -> None:
    if launcher in ELSEWHERE and not described.is_pullable:
        push = f"push it, inv push {want.cell.names[0]}, and " if want.cell else ""
        raise LauncherError(f"other machines cannot pull {want.local}, which only this engine has", fix=f"{push}name the registry: --registry HOST[/PATH]")
    if launcher == "jupyterhub" and not any(each.name == "jupyter" for each in described.endpoints):
        raise LauncherError(f"{want.local} has no JupyterLab, which JupyterHub would start", fix="take a flavour that has it: --flavour jupyter")


def _save(files: tuple[LauncherFile, ...], directory: Path | None) -> None:
    """Print files, or write them, and never over others.

    :raises LauncherError: another file is there.
    """
    if directory is None:
        sys.stdout.write("".join(each.text if number == 0 else f"\n# {each.path}\n{each.text}" for number, each in enumerate(files)))
        return
    for each in files:
        path = directory / each.path
        if path.exists() and (not path.is_file() or path.read_bytes() != each.text.encode()):
            raise LauncherError(f"{path} is there already, and is another", fix="move it away, or name another directory: --output DIRECTORY")
    for each in files:
        path = directory / each.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each.text, encoding="utf-8")
        except OSError as error:
            raise LauncherError(f"{path} cannot be written: {error.strerror}", fix="name another directory: --output DIRECTORY") from error
        sys.stdout.write(f"{path}\n")
