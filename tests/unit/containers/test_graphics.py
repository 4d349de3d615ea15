"""GPUs: what a host and its engine can give, and what is said where that is less than somebody wants."""

from __future__ import annotations

import pytest

from torchstrata.containers.description import Gpus
from torchstrata.containers.graphics import Graphics
from torchstrata.errors import NoGpuError

TOOLKIT = Graphics(is_here=True, way="toolkit")
CDI = Graphics(is_here=True, way="cdi")


@pytest.fixture
def host(tmp_path):
    """Give a host with a driver and specifications for containers."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    (tmp_path / "etc" / "cdi").mkdir(parents=True)
    (tmp_path / "etc" / "cdi" / "nvidia.yaml").write_text("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n")
    return tmp_path


@pytest.mark.parametrize(
    ("info", "way"),
    [({"Runtimes": {"nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]}, "toolkit"), ({"Runtimes": {"runc": {}}, "CDISpecDirs": ["/etc/cdi"]}, "cdi"), ({}, None)],
)
def test_engine_says_how_it_hands_gpus_over(info, way, host):
    """By NVIDIA's runtime, or by specifications that it reads; one that does not read them has no use for them."""
    assert Graphics.of_host(info, host) == Graphics(is_here=True, way=way)


def test_host_without_a_driver(tmp_path):
    """A runtime alone is no GPU."""
    assert Graphics.of_host({"Runtimes": {"nvidia": {}}}, tmp_path) == Graphics(is_here=False, way="toolkit")


def test_all_gpus_are_usual():
    """For images that can use them."""
    assert TOOLKIT.choose(None, cuda=True) == (Gpus(), "")
    assert TOOLKIT.choose(None, cuda=False) == (None, "")


@pytest.mark.parametrize(("found", "words"), [(Graphics(is_here=False, way="toolkit"), "on the CPU"), (Graphics(is_here=True, way=None), "container toolkit")])
def test_no_gpu_is_said(found, words):
    """The container starts; whoever expects one reads why there is none."""
    gpus, note = found.choose(None, cuda=True)
    assert gpus is None
    assert words in note


@pytest.mark.parametrize("found", [Graphics(is_here=False, way="toolkit"), Graphics(is_here=True, way=None)])
def test_gpu_that_was_asked_for_must_be_there(found):
    """Nothing is started without it."""
    with pytest.raises(NoGpuError) as refused:
        found.choose("all", cuda=True)
    assert refused.value.fix
    assert found.choose("none", cuda=True) == (None, "")


def test_image_without_cuda_gets_no_gpu():
    """That is a mistake, not a wish."""
    with pytest.raises(NoGpuError, match="this image"):
        TOOLKIT.choose("1", cuda=False)


@pytest.mark.parametrize("words", ["some", "-1", "device="])
def test_words_that_mean_no_gpus(words):
    """The ones that do are named."""
    with pytest.raises(NoGpuError) as refused:
        TOOLKIT.choose(words, cuda=True)
    assert "device=0,2" in refused.value.fix


@pytest.mark.parametrize(
    ("found", "gpus", "asked"),
    [
        (TOOLKIT, Gpus(), {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]]}),
        (TOOLKIT, Gpus(count=0, devices=("0", "2")), {"Driver": "", "Count": 0, "DeviceIDs": ["0", "2"], "Capabilities": [["gpu"]]}),
        (CDI, Gpus(), {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": []}),
        (CDI, Gpus(count=2), {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], "Capabilities": []}),
    ],
)
def test_what_the_engine_is_asked_for(found, gpus, asked):
    """As docker's own client asks."""
    assert {name: value for name, value in found.request(gpus).items() if name in asked} == asked
