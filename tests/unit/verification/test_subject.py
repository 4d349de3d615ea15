"""What is verified: claims, and wishes for a GPU."""

from __future__ import annotations

import contextlib

import pytest

from torchstrata import errors
from torchstrata.matrix import matrix
from torchstrata.verification import subject
from torchstrata.verification.evidence import Gpu
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.subject import Claim

LABELS = {"torchstrata.cell": "2.13-cpu-debian12", "torchstrata.flavour": "devel"}
GPU = Gpu(name="NVIDIA H100 80GB HBM3", driver="570.86.15", count=2)


def expected(cell: str) -> Expectation:
    """Return what the base image of a cell must be."""
    return Expectation(cell=matrix.select(matrix.load(), cell)[0], flavour="base")


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        (Claim(cell=None, flavour=None), ("2.13-cpu-debian12", "devel")),
        (Claim(cell="2.8-cu121", flavour=None), ("2.8-cu121-debian13", "devel")),
        (Claim(cell="2.8-cu121", flavour="ssh"), ("2.8-cu121-debian13", "ssh")),
    ],
)
def test_claims_go_before_labels(claim, found):
    """What somebody says that an image is counts, not what the image says."""
    assert claim.settle(LABELS, "image") == found


@pytest.mark.parametrize(("cell", "flavour"), [(None, None), ("2.8-cu121", None), ("2.8-cu999", "base"), ("2.8-cu121", "nope")])
def test_claims_that_lead_nowhere(cell, flavour):
    """An image that does not say what it is, or is said to be what does not exist, is refused."""
    with pytest.raises(errors.MatrixError):
        Claim(cell=cell, flavour=flavour).settle({}, "image")


@pytest.mark.parametrize(
    ("cell", "there", "wish", "found"),
    [
        ("2.8-cu121", GPU, "auto", GPU),
        ("2.8-cu121", GPU, "required", GPU),
        ("2.8-cu121", GPU, "none", None),
        ("2.8-cu121", None, "auto", None),
        ("2.13-cpu", GPU, "auto", None),
        ("2.8-cu121", None, "required", errors.NoGpuError),
        ("2.13-cpu", GPU, "required", errors.NoGpuError),
    ],
)
def test_gpu(cell, there, wish, found):
    """It is used if there is one, the cell has CUDA, and nobody says no; without one that is required there is an error."""
    with pytest.raises(found) if found is errors.NoGpuError else contextlib.nullcontext():
        assert subject.settle_gpu(expected(cell), lambda: there, wish) == found


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("NVIDIA H100 80GB HBM3, 570.86.15\nNVIDIA H100 80GB HBM3, 570.86.15\n", GPU),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_gpu_is_read_from_the_tool(shown, found):
    """Name, driver and number come from what nvidia-smi prints."""
    assert subject.parse_gpu(shown) == found
