"""The driver and the GPUs, asked through the driver's own library (CUDA driver API), and whether this image fits them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from container.facts import Facts
from container.problems import Problem

LIBRARY: Final = "libcuda.so.1"
CONTROL: Final = Path("/dev/nvidiactl")
WSL: Final = Path("/dev/dxg")
KERNEL_MODULE: Final = Path("/proc/driver/nvidia/version")

MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""

NO_DEVICE: Final = 100
"""CUDA_ERROR_NO_DEVICE."""

MISMATCHES: Final = {803: "the driver's library does not belong to the driver in the kernel", 804: "forward compatibility does not work on this kind of GPU"}
"""CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE."""

EXCLUDED: Final = {(8, 7): ((8, 0), (8, 6)), (7, 2): ((7, 0),)}
"""Devices that code for a smaller minor version does not serve (torch/cuda/__init__.py)."""

JETSON: Final = {(5, 3), (6, 2), (7, 2), (8, 7)}
"""GPUs of Jetson modules before Thor alone, whose drivers are JetPack's; wheels for arm64 servers have no code for them."""


class CudaError(Exception):
    """The driver API returned an error."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with CUDA error {code}" + (f": {MISMATCHES[code]}" if code in MISMATCHES else ""))
        self.code = code


def present() -> bool:
    """Return whether the engine has passed in a GPU."""
    return CONTROL.exists() or WSL.exists()


def driver(name: str = LIBRARY) -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver supports, or None if there is no driver library."""
    library = _load(name)
    if library is None:
        return None
    version = ctypes.c_int(0)
    _checked(library, "cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def capabilities(name: str = LIBRARY) -> tuple[tuple[int, int], ...]:
    """Return the compute capability of each GPU. This starts up the driver, which can take a second.

    :raises CudaError: the driver does not work.
    """
    library = _load(name)
    if library is None:
        return ()
    count = ctypes.c_int(0)
    try:
        _checked(library, "cuInit", 0)
        _checked(library, "cuDeviceGetCount", ctypes.byref(count))
    except CudaError as error:
        if error.code == NO_DEVICE:
            return ()
        raise
    return tuple((_attribute(library, device, MAJOR), _attribute(library, device, MINOR)) for device in range(count.value))


def kernel_module(path: Path = KERNEL_MODULE) -> str:
    """Return the version of the driver in the kernel, or an empty string."""
    try:
        match = re.search(r"Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", path.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def lost(path: Path = CONTROL) -> bool:
    """Return whether the GPU was taken away while running, as ``systemctl daemon-reload`` on the host can do."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def judge_driver(supported: tuple[int, int], facts: Facts, devices: Collection[tuple[int, int]] = ()) -> Problem | None:
    """Return why the driver is too old for the image; None if it is not.

    CUDA code runs on every driver of the same or a later major version (CUDA's minor-version compatibility).

    :param devices: GPUs that an image which is named instead must have code for, too.
    """
    if not facts.cuda or supported[0] >= facts.cuda[0]:
        return None
    fitting = [other for other in facts.others if _runs(other, supported, devices)]
    return Problem(
        f"the driver of this host supports CUDA {_dotted(supported)}, but {facts.cell} needs CUDA {facts.cuda[0]}.0 (driver {facts.driver_floor})",
        f"{_instead(fitting, facts) or f'use an image for CUDA {_dotted(supported)} or older'}, or install driver {facts.driver_floor} or newer on the host",
    )


def judge_generations(devices: Collection[tuple[int, int]], facts: Facts, supported: tuple[int, int] | None = None) -> Problem | None:
    """Return which GPUs the image's torch has no code for, or that no GPU was found; None if all fit.

    :param supported: newest CUDA of the driver, on which an image that is named instead must run, too; None if it is not known.
    """
    if not devices:
        return Problem("a driver is here but no GPU is visible", "start with --gpus all, and look at CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES")
    foreign = sorted({device for device in devices if facts.architectures and not served(device, facts.architectures)})
    if not foreign:
        return None
    fitting = [other for other in facts.others if _runs(other, supported, devices)]
    names = ", ".join(f"{_dotted(device)} (sm_{device[0]}{device[1]})" for device in foreign)
    return Problem(
        f"torch of {facts.cell} has no code for GPUs of compute capability {names}: its kernels will not start",
        _of_jetson(foreign) or _instead(fitting, facts) or f"use an image whose torch lists it; this one has {_listed(facts)}",
    )


def served(device: tuple[int, ...], architectures: Iterable[tuple[int, ...]]) -> bool:
    """Return whether code for one of ``architectures`` runs on ``device``: same major version, minor not above the device's."""
    excluded = EXCLUDED.get((device[0], device[1]), ())
    return any(known[0] == device[0] and known[1] <= device[1] and known not in excluded for known in architectures)


def _runs(other: Facts, supported: tuple[int, int] | None, devices: Iterable[tuple[int, int]]) -> bool:
    """Return whether another image runs on a driver and has code for all GPUs."""
    is_old_enough = bool(other.cuda) and (supported is None or other.cuda[0] <= supported[0])
    return is_old_enough and all(served(device, other.architectures) for device in devices)


def _of_jetson(foreign: Collection[tuple[int, int]]) -> str:
    """Return where images for a Jetson come from, if all that lack code are in one; else an empty string."""
    return "this is a Jetson: use NVIDIA's own images for its JetPack" if JETSON.issuperset(foreign) else ""


def _listed(facts: Facts) -> str:
    return ", ".join(_dotted(known) for known in facts.architectures)


def _instead(fitting: list[Facts], facts: Facts) -> str:
    """Return the advice to use one of the two best images that fit: those of the same torch first, then the newest. Empty where none does."""
    best = sorted(fitting, key=lambda other: (other.torch != facts.torch, tuple(-part for part in _version(other))))
    suffix = f"-{facts.flavour}" if facts.flavour else ""
    return f"use {' or '.join(f'pytorch-cuda:{other.cell}{suffix}' for other in best[:2])}" if best else ""


def _version(other: Facts) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", other.torch)))


def _dotted(parts: Iterable[int]) -> str:
    return ".".join(map(str, parts))


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _attribute(library: ctypes.CDLL, device: int, attribute: int) -> int:
    value = ctypes.c_int(0)
    _checked(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _checked(library: ctypes.CDLL, call: str, *arguments: object) -> None:
    """Call a function of the driver API.

    :raises CudaError: it returns an error.
    """
    code = int(getattr(library, call)(*arguments))
    if code:
        raise CudaError(call, code)
