"""Which GPUs and drivers an image runs on, as the picker gets it: the same as ``inv doctor`` says of the cell."""

from __future__ import annotations

import functools

import pytest

from tests import showcase
from torchstrata.catalogue import machines
from torchstrata.machine import fitting
from torchstrata.machine.fitting import Accelerator, Hardware

IMAGES = {image.cell: image for image in showcase.catalogue(24).current if image.image == "base"}
DRIVERS = ("450.80.02", "525.60.13", "530.30", "550.54.15", "570.26", "575.51.03", "580.95.05", "999")


@functools.cache
def shown(name):
    """Return what the picker says of an image: the oldest driver by generation."""
    return machines.drivers(IMAGES[name], showcase.cell_named(name))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("capability", [name for name, _ in machines.GPUS])
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_table_says_what_the_doctor_says(name, capability, driver):
    """For every GPU that can be chosen, and drivers of all ages; images without CUDA are for those without a GPU."""
    cell, oldest = showcase.cell_named(name), shown(name)
    if cell.facts.cuda_version is None:
        assert oldest == {}
        return
    fits = capability in oldest and fitting.at_least(driver, oldest[capability])
    assert fits == fitting.judge(cell, Hardware(driver=driver, gpus=(Accelerator(capability=fitting.generation(capability)),))).runs


@pytest.mark.parametrize("name", [name for name in IMAGES if "cpu" not in name])
def test_an_image_of_a_cell_that_is_gone_has_its_own_facts(name):
    """Its labels say which code torch has, and the floor of its driver."""
    oldest = machines.drivers(IMAGES[name], None)
    assert oldest["9.0"] == IMAGES[name].driver_floor
    assert set(oldest) <= {capability for capability, _ in machines.GPUS}
