"""A container as a file of Docker Compose (Compose specification)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

import yaml

from torchstrata.containers.description import HOME, ContainerDescription
from torchstrata.image.runtime import DEV, WORKSPACE

FILE = "compose.yaml"

OWNER: Final = "HOST_UID"
"""The variable by which Compose is told who starts it. It knows of no user by itself: shells have ``UID``, and do not export it."""


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the file."""
    service = {name: value for name, value in _service(description).items() if value}
    document = {"name": description.label, "services": {"torch": service}, "volumes": {"home": {}}}
    told = f"{OWNER}=$(id -u) " if description.is_for_anybody else ""
    start = f"{description.made(shlex.quote(description.workspace))} && {told}docker compose up --detach --wait"
    address = f"Its address, with the token{description.moved and f' and port {description.moved}'}: docker compose logs"
    into = "Into it: docker compose exec torch bash -l" if description.is_interactive else address
    kept = f"# The container runs as {OWNER}, so that it can write to your workspace. For later calls: echo {told}>> .env\n" if told else ""
    head = f"# {description.title}.\n# Start: {start}\n{kept}# {into}\n"
    return {FILE: head + yaml.safe_dump(document, sort_keys=False, width=1000)}


def _service(description: ContainerDescription) -> dict[str, Any]:
    return {
        "image": description.image,
        "platform": description.unusual_platform,
        "pull_policy": "missing" if description.is_pullable else "never",
        "user": _user(description),
        "tty": description.is_interactive,
        "stdin_open": description.is_interactive,
        "shm_size": description.memory,
        "ulimits": {**description.limits},
        "environment": _environment(description),
        "ports": [*description.bindings],
        "volumes": [
            {"type": "bind", "source": escaped(description.workspace), "target": WORKSPACE, "bind": {"create_host_path": False}},
            {"type": "volume", "source": "home", "target": HOME},
        ],
        "deploy": _gpus(description),
    }


def _user(description: ContainerDescription) -> str:
    """Return whom the container runs as: who starts it, where that is to be anybody, as a variable (Compose specification, Interpolation)."""
    uid, _, gid = DEV.partition(":")
    return f"${{{OWNER}:-{uid}}}:{gid}" if description.is_for_anybody else description.user


def _environment(description: ContainerDescription) -> dict[str, str]:
    """Return the variables; without a key of SSH the one of the shell that starts Compose counts, if it has any."""
    asked = {"SSH_PUBLIC_KEY": "${SSH_PUBLIC_KEY:-}"} if description.has_ssh and not description.authorized_keys else {}
    return {name: escaped(value) for name, value in description.environment.items()} | asked


def _gpus(description: ContainerDescription) -> dict[str, Any]:
    gpus = description.gpus
    if gpus is None:
        return {}
    which = {"device_ids": [*gpus.devices]} if gpus.devices else {"count": "all" if gpus.count < 0 else gpus.count}
    return {"resources": {"reservations": {"devices": [{"driver": "nvidia", **which, "capabilities": ["gpu"]}]}}}


def escaped(text: str) -> str:
    """Return a text that Compose takes as it is: a dollar begins a variable (Compose specification, Interpolation)."""
    return text.replace("$", "$$")
