"""How an engine gives GPUs to containers, and the words of ``docker run`` for it.

Docker serves ``--gpus`` by CDI where it is new enough and finds NVIDIA's hook for CDI and a specification, else by
the hook of NVIDIA's container toolkit. Where neither is there, the toolkit's runtime or a CDI device can be asked for
by name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torchstrata import process
from torchstrata.files import text_or_empty

CDI_FIRST: Final = (29, 2)
"""The first Docker that asks CDI for ``--gpus`` before the toolkit's hook (moby, pull request 50228)."""

SPECIFICATION: Final = re.compile(r'"?kind"?\s*:\s*"?nvidia\.com/gpu\b')
HOOK: Final = "nvidia-container-runtime-hook"
CDI_HOOK: Final = "nvidia-cdi-hook"
RUNTIME: Final = "nvidia"
CDI_KIND: Final = "nvidia.com/gpu"
DIRECTORIES: Final = ("/etc/cdi", "/var/run/cdi")

Way = Literal["gpus", "runtime", "device"]

WORDS: Final[Mapping[Way, tuple[str, ...]]] = {
    "gpus": ("--gpus", "all"),
    "runtime": ("--runtime", RUNTIME, "--env", "NVIDIA_VISIBLE_DEVICES=all"),
    "device": ("--device", f"{CDI_KIND}=all"),
}
"""What ``docker run`` is told, by what serves the GPUs."""

CURE: Final = "install NVIDIA's container toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
CDI_CURE: Final = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, or install NVIDIA's container toolkit"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuParts:
    """What an engine and its machine have to pass GPUs in.

    :param engine: version of Docker, such as ``(26, 1)``.
    :param has_runtime: the engine knows the runtime ``nvidia``.
    :param has_hook: the toolkit's hook is installed.
    :param has_cdi: the engine looks for CDI devices.
    :param has_cdi_hook: the hook that NVIDIA's specifications call is installed.
    :param has_specification: there is one for NVIDIA's GPUs.
    """

    engine: tuple[int, ...]
    has_runtime: bool = False
    has_hook: bool = False
    has_cdi: bool = False
    has_cdi_hook: bool = False
    has_specification: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuAccess:
    """The way a container gets GPUs.

    :param way: what serves them; ``None`` if nothing does.
    :param how: the same in words.
    :param cure: what to do where there is no way, or a better one; empty if all is well.
    """

    way: Way | None
    how: str
    cure: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Options of ``docker run``; none if there is no way."""
        return WORDS[self.way] if self.way else ()


def access(info: Mapping[str, Any], *, is_local: bool) -> GpuAccess:
    """Return how containers get GPUs; see :func:`parts_of`."""
    return way(parts_of(info, is_local=is_local))


def way(parts: GpuParts) -> GpuAccess:
    """Return how containers get GPUs."""
    if parts.has_cdi and parts.has_specification and parts.has_cdi_hook and parts.engine >= CDI_FIRST:
        return GpuAccess(way="gpus", how="--gpus is served by CDI")
    if parts.has_hook:
        return GpuAccess(way="gpus", how="--gpus is served by the hook of NVIDIA's container toolkit")
    if parts.has_runtime:
        return GpuAccess(way="runtime", how="not by --gpus, but by the runtime nvidia", cure=CURE)
    if parts.has_cdi and parts.has_specification:
        return GpuAccess(way="device", how="not by --gpus, but by --device, with CDI")
    if parts.has_cdi and parts.has_cdi_hook:
        return GpuAccess(way=None, how="CDI is on, and has no specification of the GPUs", cure=CDI_CURE)
    return GpuAccess(way=None, how="neither NVIDIA's container toolkit nor CDI can pass GPUs in", cure=CURE)


def parts_of(info: Mapping[str, Any], *, is_local: bool) -> GpuParts:
    """Return what is there.

    :param info: what the engine says about itself (Docker's API, ``/info``).
    :param is_local: it runs on this machine, so that its files can be looked at. Of one elsewhere only what it says
        is known: what has the runtime has the hook, too.
    """
    directories = info.get("CDISpecDirs") or ()
    discovered = any(str(device.get("ID", "")).startswith(CDI_KIND) for device in info.get("DiscoveredDevices") or ())
    has_runtime = RUNTIME in (info.get("Runtimes") or {})
    return GpuParts(
        engine=version(str(info.get("ServerVersion", "")))[:2],
        has_runtime=has_runtime,
        has_hook=_is_installed(HOOK) if is_local else has_runtime,
        has_cdi=bool(directories),
        has_cdi_hook=_is_installed(CDI_HOOK) if is_local else discovered,
        has_specification=discovered or (is_local and specified(map(Path, directories or DIRECTORIES))),
    )


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of an engine's version, such as ``26.1.5+dfsg1``; the rest says how it was packed."""
    number = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, number[0].split("."))) if number else ()


def specified(directories: Iterable[Path]) -> bool:
    """Return whether a CDI specification of NVIDIA's GPUs lies in one of some directories."""
    files = itertools.chain.from_iterable(directory.glob("*") for directory in directories)
    return any(path.suffix in {".json", ".yaml", ".yml"} and SPECIFICATION.search(text_or_empty(path)) for path in files)


def _is_installed(program: str) -> bool:
    return process.where(program) is not None
