"""What is right and wrong with this machine as one that images are built and run on."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from torchstrata.building import engine as engines
from torchstrata.building.engine import Engine
from torchstrata.errors import BuildxError, EngineError, GpuAccessError, TorchstrataError, VariableError
from torchstrata.files import text_or_empty
from torchstrata.host import docker_config
from torchstrata.machine import gpu_access, nvml
from torchstrata.machine.fitting import Hardware
from torchstrata.machine.gpu_access import GpuAccess
from torchstrata.progress import size

Severity = Literal["ok", "warning", "error"]

SHM: Final = Path("/dev/shm")  # noqa: S108  # the kernel's name for shared memory
PROCESSES: Final = Path("/proc")
LITTLE_SPACE: Final = 25_000_000_000
"""Bytes that the first cell with CUDA takes to build, pulled and unpacked included."""

LITTLE_SHM: Final = 1_000_000_000
OLDEST: Final = (20, 10, 10)
"""The oldest Docker whose seccomp profile lets newer systems start threads (``clone3``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """The result of one look.

    :param fix: what to do; empty where all is well.
    :param error: what the program ends with on its account.
    """

    subject: str
    what: str
    fix: str = ""
    error: TorchstrataError | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return "error" if self.error else "warning" if self.fix else "ok"


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """All that was seen.

    :param access: how containers get GPUs; ``None`` where there is no engine or no GPU.
    """

    observations: tuple[Observation, ...]
    hardware: Hardware
    access: GpuAccess | None


def look() -> Survey:
    """Look at this machine. Nothing is changed, and nothing is raised: what does not work is an observation."""
    try:
        engine = engines.connect()
    except (EngineError, VariableError) as error:
        return _survey([_refused("engine", error)], None)
    return _survey([*_engine(engine), _buildx(engine)], engine)


def _survey(observations: list[Observation], engine: Engine | None) -> Survey:
    hardware, of_driver = _driver()
    access = gpu_access.access(engine.info, is_local=engine.is_local) if engine and hardware.gpus else None
    observations += [*of_driver, *([_access(access)] if access else []), _space(engine), _shared_memory(), _locked_memory()]
    return Survey(observations=tuple(observations), hardware=hardware, access=access)


def _engine(engine: Engine) -> Iterator[Observation]:
    too_old = gpu_access.version(engine.version) < OLDEST
    what, fix = f"Docker {engine.version} at {docker_config.address()}", "update it: threads do not start in images of newer systems" if too_old else ""
    yield _refused("engine", EngineError(what, fix=fix)) if too_old else Observation(subject="engine", what=what)
    yield Observation(subject="image store", what=engine.store)
    yield _cgroup(engine.info)


def _cgroup(info: Mapping[str, Any]) -> Observation:
    version = str(info.get("CgroupVersion") or "unknown")
    rootless = ", rootless" if any("rootless" in option for option in info.get("SecurityOptions") or ()) else ""
    return Observation(subject="cgroup", what=f"version {version}, driver {info.get('CgroupDriver') or 'unknown'}{rootless}")


def _buildx(engine: Engine) -> Observation:
    try:
        return Observation(subject="buildx", what=engine.buildx())
    except BuildxError as error:
        return Observation(subject="buildx", what=f"{error.what}: images can be run, and not built", fix=error.fix)


def _driver() -> tuple[Hardware, list[Observation]]:
    try:
        hardware = nvml.read()
    except GpuAccessError as error:
        return Hardware(), [_refused("driver", error)]
    if not hardware.driver:
        return hardware, [Observation(subject="driver", what="no NVIDIA driver and no NVIDIA GPU: torch uses the CPU")]
    observations = [Observation(subject="driver", what=f"NVIDIA {hardware.driver}")]
    observations += [Observation(subject="gpu", what=f"{gpu.name}, {gpu.generation}, {size(gpu.memory)}") for gpu in hardware.gpus]
    if not hardware.gpus:
        observations.append(_refused("gpu", GpuAccessError("a driver is here, and no GPU answers", fix="see what nvidia-smi and dmesg say")))
    return hardware, observations


def _access(access: GpuAccess) -> Observation:
    if access.words:
        return Observation(subject="GPUs in containers", what=f"{access.how}: {' '.join(access.words)}", fix=access.cure)
    return _refused("GPUs in containers", GpuAccessError(access.how, fix=access.cure))


def _space(engine: Engine | None) -> Observation:
    free = engine.free_space() if engine else shutil.disk_usage("/").free
    if free is None:
        return Observation(subject="disk", what="not to be known: the engine runs elsewhere")
    advice = "free some (docker image prune, docker buildx prune, inv cache --prune): a cell with CUDA takes 25 GB to build, 15 GB to run"
    fix = advice if free < LITTLE_SPACE else ""
    return Observation(subject="disk", what=f"{size(free)} free", fix=fix)


def _shared_memory() -> Observation:
    """Say what shared memory containers could have; without asking they have 64 MB."""
    total = shutil.disk_usage(SHM).total if SHM.is_dir() else 0
    what = f"the host has {size(total)}; containers have 64 MB unless they ask"
    if total < LITTLE_SHM:
        return Observation(subject="shared memory", what=what, fix="mount a larger /dev/shm, or start with --shm-size, not --ipc=host")
    return Observation(subject="shared memory", what=f"{what}: --shm-size=8g, or --ipc=host")


def _locked_memory() -> Observation:
    """Say what the engine's containers may lock, who inherit it from containerd or the engine."""
    limit = engine_memlock()
    if limit == resource.RLIM_INFINITY:
        return Observation(subject="locked memory", what="containers may lock all")
    known = "not to be known" if limit is None else f"containers may lock {size(limit)}"
    return Observation(subject="locked memory", what=f"{known}; for InfiniBand start with --ulimit memlock=-1")


def engine_memlock(processes: Path = PROCESSES) -> int | None:
    """Return the bytes that children of containerd, else of dockerd, may lock; ``None`` where neither can be read."""
    names = {text_or_empty(path).strip(): path.parent / "limits" for path in sorted(processes.glob("[0-9]*/comm"))}
    for daemon in ("containerd", "dockerd"):
        rows = text_or_empty(names[daemon]).splitlines() if daemon in names else ()
        limits = [row.split()[3] for row in rows if row.startswith("Max locked memory")]
        if limits:
            return resource.RLIM_INFINITY if limits[0] == "unlimited" else int(limits[0])
    return None


def _refused(subject: str, error: TorchstrataError) -> Observation:
    return Observation(subject=subject, what=error.what, fix=error.fix, error=error)
