"""What this image is: ``/etc/torchstrata/image.json``, written when the image was composed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

IMAGE: Final = Path("/etc/torchstrata/image.json")


class Facts(NamedTuple):
    """What an image is, and needs of the host; empty where it needs nothing.

    :param cuda: CUDA version of its torch, such as ``(12, 8)``; empty for a CPU image.
    :param driver_floor: oldest driver, such as ``525.60.13``.
    :param architectures: GPU generations its torch has code for, such as ``((7, 0), (7, 5))``.
    :param others: other cells of the same matrix.
    :param flavour: the image's own flavour, which its users want of another cell, too.
    """

    cell: str
    torch: str
    cuda: tuple[int, ...]
    driver_floor: str
    architectures: tuple[tuple[int, ...], ...]
    others: tuple[Facts, ...] = ()
    flavour: str = ""


def read(path: Path = IMAGE) -> Facts | None:
    """Return the facts of this image, or None where the file is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        labels = {name.removeprefix("torchstrata."): value for name, value in document["labels"].items()}
        return _facts(labels | {"driver_floor": labels.get("driver.floor")}, document.get("alternatives", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def version(text: str) -> tuple[int, ...]:
    """Return a version as numbers, so that 13.10 is more than 13.9."""
    return tuple(map(int, re.findall(r"\d+", text)))


def architecture(text: str) -> tuple[int, ...]:
    """Return ``7.5`` or ``sm_75`` as (7, 5), ``sm_120`` as (12, 0)."""
    digits = text.removeprefix("sm_").rstrip("af")
    return version(digits) if "." in digits else (int(digits[:-1]), int(digits[-1]))


def _facts(row: dict[str, Any], others: Any = ()) -> Facts:
    """Return the facts of an image from its labels, or of another cell from its row, which lists architectures where a label has a text."""
    listed = row.get("architectures") or ()
    names = listed.split() if isinstance(listed, str) else listed
    return Facts(
        cell=row.get("cell") or "this image",
        torch=row.get("torch") or "",
        cuda=version(row.get("cuda") or ""),
        driver_floor=row.get("driver_floor") or "",
        architectures=tuple(map(architecture, names)),
        others=tuple(_facts(other) for other in others),
        flavour=row.get("flavour") or "",
    )
