"""The verb ``inv up``: which image, which container of it, and whether it is started here or written down for elsewhere."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, get_args

from docker.models.containers import Container

from torchstrata import progress
from torchstrata.building import engine as engines
from torchstrata.building.engine import Engine
from torchstrata.commands import running_containers, wanted_image
from torchstrata.commands.container_options import UpOptions
from torchstrata.commands.wanted_image import WantedImage
from torchstrata.containers import caller, launchers, loopback, reattaching, running
from torchstrata.containers.caller import HostUser
from torchstrata.containers.description import LOOPBACK, SHM, SSH, ContainerDescription, Gpus
from torchstrata.containers.found_image import FoundImage
from torchstrata.containers.graphics import Graphics
from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.containers.launchers import ELSEWHERE, Launcher
from torchstrata.containers.running import Containers, Order
from torchstrata.errors import ContainerError, EngineError, LauncherError, NoImageError
from torchstrata.host import docker_config, emulator, home
from torchstrata.matrix import matrix
from torchstrata.text import printable

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,99}")
"""Names of containers, as engines take them."""

NO_KEY: Final = "no SSH: there is no public key in ~/.ssh (ssh-keygen -t ed25519 makes one; then: {again} --replace)"
LATE_KEY: Final = "no SSH: it was made before there was a public key in ~/.ssh ({again} --replace lets that in)"
UNRAISED: Final = "this engine may not raise limits of locked memory and stack, which NCCL needs for InfiniBand"


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


# Which container


def _described(image: FoundImage, options: UpOptions) -> ContainerDescription:
    """Return the container, but for user, GPUs and free ports, which are this machine's matter.

    :raises ContainerError: its name or the size of ``/dev/shm`` is none, or SSH is asked of an image that has none.
    """
    if options.name is not None and not NAME.fullmatch(options.name):
        raise ContainerError(f"{printable(options.name, 60)!r} is no name of a container", fix="letters, digits and _ . - after the first; at least two")
    keys = caller.public_keys(options.ssh_key)
    more = {"name": options.name} if options.name else {}
    described = image.describe(address=_listens(options) or LOOPBACK, authorized_keys=keys, shm=_shm(options) or SHM, **more)
    if not described.has_ssh and (options.ssh_key or options.ssh_entry):
        fix = "take a flavour that has one, --flavour ssh, or leave --ssh-key and --ssh-entry out"
        raise ContainerError(f"{image.name} has no SSH server", fix=fix)
    return described


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
    """Return the bytes of ``/dev/shm`` that were asked for.

    :raises ContainerError: these are none.
    """
    if options.shm is None:
        return None
    if not options.shm:
        raise ContainerError("--shm 0 leaves no shared memory, which torch's workers need", fix="write gigabytes: --shm 8, which is the default")
    return max(int(options.shm * 1024), 1) << 20


def ports(options: UpOptions) -> Mapping[str, int]:
    """Return the port by service that was asked for.

    :raises ContainerError: a word is no such pair.
    """
    pairs = [word.partition("=") for word in options.port]
    for word, (_, _, port) in zip(options.port, pairs, strict=True):
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= 65_535:  # noqa: PLR2004  # RFC 9293
            raise ContainerError(f"--port {printable(word, 80)} is no service and port", fix="write --port jupyter=8890")
    asked = {name: int(port) for name, _, port in pairs}
    if len(set(asked.values())) < len(pairs):
        raise ContainerError("--port gives a port to two services, or two ports to one", fix="write each once: --port jupyter=8890,ssh=2200")
    return asked


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
        engine, address = engines.connect(), docker_config.address()
        if not address.startswith("unix://"):
            raise EngineError(f"the engine at {address} is on another machine, which has no workspace of this one", fix="run inv up there")
        info = engine.client.info()
        user = HostUser(uid=os.geteuid(), rootless="name=rootless" in (info.get("SecurityOptions") or ()))
        return cls(engine=engine, graphics=Graphics.of_host(info), user=user)

    def image(self, options: UpOptions) -> FoundImage:
        """Return the image that is wanted: what is here, else pulled, else built.

        :raises EmulatorError: it is for another platform, whose programs cannot run here.
        """
        want = wanted_image.wanted(matrix.load(), options, gpu=self.graphics.is_here)
        emulator.require(want.platform)
        with progress.reporter() as reporter:
            image = wanted_image.obtained(self.engine, want, reporter, options)
        return image or wanted_image.built(self.engine, want, options)

    def order(self, image: FoundImage, described: ContainerDescription, asked: Mapping[str, int]) -> Order:
        """Return what its engine is to make."""
        return Order(
            description=described,
            tag=image.name,
            identity=image.identity,
            owner=home.login(),
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
        Gpus.parse(options.gpus)
    machine = LocalEngine.connect()
    image = machine.image(options)
    gpus, note = machine.graphics.choose(options.gpus, cuda=image.usual.gpus is not None)
    with machine.user.workspace(options.workspace) as workspace, progress.reporter() as reporter:
        user = machine.user.user(workspace.stat().st_uid)
        described = replace(_described(image, options), workspace=str(workspace), gpus=gpus, user=user)
        _check_ssh(described, is_asked=SSH in asked or options.ssh_entry)
        described = described.without_idle_ssh()
        identity, needs_ssh = caller.identity(options.ssh_key), bool(options.ssh_key or options.ssh_entry)
        order = replace(machine.order(image, described, asked), address=listens, shm=_shm(options), identity_file=identity, needs_ssh=needs_ssh)
        with reporter.step("start", described.name) as step:
            container = reattaching.bring_up(Containers(machine.engine.client), order, step, anew=options.replace, seconds=options.wait)
        if options.ssh_entry:
            _add_entry(container)
        for line in (*filter(None, [note]), *_notes(image, described, container), *running_containers.welcome(container)):
            reporter.say(line)
        reporter.say(f"stop it     inv down {described.name}   (nothing is lost)")


def _check_ssh(described: ContainerDescription, *, is_asked: bool) -> None:
    """Refuse a port of, or an entry for, an SSH server that does not start."""
    if is_asked and described.has_ssh and not described.authorized_keys:
        fix = "ssh-keygen -t ed25519 makes one; or --ssh-key FILE; or leave ssh out of --port, and --ssh-entry out"
        raise ContainerError("SSH is off: there is no public key in ~/.ssh", fix=fix)


def _add_entry(container: Container) -> None:
    ssh = next(binding for binding in running.bindings(container) if binding.name == SSH)
    Keepsakes.of(str(container.name)).add_entry(ssh.reachable, ssh.published, running.identity_file(container))


def _notes(image: FoundImage, described: ContainerDescription, container: Container) -> Iterator[str]:
    """Yield what the container is, and what may be another way than somebody expects."""
    if described.limits and not container.attrs["HostConfig"].get("Ulimits"):
        yield UNRAISED
    if concern := emulator.concern(described.platform):
        yield concern
    yield f"{described.name}: {described.title}; /workspace is {described.workspace}"
    if image.describe().has_ssh and not any(binding.name == SSH for binding in running.bindings(container)):
        yield (LATE_KEY if described.has_ssh else NO_KEY).format(again=running_containers.again(container))


# Files for elsewhere


def _write(launcher: Launcher, options: UpOptions) -> None:
    """Write the files that start a container by a launcher.

    :raises NoImageError: nobody has the image.
    :raises LauncherError: the files would not work, or others of these names are there.
    :raises WorkspaceError: the workspace is called what no file can say.
    """
    asked, place = ports(options), caller.place(options.workspace)
    table = matrix.load()
    gpus = Gpus.parse(options.gpus) if options.gpus is not None else None
    want = wanted_image.wanted(table, options, gpu=gpus is not None or Graphics.of_host({}).is_here)
    image = wanted_image.in_registry(want) or _here_alone(want)
    described = _described(image, options)
    loopback.check(described.endpoints, asked)
    chosen = gpus if options.gpus is not None else described.gpus
    owner = _owner(place)
    user = HostUser(uid=os.geteuid()).user(owner or 0)
    endpoints = tuple(replace(endpoint, published=asked.get(endpoint.name, endpoint.published)) for endpoint in described.endpoints)
    workspace = str(place) if place.is_absolute() else f"./{place}"
    is_handed_over = os.geteuid() == 0 and owner is None
    described = replace(described, gpus=chosen, user=user, endpoints=endpoints, workspace=workspace, is_handed_over=is_handed_over)
    _check(launcher, described, want)
    _save(launchers.RENDERERS[launcher](described), options.output)


def _owner(workspace: Path) -> int | None:
    """Return who owns a workspace; ``None`` where it is not there."""
    with contextlib.suppress(OSError):
        return workspace.stat().st_uid
    return None


def _here_alone(want: WantedImage) -> FoundImage:
    """Return an image that only this machine's engine has.

    :raises NoImageError: it has not.
    """
    engine = engines.connect()
    image = wanted_image.present(engine, want)
    if image is None:
        fix = f"build it: {want.build}; or name a registry that has it: --registry HOST[/PATH]" if want.cell else "name another: inv plan"
        raise NoImageError(f"{want.local} is in no registry that is known, and not here", fix=fix)
    return image


def _check(launcher: Launcher, described: ContainerDescription, want: WantedImage) -> None:
    if launcher in ELSEWHERE and not described.is_pullable:
        push = f"push it: {want.push}; then " if want.push else ""
        raise LauncherError(f"other machines cannot pull {want.local}, which only this engine has", fix=f"{push}name the registry: --registry HOST[/PATH]")
    if not launchers.has_its_service(launcher, described):
        raise LauncherError(f"{want.local} has no JupyterLab, which JupyterHub would start", fix="take a flavour that has it: --flavour jupyter")


def _save(files: Mapping[str, str], directory: Path | None) -> None:
    """Print files, or write them, and never over others.

    :param files: text by path.
    :raises LauncherError: another file is there.
    """
    if directory is None:
        sys.stdout.write("".join(text if number == 0 else f"\n# {path}\n{text}" for number, (path, text) in enumerate(files.items())))
        return
    texts = {directory / path: text for path, text in files.items()}
    try:
        for path, text in texts.items():
            if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
                raise LauncherError(f"{path} is there already, and is another", fix="move it away, or name another directory: --output DIRECTORY")
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LauncherError(f"{error.filename} cannot be written: {error.strerror}", fix="name another directory: --output DIRECTORY") from error
    sys.stdout.write("".join(f"{path}\n" for path in texts))
