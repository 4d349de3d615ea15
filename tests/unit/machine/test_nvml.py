"""What NVIDIA's management library says, with the real binding to it and another answer behind."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from torchstrata.errors import GpuAccessError
from torchstrata.machine import nvml
from torchstrata.machine.fitting import Accelerator, Hardware

H200 = {"name": "NVIDIA H200", "capability": (9, 0), "memory": 150_000_000_000}
THOR = {"name": b"NVIDIA Thor", "capability": (11, 0), "memory": None}


@pytest.fixture
def answers(monkeypatch):
    """Let a driver answer: its version, and its GPUs."""

    def set_up(driver, gpus):
        def memory(handle):
            if handle["memory"] is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return SimpleNamespace(total=handle["memory"])

        replies = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: driver,
            "nvmlDeviceGetCount": lambda: len(gpus),
            "nvmlDeviceGetHandleByIndex": gpus.__getitem__,
            "nvmlDeviceGetCudaComputeCapability": lambda handle: handle["capability"],
            "nvmlDeviceGetName": lambda handle: handle["name"],
            "nvmlDeviceGetMemoryInfo": memory,
        }
        for name, reply in replies.items():
            monkeypatch.setattr(pynvml, name, reply)

    return set_up


def test_driver_and_gpus(answers):
    """Names as text, memory 0 where the GPU has none of its own."""
    answers("580.95.05", [H200, THOR])
    gpus = (Accelerator(capability=(9, 0), name="NVIDIA H200", memory=150_000_000_000), Accelerator(capability=(11, 0), name="NVIDIA Thor"))
    assert nvml.read() == Hardware(driver="580.95.05", gpus=gpus)


@pytest.mark.parametrize(
    ("code", "says", "cure"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "does not work", "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "does not work", "restart the machine"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "does not work", "/dev/nvidiactl"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not work", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_work(code, says, cure, monkeypatch):
    """The cure follows from the library's error."""

    def refuse():
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    with pytest.raises(GpuAccessError, match=says) as caught:
        nvml.read()
    assert cure in caught.value.fix


@pytest.mark.parametrize("is_there", [True, False])
def test_no_driver(is_there, monkeypatch, tmp_path):
    """Is no fault, unless a GPU waits for one."""

    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    monkeypatch.setattr(nvml, "on_bus", lambda: is_there)
    if not is_there:
        assert nvml.read() == Hardware()
        return
    with pytest.raises(GpuAccessError, match="NVIDIA GPU and no driver"):
        nvml.read()


@pytest.mark.parametrize(("vendor", "kind", "counts"), [("0x10de", "0x030200", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False)])
def test_gpus_on_the_bus(vendor, kind, counts, tmp_path):
    """NVIDIA's display controllers; not their sound, nor others' GPUs."""
    device = tmp_path / "0000:01:00.0"
    device.mkdir()
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert nvml.on_bus(tmp_path) is counts
