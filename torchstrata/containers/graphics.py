"""GPUs of this host, and how its engine hands them to containers: the least that must be known before one is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import docker.types

from torchstrata.containers.description import Gpus
from torchstrata.errors import NoGpuError

DEVICES: Final = ("dev/nvidiactl", "dev/dxg")
"""What NVIDIA's driver makes on Linux, and what the one of Windows does in WSL."""

RUNTIME: Final = "nvidia"
CDI_KIND: Final = "nvidia.com/gpu"
HOOK: Final = ("usr/bin/nvidia-container-runtime-hook", "usr/bin/nvidia-container-toolkit")
"""With one of these on its host dockerd serves ``--gpus`` without further configuration."""

TOOLKIT: Final = "install NVIDIA's container toolkit, `nvidia-ctk runtime configure --runtime=docker`, restart Docker; or give --gpus none"

Way = Literal["toolkit", "cdi"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphics:
    """What was found.

    :param is_here: the host has a driver with a GPU.
    :param way: how its engine serves GPUs; ``None`` if it cannot.
    """

    is_here: bool
    way: Way | None

    @classmethod
    def of_host(cls, info: Mapping[str, Any], root: Path = Path("/")) -> Graphics:
        """Return what devices, and what the engine says of itself (``docker info``), tell of this host."""
        return cls(is_here=any((root / path).exists() for path in DEVICES), way=_way(info, root))

    def choose(self, asked: str | None, *, cuda: bool) -> tuple[Gpus | None, str]:
        """Return the GPUs of a container, and a line to say where that is not what one may expect.

        :param asked: ``all``, ``none``, a number or ``device=...``; ``None`` for all where there are any.
        :param cuda: whether the image can use any.
        :raises NoGpuError: some were asked for, and cannot be had.
        """
        if asked is not None:
            return self._asked(asked, cuda=cuda), ""
        if not cuda:
            return None, ""
        if not self.is_here:
            return None, "no GPU is here: torch computes on the CPU"
        return (Gpus(), "") if self.way else (None, f"a GPU is here, and the engine cannot hand it to containers: {TOOLKIT.rpartition(';')[0]}")

    def _asked(self, asked: str, *, cuda: bool) -> Gpus | None:
        gpus = parsed(asked)
        if gpus and not cuda:
            raise NoGpuError(f"--gpus {asked}: the torch of this image cannot use a GPU", fix="take an image with CUDA, or leave --gpus out")
        if gpus and not self.is_here:
            raise NoGpuError(f"--gpus {asked}: no GPU is here, or its driver is not loaded", fix="look at what `nvidia-smi` says, or leave --gpus out")
        if gpus and not self.way:
            raise NoGpuError(f"--gpus {asked}: this engine cannot hand GPUs to containers", fix=TOOLKIT)
        return gpus

    def request(self, gpus: Gpus) -> docker.types.DeviceRequest:
        """Return what the engine is asked for."""
        if self.way == "cdi":
            names = gpus.devices or (("all",) if gpus.count < 0 else tuple(map(str, range(gpus.count))))
            return docker.types.DeviceRequest(driver="cdi", device_ids=[f"{CDI_KIND}={name}" for name in names])
        if gpus.devices:
            return docker.types.DeviceRequest(device_ids=[*gpus.devices], capabilities=[["gpu"]])
        return docker.types.DeviceRequest(count=gpus.count, capabilities=[["gpu"]])


def parsed(asked: str) -> Gpus | None:
    """Return what words for GPUs mean.

    :raises NoGpuError: they mean nothing.
    """
    try:
        return Gpus.parse(asked)
    except ValueError as error:
        raise NoGpuError(f"--gpus: {error}", fix="write all, none, a number, or device=0,2") from error


def _way(info: Mapping[str, Any], root: Path) -> Way | None:
    if RUNTIME in (info.get("Runtimes") or {}) or any((root / path).exists() for path in HOOK):
        return "toolkit"
    directories = info.get("CDISpecDirs") or ()
    found = (path for directory in directories for path in (root / directory.lstrip("/")).glob("*") if path.suffix in {".yaml", ".json"})
    return "cdi" if any(CDI_KIND in path.read_text(encoding="utf-8", errors="replace") for path in found) else None
