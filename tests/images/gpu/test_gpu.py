"""Torch works on the host's GPUs."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.cuda]

LIMITS = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2, "float16": 2e-3}
"""Largest relative errors of a product of matrices: roundings of the type's mantissa, with room for the order of sums."""


@pytest.fixture(scope="module")
def facts(probe):
    """What torch and the driver say of the GPUs."""
    return probe("gpu_facts")


@pytest.fixture(scope="module")
def kernels(probe):
    """What was computed on the first GPU."""
    return probe("gpu_kernels", "cuda")


def test_available(facts, gpus):
    """Torch sees every GPU that the driver shows."""
    assert facts["available"]
    assert len(facts["devices"]) == len(facts["driver"]) == gpus > 0


def test_names_and_capabilities(facts):
    """Torch and the driver agree on name and generation of each."""
    seen = [(each["name"], ".".join(map(str, each["capability"]))) for each in facts["devices"]]
    assert seen == [(each["name"], each["compute_cap"]) for each in facts["driver"]]


def test_code_for_each(facts, expected):
    """Each GPU runs machine code of the cell: the same major generation, and no newer minor one."""
    built = [tuple(map(int, name.split("."))) for name in expected.facts.architectures]
    strangers = [each for each in facts["devices"] if not any(major == each["capability"][0] and minor <= each["capability"][1] for major, minor in built)]
    assert not strangers
    assert {name.removeprefix("sm_") for name in facts["architectures"]} >= {name.replace(".", "") for name in expected.facts.architectures}


def test_driver_is_new_enough(facts, expected):
    """The host's driver is at least the floor on the label."""
    floor = [int(part) for part in expected.facts.driver_floor.split(".")]
    assert all([int(part) for part in each["driver_version"].split(".")] >= floor for each in facts["driver"])


@pytest.mark.parametrize("kind", LIMITS)
def test_matmul(kernels, kind):
    """A product of matrices is the CPU's, as nearly as the type allows."""
    assert kernels["matmul"][kind] < LIMITS[kind]


def test_convolution(kernels):
    """A convolution and its gradients, by cuDNN, are the CPU's."""
    assert kernels["cudnn"]
    assert max(kernels["convolution"]) < 1e-4


def test_graph(kernels):
    """A recorded CUDA graph, replayed on other data, computes on those."""
    assert kernels["graph"] < 1e-6


def test_memory_returns(kernels):
    """What a tensor took is free again, also for other processes."""
    memory = kernels["memory"]
    assert memory["during"][0] - memory["before"][0] >= memory["large"]
    assert memory["after"] == memory["before"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision(probe, dtype):
    """Training under autocast, with a gradient scaler where the type needs one, learns as full precision does."""
    runs = probe("training", "cuda", dtype)
    mixed, full = runs["mixed"], runs["full"]
    assert (mixed["computed"], mixed["parameters"]) == (f"torch.{dtype}", "torch.float32")
    assert mixed["finite"]
    assert mixed["losses"] == pytest.approx(full["losses"], abs=0.05)


def test_compiler(probe):
    """``torch.compile`` makes a Triton kernel, as machine code, that computes what eager mode does."""
    result = probe("compiled", "cuda")
    assert (result["graphs"], result["breaks"]) == (1, 0)
    assert ".cubin" in result["made"]
    assert result["difference"] < 1e-4


@pytest.mark.vision
def test_vision(probe):
    """Torchvision's operators and networks work on the GPU."""
    found = probe("vision", "cuda")
    assert found["nms"] == [0, 2]
    assert found["roi_align"] == pytest.approx([5.5, 9.5, 5.5, 9.5], abs=1e-4)
    assert all(found[name]["finite"] and found[name]["apart"] < 1e-2 for name in ("resnet50", "efficientnet_b3"))
