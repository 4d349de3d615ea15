"""GPUs of this machine for containers: which ones a container gets, and how to ask its engine for them."""

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
    """The GPUs of a machine.

    :param is_here: the machine has a GPU with a driver that works.
    :param access: how its engine serves GPUs.
    :param trouble: what is wrong with the driver; empty if nothing is.
    """

    is_here: bool
    access: GpuAccess
    trouble: str = ""

    @classmethod
    def of_host(cls, info: Mapping[str, Any]) -> Self:
        """Return what the driver of this machine says.

        :param info: what its engine says of itself (``docker info``).
        """
        access = gpu_access.access(info, is_local=True)
        try:
            return cls(is_here=bool(nvml.read().gpus), access=access)
        except GpuAccessError as error:
            return cls(is_here=False, access=access, trouble=f"{error.what}: {error.fix}")

    def choose(self, asked: str | None, *, cuda: bool) -> tuple[Gpus | None, str]:
        """Return the GPUs of a container, and a line for the user where these may surprise; else an empty one.

        :param asked: ``all``, ``none``, a number or ``device=...``; ``None`` for all that there are.
        :param cuda: whether the image can use GPUs.
        :raises NoGpuError: GPUs were asked for that cannot be had.
        """
        if asked is not None:
            return self._asked(asked, cuda=cuda), ""
        if not cuda:
            return None, ""
        if not self.is_here:
            return None, f"{self.trouble or 'no GPU is here'}; torch computes on the CPU"
        if not self.access.way:
            why = f"{self.access.how}: {self.access.cure}"
            return None, f"a GPU is here, and containers do not get it, since {why}"
        return Gpus(), ""

    def _asked(self, asked: str, *, cuda: bool) -> Gpus | None:
        gpus = Gpus.parse(asked)
        if gpus is None:
            return None
        if not cuda:
            what, fix = "the torch of this image cannot use a GPU", "take an image with CUDA, or leave --gpus out"
        elif not self.is_here:
            what, fix = self.trouble or "no GPU is here", "look at what `inv doctor` says, or leave --gpus out"
        elif not self.access.way:
            what, fix = self.access.how, self.access.cure + OR_NONE
        else:
            return gpus
        raise NoGpuError(f"--gpus {asked}: {what}", fix=fix)

    def request(self, gpus: Gpus) -> dict[str, Any]:
        """Return the arguments of ``containers.create`` that ask the engine for GPUs."""
        names = gpus.devices or (("all",) if gpus.count < 0 else tuple(map(str, range(gpus.count))))
        if self.access.way == "runtime":
            return {"runtime": RUNTIME, "environment": {"NVIDIA_VISIBLE_DEVICES": ",".join(names)}}
        if self.access.way == "device":
            devices = [f"{CDI_KIND}={name}" for name in names]
            return {"device_requests": [docker.types.DeviceRequest(driver="cdi", device_ids=devices)]}
        which = {"device_ids": [*gpus.devices]} if gpus.devices else {"count": gpus.count}
        return {"device_requests": [docker.types.DeviceRequest(**which, capabilities=[["gpu"]])]}
