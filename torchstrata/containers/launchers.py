"""Files that start a container without this tool: a description goes in, text comes out.

Each names the image by its digest, so that an old file still starts the image that it was written for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from torchstrata.containers import batch_job, command_line, compose_file, dev_container, hub_profile, pod_file
from torchstrata.containers.description import JUPYTER, ContainerDescription

Launcher = Literal["print", "compose", "devcontainer", "k8s", "jupyterhub", "slurm"]

Renderer = Callable[[ContainerDescription], Mapping[str, str]]

RENDERERS: Final[Mapping[Launcher, Renderer]] = {
    "print": command_line.render,
    "compose": compose_file.render,
    "devcontainer": dev_container.render,
    "k8s": pod_file.render,
    "jupyterhub": hub_profile.render,
    "slurm": batch_job.render,
}
"""The renderer of each launcher; it returns the text of files by their path, the one to begin with first."""

ELSEWHERE: Final[tuple[Launcher, ...]] = ("k8s", "slurm")
"""Launchers that run on other machines, which must be able to pull the image."""


def has_its_service(launcher: Launcher, description: ContainerDescription) -> bool:
    """Return whether an image has what a launcher starts in it: JupyterHub starts JupyterLab."""
    return launcher != "jupyterhub" or any(endpoint.name == JUPYTER for endpoint in description.endpoints)
