"""A container as a ``devcontainer.json`` (Dev Container metadata reference), for editors; they start no services.

A label of the image names the user; editors give that user the number of the host's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from torchstrata.containers.description import ContainerDescription
from torchstrata.image.runtime import VENV, WORKSPACE

FILE = ".devcontainer/devcontainer.json"

EXTENSIONS: Final = ("ms-python.python", "ms-toolsai.jupyter")
ROOT: Final = {"remoteUser": "root", "containerUser": "root"}
"""In a rootless engine root is the caller, and owns the project."""


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the file."""
    tag, _, digest = description.image.partition("@")
    vscode = {"extensions": [*EXTENSIONS], "settings": {"python.defaultInterpreterPath": f"{VENV}/bin/python"}}
    document: dict[str, Any] = {
        "name": description.title,
        "image": description.image if description.is_pullable else tag,  # BuildKit asks a registry for any digest in FROM
        "runArgs": _arguments(description),
        "workspaceMount": f"source=${{localWorkspaceFolder}},target={WORKSPACE},type=bind",
        "workspaceFolder": WORKSPACE,
        **(ROOT if description.user.startswith("0:") else {}),
        "customizations": {"vscode": vscode, **({} if description.is_pullable else {"torchstrata": {"digest": digest}})},
    }
    return {FILE: json.dumps(document, indent=2, ensure_ascii=False) + "\n"}


def _arguments(description: ContainerDescription) -> list[str]:
    gpus = ["--gpus", str(description.gpus)] if description.gpus else []
    platform = [f"--platform={description.platform}"] if description.unusual_platform else []
    limits = [f"--ulimit={name}={value}" for name, value in description.limits.items()]
    return [*platform, *gpus, f"--shm-size={description.memory}", *limits]
