"""NVIDIA's driver and the GPUs of this machine, by the driver's management library (NVML)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pynvml  # type: ignore[import-untyped]

from torchstrata.errors import GpuAccessError
from torchstrata.files import text_or_empty
from torchstrata.machine.fitting import Accelerator, Hardware

DEVICES: Final = Path("/sys/bus/pci/devices")
VENDOR: Final = "0x10de"
DISPLAY: Final = "0x03"
"""NVIDIA, and the class of display controllers, which GPUs without a display have too (PCI code and ID assignment)."""

CURES: Final = {
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the kernel module (modprobe nvidia), or install the driver anew for this kernel",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated and the old one is still in the kernel: restart the machine",
    pynvml.NVML_ERROR_NO_PERMISSION: "let this user open /dev/nvidiactl: see its owner and mode",
    pynvml.NVML_ERROR_GPU_IS_LOST: "a GPU fell off the bus: see dmesg, and restart the machine",
}


def read() -> Hardware:
    """Return the driver and its GPUs; nothing where there is no driver.

    :raises GpuAccessError: there is one that does not work, or a GPU without one.
    """
    try:
        with _library():
            return Hardware(driver=_text(pynvml.nvmlSystemGetDriverVersion()), gpus=tuple(_gpus()))
    except pynvml.NVMLError_LibraryNotFound:
        if on_bus():
            raise GpuAccessError("this machine has an NVIDIA GPU and no driver for it", fix="install NVIDIA's driver") from None
        return Hardware()
    except pynvml.NVMLError as error:
        cure = CURES.get(error.value, "see what nvidia-smi says, and restart the machine")
        raise GpuAccessError(f"NVIDIA's driver does not work: {error}", fix=cure) from error


def on_bus(devices: Path = DEVICES) -> bool:
    """Return whether a GPU of NVIDIA's is on the PCI bus, as Linux lists it."""
    of_vendor = [device for device in devices.glob("*") if text_or_empty(device / "vendor").strip() == VENDOR]
    return any(text_or_empty(device / "class").startswith(DISPLAY) for device in of_vendor)


@contextlib.contextmanager
def _library() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _gpus() -> Iterator[Accelerator]:
    for number in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        yield Accelerator(capability=(major, minor), name=_text(pynvml.nvmlDeviceGetName(handle)), memory=_memory(handle))


def _memory(handle: object) -> int:
    """Return bytes; 0 where the GPU has none of its own, as those that share the machine's."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        return 0


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
