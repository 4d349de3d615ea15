"""Options of the verbs about containers and the machine that they run on: see :mod:`torchstrata.commands.options`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torchstrata.arguments import option, required, switch, word, words
from torchstrata.commands.options import cell_words, registry_option

CONTAINER: Final = "name of the container (default: the only one)"


def _launcher(what: str) -> Any:
    return switch(f"start nothing: write {what}", group="launcher")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpOptions:
    """Start a container, or go on with the one that is there, and say how to reach it; or write files that start it without this tool."""

    cells: tuple[str, ...] = words("cell, such as 2.8-cu121, or tag, such as v2.8 (default: the newest for a machine with, or without, a GPU)", "CELL|TAG")
    flavour: str | None = option("of a cell (default: the all-in-one)", "FLAVOUR")
    platform: str | None = option("platform of the image, such as linux/arm64 (default: this machine's)", "OS/ARCHITECTURE")
    workspace: Path = option("directory that is /workspace in the container, made if it is not there (default: workspace)", "DIRECTORY", Path("workspace"))
    gpus: str | None = option("all, none, a number, or device=0,2 (default: all that are here)", "GPUS")
    name: str | None = option("of the container (default: torchstrata-TAG)", "NAME")
    port: tuple[str, ...] = option(
        "port of this machine for a service, such as jupyter=8890 (default: the one of the service, 2222 for SSH, or the next free one)", "SERVICE=PORT", ()
    )
    listen: str | None = option("address of this machine that the ports are at; 0.0.0.0 is all (default: 127.0.0.1)", "ADDRESS")
    shm: float | None = option("size of /dev/shm (default: 8)", "GB")
    ssh_key: Path | None = option("public key that SSH lets in (default: those in ~/.ssh)", "FILE")
    ssh_entry: bool = switch("let `ssh NAME` lead to the container: an entry in a file that ~/.ssh/config includes")
    replace: bool = switch("make the container anew; workspace and home stay, what was installed in it goes")
    pull: bool = switch("ask the registry for the image though one of that name is here")
    yes: bool = switch("build an image that is nowhere, without asking")
    wait: float = option("time until its services must answer (default: 300)", "SECONDS", 300.0)
    registry: str | None = registry_option()
    print: bool = _launcher("a line of docker run")
    compose: bool = _launcher("compose.yaml")
    devcontainer: bool = _launcher("devcontainer.json")
    k8s: bool = _launcher("a pod of Kubernetes")
    jupyterhub: bool = _launcher("a profile of JupyterHub with DockerSpawner")
    slurm: bool = _launcher("a batch job of Slurm, for Apptainer or enroot")
    output: Path | None = option("write the files there (default: to standard output)", "DIRECTORY")


@dataclass(frozen=True, kw_only=True, slots=True)
class SshOptions:
    """Log in to a container by SSH, or run a command there; nobody is asked whether its host key is right."""

    words: tuple[str, ...] = words(f"{CONTAINER}, then a command", "NAME", verbatim=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class JupyterOptions:
    """Print the address of a container's JupyterLab, with its token."""

    name: str | None = word(CONTAINER, "NAME")
    open: bool = switch("open it in a browser, too")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogsOptions:
    """Print what a container has said."""

    name: str | None = word(CONTAINER, "NAME")
    follow: bool = switch("go on until it ends, or Ctrl-C")


@dataclass(frozen=True, kw_only=True, slots=True)
class PsOptions:
    """Show the containers that were started here, running or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownOptions:
    """Stop containers; what is in them stays, and `inv up` goes on with it."""

    words: tuple[str, ...] = words("names of containers (default: the only one)", "NAME", verbatim=True)
    remove: bool = switch("remove them, too: what was installed in them goes, workspace and home stay")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """Look at this machine, or at one that is described, and say which cells run on it, why others do not, and which to take."""

    cells: tuple[str, ...] = cell_words()
    driver: str | None = option("judge a machine with this NVIDIA driver, such as 530.30 (default: look at this one)", "VERSION")
    gpu: tuple[str, ...] | None = option("judge a machine with these GPUs, such as sm_90 or 9.0, with commas between them (default: look at this one)", "GPU")
    flavour: str | None = option("flavour of the image that is named (default: the all-in-one)", "FLAVOUR")
    platform: str | None = option("platform of the machine, such as linux/arm64 (default: this one's; linux/amd64 if one is described)", "OS/ARCHITECTURE")
    json: bool = switch("print JSON instead of tables")


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftOptions:
    """Show what differs between a container and its image: packages, files, torch; or write the files that make it an image."""

    container: str = required("name or ID of a container, running or not", "CONTAINER")
    against: str | None = option("compare with this image of the engine (default: the one that the container was made of)", "IMAGE")
    freeze: Path | None = option("write requirements.txt, Dockerfile and what else they need into a new directory (default: do not)", "DIRECTORY")
    json: bool = switch("print JSON")
