"""The bake definition of OS parts: what BuildKit builds, as a value (https://docs.docker.com/build/bake/reference/)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torchstrata.layers.contexts import PARENT
from torchstrata.locks.os_locks import OS_IMAGE
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.store.layer import PLATFORM

Exporter = Literal["layout", "image"]
"""How layers leave BuildKit: as an OCI layout, or as an image where the engine's classic store can do no other."""

REGISTRY: Final = "docker-image://"
"""Begins the context that is an image of a registry."""

DPKG: Final = "/etc/dpkg/dpkg.cfg.d/99torchstrata"
"""After all that the image itself may say of what packages leave out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The flavours to build on one OS.

    :param flavours: parents first.
    :param parent: name of the context that the first of them starts from: ``os``, or the flavour below.
    :param below: what that context is: ``oci-layout://...``, ``docker-image://...``, or a directory with ``os.tar``.
    :param known: number of layers in that context.
    :param epoch: SOURCE_DATE_EPOCH.
    :param plain: those of the flavours that install no package, and need no list of them.
    """

    system: OperatingSystem
    flavours: tuple[str, ...]
    parent: str
    below: str
    known: int
    epoch: int
    plain: frozenset[str] = frozenset()

    def target(self, name: str) -> str:
        """Return the bake target of a flavour or of another context; bake allows no dots in it."""
        return f"{self.system.name.replace('.', '_')}-{name}"

    @property
    def top(self) -> str:
        """The target whose image holds all layers."""
        return self.target(self.flavours[-1])


def definition(jobs: Sequence[Job], staged: Path, out: Path, exporter: Exporter, proxies: Mapping[str, str]) -> dict[str, Any]:
    """Return the definition that builds all ``jobs`` and exports the last flavour of each.

    :param staged: directory of the build contexts, ``<flavour>`` and ``apt-<os>``.
    :param out: directory for OCI layouts, one per top target.
    :param proxies: build arguments for the network, such as ``http_proxy``; BuildKit keeps them out of images.
    """
    targets: dict[str, dict[str, Any]] = {}
    for job in jobs:
        targets |= _targets(job, staged, proxies)
        targets[job.top]["output"] = [_output(job, out, exporter)]
    return {"group": {"default": {"targets": [job.top for job in jobs]}}, "target": _on_platforms(targets, jobs)}


def question(job: Job, dockerfile: str, context: Path, out: Path, proxies: Mapping[str, str]) -> dict[str, Any]:
    """Return the definition that runs ``dockerfile`` over what lies below a job; its last stage goes to ``out``.

    :param dockerfile: its text; it may start from ``os``.
    """
    targets, below = _bottom(job)
    asked = {**_target(context, {"os": below}, proxies), "dockerfile-inline": dockerfile, "output": [f"type=local,dest={out}"], "no-cache": True}
    return {"group": {"default": {"targets": [job.top]}}, "target": _on_platforms({**targets, job.top: asked}, [job])}


def _on_platforms(targets: Mapping[str, Mapping[str, Any]], jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Return the targets, each with its job's platform; the default one is not named, as the builder's own is that."""
    named = {job.target(""): job.system.platform for job in jobs if job.system.platform != PLATFORM}
    platforms = {name: [platform for start, platform in named.items() if name.startswith(start)] for name in targets}
    return {name: {**target, **({"platforms": platforms[name]} if platforms[name] else {})} for name, target in targets.items()}


def image_name(job: Job) -> str:
    """Return the name under which the ``image`` exporter leaves a job's image."""
    return f"torchstrata-build:{job.top}"


def _targets(job: Job, staged: Path, proxies: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    bottom, below = _prepared(job, staged) if job.below.startswith(REGISTRY) else _bottom(job)
    apt = {**_target(staged / f"apt-{job.system.name}", {"os": below}, proxies), "no-cache": True}
    targets = bottom if job.plain.issuperset(job.flavours) else {**bottom, job.target("apt"): apt}
    parent, context = job.parent, below
    for flavour in job.flavours:
        args = {**proxies, PARENT: parent, "SOURCE_DATE_EPOCH": str(job.epoch), "COMPILERS": " ".join(job.system.compilers)}
        contexts = {parent: context, **({} if flavour in job.plain else {"apt": f"target:{job.target('apt')}"})}
        targets[job.target(flavour)] = _target(staged / flavour, contexts, args)
        parent, context = flavour, f"target:{job.target(flavour)}"
    return targets


def _prepared(job: Job, staged: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the context that is an OS image of a registry, with the dpkg configuration that bootstrapped ones have."""
    told = {**_target(staged / f"apt-{job.system.name}", {OS_IMAGE: job.below}, {}), "dockerfile-inline": f"FROM {OS_IMAGE}\nCOPY dpkg.cfg {DPKG}\n"}
    return {job.target(OS_IMAGE): told}, f"target:{job.target(OS_IMAGE)}"


def _bottom(job: Job) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the context that the first flavour starts from, and the target behind it, if it takes one."""
    if "://" in job.below:
        return {}, job.below
    unpack = {"context": job.below, "dockerfile-inline": "FROM scratch\nADD os.tar /\n", "output": ["type=cacheonly"]}
    return {job.target("os"): unpack}, f"target:{job.target('os')}"


def _target(context: Path, contexts: Mapping[str, str], args: Mapping[str, str]) -> dict[str, Any]:
    return {"context": str(context), "contexts": dict(contexts), "args": dict(args), "output": ["type=cacheonly"]}


def _output(job: Job, out: Path, exporter: Exporter) -> str:
    # Uncompressed: the store compresses, on all cores and with its own codec.
    if exporter == "layout":
        return f"type=oci,tar=false,dest={out / job.top},compression=uncompressed"
    return f"type=docker,name={image_name(job)}"
