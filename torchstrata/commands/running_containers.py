"""The verbs about containers that ``inv up`` has started: ``inv ssh``, ``jupyter``, ``logs``, ``ps``, ``down``."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docker.models.containers import Container

from torchstrata import process, progress
from torchstrata.building import engine as engines
from torchstrata.commands.container_options import DownOptions, JupyterOptions, LogsOptions, PsOptions, SshOptions
from torchstrata.containers import description, running
from torchstrata.containers.description import JUPYTER, SSH, bracketed
from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.containers.running import LABEL, OF_TAG, Binding, Containers
from torchstrata.errors import ContainerError
from torchstrata.image.runtime import WORKSPACE
from torchstrata.text import printable_lines

USER: Final = "dev"

ENDED: Final = frozenset({"created", "exited", "dead"})
"""States, as the engine names them, of a container of which nothing runs."""

PIPED: Final = 1000
"""Columns of a table that goes to a program: nothing is folded."""

LACKING: Final = {
    SSH: "make a key, ssh-keygen -t ed25519, then: {again} --replace; or take a flavour that has an SSH server: --flavour ssh",
    JUPYTER: "take a flavour that has it: inv up CELL --flavour jupyter",
}
"""What to do where a container lacks a service."""


def connect() -> Containers:
    """Return the containers of this machine's engine.

    :raises EngineError: none answers.
    """
    return Containers(engines.connect().client)


def ssh(options: SshOptions) -> None:
    """Become ``ssh`` to a container.

    :raises NoContainerError: there is no such container.
    :raises ContainerError: it does not run, or has no SSH.
    """
    name, *command = options.words or (None,)
    container = _that_runs(name)
    binding, known_hosts = _binding(container, SSH), Keepsakes.of(str(container.name)).known_hosts
    is_known = os.access(known_hosts, os.R_OK)
    host_keys = ["-o", f"HostKeyAlias={container.name}", "-o", f'UserKnownHostsFile="{known_hosts}"'] if is_known else []
    process.become("ssh", *host_keys, *_identity(container), "-p", str(binding.published), "--", f"{USER}@{binding.reachable}", *command)


def jupyter(options: JupyterOptions) -> None:
    """Print the address of JupyterLab.

    :raises NoContainerError: there is no such container.
    :raises ContainerError: it does not run, or has no JupyterLab, or its token is another user's.
    """
    container = _that_runs(options.name)
    url = address(container)
    progress.say(url)
    if options.open:
        webbrowser.open(url)


def logs(options: LogsOptions) -> None:
    """Print the log of a container."""
    container = connect().choose(options.name)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(errors="replace"), translate=True)
    with running.refusals():
        for chunk in container.logs(stream=True, follow=options.follow):  # what was said on a terminal comes byte by byte
            sys.stdout.write(printable_lines(decoder.decode(chunk)))
            sys.stdout.flush()


def ps(options: PsOptions) -> None:
    """Show a table of containers."""
    del options
    view = progress.table()
    containers, console = connect(), progress.plain_console()
    own = containers.own()
    view.add_column("container", no_wrap=True, min_width=max((len(str(container.name)) for container in own), default=0))
    for header in ("image", "state", "reach it", "workspace", "user"):
        view.add_column(header, overflow="fold")
    for container in own:
        reach = ", ".join(f"{binding.name} {bracketed(binding.address)}:{binding.published}" for binding in running.bindings(container)) or "docker exec"
        labels = container.labels
        view.add_row(str(container.name), labels[OF_TAG], containers.state(container), reach, running.source(container, WORKSPACE), labels[LABEL])
    if not console.is_terminal:
        console.width = PIPED
    console.print(view)


def down(options: DownOptions) -> None:
    """Stop containers, and remove them if that was asked for; never what they have mounted.

    :raises NoContainerError: there is no such container; then none is stopped.
    """
    containers = connect()
    for container in [containers.choose(name) for name in dict.fromkeys(options.words) or (None,)]:
        done = "did not run" if container.status in ENDED else "stopped"
        running.stop(container)
        if options.remove:
            running.remove(container)
            Keepsakes.of(str(container.name)).forget()
        stays = f"{running.source(container, WORKSPACE)} and the volume {container.name}-home stay"
        progress.say(f"{container.name}: {'removed' if options.remove else f'{done}; {again(container)} goes on with it'}; {stays}")


def again(container: Container) -> str:
    """Return the command that goes on with a container, from this directory."""
    tag, name, workspace = container.labels[OF_TAG].rpartition(":")[2], str(container.name), running.source(container, WORKSPACE)
    named = () if name == description.name(tag) else ("--name", name)
    placed = () if Path(workspace) == Path("workspace").resolve() else ("--workspace", workspace)
    return shlex.join(("inv", "up", tag, *named, *placed))


def welcome(container: Container) -> Iterator[str]:
    """Yield how to reach a container, a line each."""
    for binding in running.bindings(container):
        if binding.name == JUPYTER:
            yield f"JupyterLab  {address(container)}"
        elif binding.name == SSH:
            line = shlex.join(("ssh", *_identity(container), "-p", str(binding.published), f"{USER}@{binding.reachable}"))
            yield f"SSH         {line}   (or: inv ssh {container.name})"
        else:
            yield f"{binding.name:11} {binding.scheme and f'{binding.scheme}://'}{bracketed(binding.reachable)}:{binding.published}"
    if not running.bindings(container):
        yield f"shell       docker exec -it {container.name} bash -l"


def address(container: Container) -> str:
    """Return the address of JupyterLab, with the token.

    :raises ContainerError: it has none, or the token is another user's.
    """
    binding, token = _binding(container, JUPYTER), Keepsakes.of(str(container.name)).read_token()
    if token is None:
        raise ContainerError(f"the token of {container.name} is not yours", fix=f"ask {container.labels[LABEL]}, who has started it")
    return f"http://{bracketed(binding.reachable)}:{binding.published}/lab?token={token}"


def _identity(container: Container) -> tuple[str, ...]:
    """Return the option by which ssh finds the key that a container was made with."""
    file = running.identity_file(container)
    return ("-i", file) if file else ()


def _that_runs(name: str | None) -> Container:
    container = connect().choose(name)
    if container.status != "running":
        raise ContainerError(f"{container.name} does not run", fix=f"start it: {again(container)}")
    return container


def _binding(container: Container, service: str) -> Binding:
    for binding in running.bindings(container):
        if binding.name == service:
            return binding
    raise ContainerError(f"{container.name} has no {service}", fix=LACKING[service].format(again=again(container)))
