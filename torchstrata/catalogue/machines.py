"""Which GPUs and drivers images run on, as data for a picker: no page decides anything but by comparing these.

Sources: the compatibility facts; NVIDIA's table of GPUs by compute capability
(https://developer.nvidia.com/cuda-gpus), of which the usual ones are here.
"""

from __future__ import annotations

from typing import Final

from torchstrata.catalogue.exhibits import Exhibit
from torchstrata.machine import fitting
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import Cell

GPUS: Final[tuple[tuple[str, str], ...]] = (
    ("12.0", "RTX 50 series, RTX PRO 6000 Blackwell"),
    ("10.3", "B300, GB300"),
    ("10.0", "B200, GB200"),
    ("9.0", "H100, H200, GH200"),
    ("8.9", "L4, L40, L40S, RTX 40 series, RTX 6000 Ada"),
    ("8.6", "A10, A40, A16, A2, RTX 30 series, RTX A6000"),
    ("8.0", "A100, A30"),
    ("7.5", "T4, RTX 20 series, Quadro RTX, GTX 16 series"),
    ("7.0", "V100, Titan V"),
    ("6.1", "P40, P4, GTX 10 series"),
    ("6.0", "P100"),
    ("5.2", "M40, M60, GTX 900 series"),
)
"""Compute capability, and GPUs that have it; newest first."""


def drivers(image: Exhibit, cell: Cell | None) -> dict[str, str]:
    """Return the oldest driver by compute capability, for those of :data:`GPUS` that ``inv doctor`` says it runs on.

    :param cell: what the image is of; of a cell that the matrix has no more, nothing but its own floor can be told.
    """
    if not image.driver_floor:
        return {}
    if cell is None:
        codes = [fitting.generation(name) for name in image.architectures]
        return {name: image.driver_floor for name, _ in GPUS if fitting.serves(codes, fitting.generation(name))}
    oldest = {name: _oldest(cell, image.driver_floor, name) for name, _ in GPUS}
    return {name: driver for name, driver in oldest.items() if driver}


def _oldest(cell: Cell, floor: str, capability: str) -> str:
    """Return the oldest driver of those in the facts by which a cell runs on a GPU; nothing if none does."""
    gpu = fitting.Accelerator(capability=fitting.generation(capability))
    drivers = {floor, *(cuda.driver for cuda in compat.facts().cuda.values() if cuda.driver)}
    fits = [driver for driver in drivers if fitting.judge(cell, fitting.Hardware(driver=driver, gpus=(gpu,))).runs]
    return min(fits, key=lambda driver: tuple(map(int, driver.split("."))), default="")
