"""Which GPUs and drivers images run on, as data for a picker: no page decides anything but by comparing these.

Sources: the compatibility facts; NVIDIA's table of GPUs by compute capability (https://developer.nvidia.com/cuda-gpus), of which the usual ones are here.
"""

from __future__ import annotations

from typing import Final

from torchstrata.catalogue.contents import Exhibit

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

EXCLUDED: Final = {(8, 7): ((8, 0), (8, 6)), (7, 2): ((7, 0),)}
"""Devices that code for a smaller minor version does not serve (torch/cuda/__init__.py); what containers check at their start is the same rule."""


def numbers(capability: str) -> tuple[int, int]:
    """Return ``8.6`` as numbers."""
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def runs(capability: str, architectures: tuple[str, ...]) -> bool:
    """Return whether machine code for one of ``architectures`` runs on a device: same major version, minor not above the device's."""
    device = numbers(capability)
    known = [numbers(name) for name in architectures]
    return any(code[0] == device[0] and code[1] <= device[1] and code not in EXCLUDED.get(device, ()) for code in known)


def drivers(image: Exhibit) -> dict[str, str]:
    """Return the oldest driver by compute capability, for those of :data:`GPUS` that an image runs on."""
    return {capability: image.driver_floor for capability, _ in GPUS if image.driver_floor and runs(capability, image.architectures)}
