"""GPUs of this host for containers: which of them one gets, and what its engine is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import docker.types

from torchstrata.containers.description import Gpus
from torchstrata.errors import GpuAccessError, NoGpuError
from torchstrata.machine import gpu_access, nvml
from torchstrata.machine.gpu_access import CDI_KIND, RUNTIME, GpuAccess

OR_NONE: Final = "; or give --gpus none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphics:
    """What was found.

    :param is_here: the host has a GPU with a driver that works.
    :param access: how its engine serves GPUs.
    :param trouble: what is wrong with the driver; empty where nothing is.
    """

    is_here: bool
    access: GpuAccess
    trouble: str = ""

    @classmethod
    def of_host(cls, info: Mapping[str, Any]) -> Self:
        """Return what the driver of this host says, and what its engine says of itself (``docker info``)."""
        access = gpu_access.access(info, is_local=True)
        try:
            return cls(is_here=bool(nvml.read().gpus), access=access)
        except GpuAccessError as error:
            return cls(is_here=False, access=access, trouble=f"{error.what}: {error.fix}")

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
            return None, f"{self.trouble or 'no GPU is here'}; torch computes on the CPU"
        if not self.access.way:
            return None, f"a GPU is here, and containers do not get it, since {self.access.how}: {self.access.cure}"
        return Gpus(), ""

    def _asked(self, asked: str, *, cuda: bool) -> Gpus | None:
        gpus = parsed(asked)
        if gpus and not cuda:
            raise NoGpuError(f"--gpus {asked}: the torch of this image cannot use a GPU", fix="take an image with CUDA, or leave --gpus out")
        if gpus and not self.is_here:
            raise NoGpuError(f"--gpus {asked}: {self.trouble or 'no GPU is here'}", fix="look at what `inv doctor` says, or leave --gpus out")
        if gpus and not self.access.way:
            raise NoGpuError(f"--gpus {asked}: {self.access.how}", fix=self.access.cure + OR_NONE)
        return gpus

    def request(self, gpus: Gpus) -> dict[str, Any]:
        """Return the arguments by which the engine is asked for them (``containers.create``)."""
        names = gpus.devices or (("all",) if gpus.count < 0 else tuple(map(str, range(gpus.count))))
        if self.access.way == "runtime":
            return {"runtime": RUNTIME, "environment": {"NVIDIA_VISIBLE_DEVICES": ",".join(names)}}
        if self.access.way == "device":
            return {"device_requests": [docker.types.DeviceRequest(driver="cdi", device_ids=[f"{CDI_KIND}={name}" for name in names])]}
        which = {"device_ids": [*gpus.devices]} if gpus.devices else {"count": gpus.count}
        return {"device_requests": [docker.types.DeviceRequest(**which, capabilities=[["gpu"]])]}


def parsed(asked: str) -> Gpus | None:
    """Return what words for GPUs mean.

    :raises NoGpuError: they mean nothing.
    """
    try:
        return Gpus.parse(asked)
    except ValueError as error:
        raise NoGpuError(f"--gpus: {error}", fix="write all, none, a number, or device=0,2") from error
