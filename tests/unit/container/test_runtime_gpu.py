"""What fits a driver and a GPU, and what the image says about itself."""

from __future__ import annotations

import json
import re

import pytest
from container import facts, gpu, preflight

from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT

HOSTS = re.findall(r"^\| (.+?) \| ([0-9]+)\.([0-9]) \| .* \| (yes|no)\b.* \|$", (ROOT / "docs/arm64.md").read_text(encoding="utf-8"), re.MULTILINE)
"""Rows of the guide: name, compute capability, and whether torch has code for it."""

CUDA12 = facts.Facts("2.8-cu128", "2.8.0", (12, 8), "525.60.13", ((7, 0), (7, 5), (8, 0), (9, 0), (10, 0), (12, 0)))
OLDER = facts.Facts("2.4-cu118", "2.4.1", (11, 8), "450.80.02", ((5, 0), (6, 0), (7, 0)))
SAME = facts.Facts("2.8-cu126", "2.8.0", (12, 6), "525.60.13", ((5, 0), (6, 0), (7, 0)))
CPU = facts.Facts("2.8-cpu", "2.8.0", (), "", ())


@pytest.mark.parametrize(("supported", "fits"), [((12, 0), True), ((12, 8), True), ((13, 10), True), ((11, 8), False)])
def test_driver(supported, fits):
    """Any driver of the image's CUDA major version or a later one fits."""
    assert (gpu.judge_driver(supported, CUDA12) is None) is fits


def test_versions_are_numbers():
    """13.10 is later than 13.9."""
    assert facts.version("13.10") > facts.version("13.9")


def test_cpu_images_need_no_driver():
    """An image without CUDA fits every driver and GPU."""
    assert gpu.judge_driver((10, 0), CPU) is None
    assert gpu.judge_generations([(3, 5)], CPU) is None


def test_a_driver_without_gpus_is_a_problem():
    """No device fits nothing."""
    assert "no GPU is visible" in gpu.judge_generations([], CUDA12).what


def test_driver_names_what_fits():
    """The image that fits is named, and words serve where none is known."""
    assert "pytorch-cuda:2.4-cu118" in gpu.judge_driver((11, 8), CUDA12._replace(others=(OLDER, SAME))).fix
    assert "use an image for CUDA 11.8 or older" in gpu.judge_driver((11, 8), CUDA12).fix


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ((8, 0), True),
        ((8, 9), True),
        ((7, 0), True),
        ((7, 5), True),
        ((6, 1), False),
        ((12, 1), True),
        ((11, 0), False),
        ((8, 7), False),
        ((7, 2), False),
        ((3, 7), False),
    ],
)
def test_generation(device, expected):
    """Code serves the same major version from its minor version on; Jetsons are the exceptions."""
    assert gpu.served(device, CUDA12.architectures) is expected


ARM64 = facts.Facts(
    "2.15-cu132", "2.15.0", (13, 2), "580", tuple(map(facts.architecture, compat.cell_facts("2.15", "cu132", "cu132", "linux/arm64").architectures))
)


@pytest.mark.parametrize(("name", "device", "fits"), [(row[0], (int(row[1]), int(row[2])), row[3] == "yes") for row in HOSTS])
def test_hosts_of_arm64(name, device, fits):
    """What the guide says of each GPU on arm64 hosts is what the preflight says."""
    assert gpu.served(device, ARM64.architectures) is fits, name


def test_jetsons_have_images_of_their_own():
    """An older Jetson, for whose driver these wheels are not, is sent to NVIDIA's images; a Thor is served."""
    assert "JetPack" in gpu.judge_generations([(8, 7)], ARM64).fix
    assert gpu.judge_generations([(11, 0)], ARM64) is None


def test_generation_prefers_the_same_torch():
    """Of the images that fit, the one with the same torch comes first."""
    fix = gpu.judge_generations([(6, 1)], CUDA12._replace(others=(OLDER, SAME, CPU))).fix
    assert fix == "use pytorch-cuda:2.8-cu126 or pytorch-cuda:2.4-cu118"


NEWER = facts.Facts("2.15-cu132", "2.15.0", (13, 2), "580", ((7, 5), (8, 0), (9, 0), (12, 0)))


@pytest.mark.parametrize(
    ("supported", "device", "fix"),
    [
        ((12, 1), (6, 1), "use pytorch-cuda:2.8-cu126, or install"),
        ((12, 1), (9, 0), "use pytorch-cuda:2.8-cu128, or install"),
        ((12, 1), (3, 5), "use an image for CUDA 12.1 or older, or install"),
    ],
)
def test_what_is_named_fits_driver_and_gpu(supported, device, fix):
    """One that only the driver, or only the GPU, would do with is not named."""
    image = NEWER._replace(others=(OLDER._replace(cuda=(13, 0)), SAME, CUDA12))
    assert gpu.judge_driver(supported, image, [device]).fix.startswith(fix)


def test_generation_names_no_image_that_the_driver_is_too_old_for():
    """Nor one that has no code for another GPU of the same host."""
    image = CUDA12._replace(others=(SAME, OLDER._replace(cuda=(13, 0))))
    assert gpu.judge_generations([(6, 1)], image, (12, 1)).fix == "use pytorch-cuda:2.8-cu126"
    assert gpu.judge_generations([(6, 1), (9, 0)], image, (12, 1)).fix.startswith("use an image whose torch lists it")


@pytest.mark.parametrize(("text", "expected"), [("7.5", (7, 5)), ("sm_75", (7, 5)), ("sm_120", (12, 0)), ("sm_90a", (9, 0)), ("12.1", (12, 1))])
def test_architecture(text, expected):
    """Generations are written in two ways."""
    assert facts.architecture(text) == expected


def test_facts_of_an_image(tmp_path):
    """Facts come from the labels and the list of other images."""
    labels = {
        "torchstrata.cell": "a",
        "torchstrata.torch": "2.8.0",
        "torchstrata.cuda": "12.8",
        "torchstrata.driver.floor": "525.60.13",
        "torchstrata.architectures": "sm_70 sm_120",
    }
    others = [{"cell": "b", "torch": "2.13.0", "cuda": None, "driver_floor": None, "architectures": []}]
    (tmp_path / "image.json").write_text(json.dumps({"labels": labels, "alternatives": others}))
    found = facts.read(tmp_path / "image.json")
    assert found[:5] == ("a", "2.8.0", (12, 8), "525.60.13", ((7, 0), (12, 0)))
    assert found.others == (facts.Facts("b", "2.13.0", (), "", ()),)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels": 1}', "\x00"])
def test_damaged_facts(tmp_path, content):
    """A damaged file is no facts, and no traceback."""
    (tmp_path / "image.json").write_text(content)
    assert facts.read(tmp_path / "image.json") is None


def test_driver_in_the_kernel(tmp_path):
    """The version of the kernel's driver is read in all of its forms."""
    (tmp_path / "a").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    (tmp_path / "b").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    (tmp_path / "c").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build\n")
    found = [gpu.kernel_module(tmp_path / name) for name in "abcd"]
    assert found == ["535.104.05", "580.65.06", "580.95.05", ""]


def test_shadowing_libraries(tmp_path):
    """Directories with another cuDNN or NCCL are named, the image's own and unreadable ones are not."""
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "libnccl.so.2").touch()
    found = preflight.shadowed(f"{tmp_path}/own:{tmp_path}/other::{tmp_path}/missing", (f"{tmp_path}/own",))
    assert [problem.what for problem in found] == [f"{tmp_path}/other on LD_LIBRARY_PATH has libnccl.so.2, which can shadow the one of torch"]
