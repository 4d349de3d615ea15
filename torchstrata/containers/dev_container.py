"""A container as a ``devcontainer.json`` (Dev Container metadata reference): for editors, which start no services.

Who the user is stands in a label of the image; editors give it the number of the host's user.
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
"""Where root is the caller on the host (a rootless engine): the project is root's."""


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the file."""
    document: dict[str, Any] = {
        "name": description.title,
        "image": description.image,
        "runArgs": _arguments(description),
        "workspaceMount": f"source=${{localWorkspaceFolder}},target={WORKSPACE},type=bind",
        "workspaceFolder": WORKSPACE,
        **(ROOT if description.user.startswith("0:") else {}),
        "customizations": {"vscode": {"extensions": [*EXTENSIONS], "settings": {"python.defaultInterpreterPath": f"{VENV}/bin/python"}}},
    }
    return {FILE: json.dumps(document, indent=2, ensure_ascii=False) + "\n"}


def _arguments(description: ContainerDescription) -> list[str]:
    gpus = ["--gpus", str(description.gpus)] if description.gpus else []
    platform = [f"--platform={description.platform}"] if description.unusual_platform else []
    return [*platform, *gpus, f"--shm-size={description.memory}", *(f"--ulimit={name}={value}" for name, value in description.limits.items())]
