"""GPUs: what a host and its engine can give, and what is said where that is less than somebody wants."""

from __future__ import annotations

import shutil

import pytest

from torchstrata.containers.description import Gpus
from torchstrata.containers.graphics import Graphics
from torchstrata.errors import GpuAccessError, NoGpuError
from torchstrata.machine import nvml
from torchstrata.machine.fitting import Accelerator, Hardware
from torchstrata.machine.gpu_access import GpuAccess


def found(way="gpus", *, is_here=True, trouble=""):
    """Return a host whose engine serves GPUs in a way."""
    return Graphics(is_here=is_here, access=GpuAccess(way=way, how="nothing passes them in", cure="install the toolkit"), trouble=trouble)


@pytest.mark.parametrize(("gpus", "is_here"), [((Accelerator(capability=(9, 0)),), True), ((), False)])
def test_the_driver_says_whether_a_gpu_is_here(gpus, is_here, monkeypatch):
    """As for ``inv doctor``: a runtime alone is no GPU."""
    monkeypatch.setattr(nvml, "read", lambda: Hardware(driver="580.95", gpus=gpus))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    host = Graphics.of_host({"ServerVersion": "26.1", "Runtimes": {"nvidia": {}}})
    assert (host.is_here, host.access.way) == (is_here, "runtime")


def test_driver_that_does_not_work(monkeypatch):
    """No container needs it; the note, or the refusal, says what is wrong with it."""

    def broken():
        raise GpuAccessError("the driver does not work", fix="restart the machine")

    monkeypatch.setattr(nvml, "read", broken)
    host = Graphics.of_host({})
    assert host.choose(None, cuda=True) == (None, "the driver does not work: restart the machine; torch computes on the CPU")
    with pytest.raises(NoGpuError, match="restart the machine"):
        host.choose("all", cuda=True)


UNSERVED = "a GPU is here, and containers do not get it, since nothing passes them in"


@pytest.mark.parametrize(
    ("host", "cuda", "gpus", "note"),
    [
        (found(), True, Gpus(), ""),
        (found(), False, None, ""),
        (found(is_here=False), True, None, "no GPU is here; torch computes on the CPU"),
        (found(None), True, None, f"{UNSERVED}: install the toolkit"),
    ],
)
def test_all_gpus_are_usual(host, cuda, gpus, note):
    """For images that can use them; without any the container starts, and a note says why there is none."""
    assert host.choose(None, cuda=cuda) == (gpus, note)


@pytest.mark.parametrize("host", [found(is_here=False), found(None)])
def test_gpu_that_was_asked_for_must_be_there(host):
    """Nothing is started without it."""
    with pytest.raises(NoGpuError) as refused:
        host.choose("all", cuda=True)
    assert refused.value.fix
    assert host.choose("none", cuda=True) == (None, "")


def test_image_without_cuda_gets_no_gpu():
    """That is a mistake, not a wish."""
    with pytest.raises(NoGpuError, match="this image"):
        found().choose("1", cuda=False)


@pytest.mark.parametrize("words", ["some", "-1", "device="])
def test_words_that_mean_no_gpus(words):
    """The ones that do are named."""
    with pytest.raises(NoGpuError) as refused:
        found().choose(words, cuda=True)
    assert "device=0,2" in refused.value.fix


def toolkit(**fields):
    """Return a request for devices that whatever serves ``--gpus`` answers."""
    return {"device_requests": [{"Driver": "", "Count": 0, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}} | fields]}


def cdi(*names):
    """Return a request for devices by their names of CDI."""
    return {"device_requests": [{"Driver": "cdi", "Count": 0, "DeviceIDs": [*names], "Capabilities": [], "Options": {}}]}


def runtime(devices):
    """Return what NVIDIA's runtime reads."""
    return {"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": devices}}


SOME = Gpus(count=0, devices=("0", "2"))


@pytest.mark.parametrize(
    ("way", "gpus", "asked"),
    [
        ("gpus", Gpus(), toolkit(Count=-1)),
        ("gpus", SOME, toolkit(DeviceIDs=["0", "2"])),
        ("device", Gpus(), cdi("nvidia.com/gpu=all")),
        ("device", Gpus(count=2), cdi("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ("runtime", Gpus(), runtime("all")),
        ("runtime", SOME, runtime("0,2")),
    ],
)
def test_what_the_engine_is_asked_for(way, gpus, asked):
    """What docker's own client would ask with the words that ``inv doctor`` names."""
    assert found(way).request(gpus) == asked
