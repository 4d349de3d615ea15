"""Which GPUs an image runs on, as the picker gets it: what containers find out at their start is the same."""

from __future__ import annotations

import pytest
from container import gpu

from tests import showcase
from torchstrata.catalogue import machines

IMAGES = showcase.catalogue(24).current
CAPABILITIES = [name for name, _ in machines.GPUS]


@pytest.mark.parametrize("capability", [*CAPABILITIES, "8.7", "7.2", "5.0"])
def test_the_rule_is_that_of_containers(capability):
    """For all architectures that torch was ever built for."""
    known = tuple(sorted({architecture for image in IMAGES for architecture in image.architectures}))
    for architectures in (known, *((one,) for one in known)):
        codes = [machines.numbers(one) for one in architectures]
        assert machines.runs(capability, architectures) == gpu.served(machines.numbers(capability), codes)


def test_an_image_needs_the_driver_of_its_cuda():
    """On each GPU that its torch has code for; a CPU image on none."""
    by_cell = {image.cell: machines.drivers(image) for image in IMAGES}
    assert by_cell["2.13-cpu-debian12"] == {}
    assert by_cell["2.8-cu121-debian13"]["7.0"] == "525.60.13"
    assert by_cell["2.15-cu132-debian13"]["9.0"] == "580"
    assert "7.0" not in by_cell["2.15-cu132-debian13"]
