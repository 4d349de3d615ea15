"""Plans of small wheels, for tests of what makes, composes and loads them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.wheelhouse import wheel
from torchstrata.building.plan import ImagePlan, Item, OsPart, Plan
from torchstrata.layers.strata import Stratum
from torchstrata.locks.lockfile import Lock, Pin
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import matrix
from torchstrata.store import store
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.store.part import Part
from torchstrata.store.store import Store

CODEC = Codec()
MATRIX = matrix.load()
CELL = matrix.select(MATRIX, "2.8-cu121")[0]
DEBIAN13, UBUNTU = (MATRIX.systems[name] for name in ("debian13", "ubuntu24.04"))
LOCKED = OsLock(
    system=UBUNTU.id,
    date="2026-11-24",
    sections={"os": {"bash": "5"}, "base": {"git": "2"}},
    image=f"{UBUNTU.image}@sha256:{'1' * 64}",
)
"""The lock of an OS whose image is a registry's."""


def wheels(directory: Path, *names: str) -> dict[str, Pin]:
    """Write a wheel of each name, with a module; return their pins."""
    return {name: wheel(directory, name, "1.0", {f"{name}.py": f"NAME = {name!r}\n".encode() * 1000})[0] for name in names}


def stratum(*pins: Pin, python: str = "3.13") -> Stratum:
    """Return the layer of some wheels."""
    return Stratum(title=" and ".join(pin.name for pin in pins), kind="group", pins=pins, python=python)


def missing(source: Stratum) -> Item:
    """Return a stratum that is to be made."""
    return Item(identity=source.identity(CODEC), title=source.title, source=source, part=None)


def os_part(into: Store, files: Mapping[str, bytes], lineage: Sequence[str] = ("base",)) -> Item:
    """Return an OS part that the store holds."""
    title = f"{CELL.os.id} {lineage[-1]}"
    with into.layer(title, CODEC) as writer:
        for path, content in files.items():
            writer.file(path, 0o644, len(content), io.BytesIO(content))
    part = Part(layers=(writer.layer,))
    identity = store.identity(title=title, files=sorted(files))
    into.remember(identity, part)
    return Item(identity=identity, title=title, source=OsPart(system=CELL.os, lineage=tuple(lineage)), part=part)


def lock(*pins: Pin, flavour: str = "base") -> Lock:
    """Return a lock of pins."""
    ordered = tuple(sorted(pins, key=lambda pin: pin.name))
    return Lock(
        build=CELL.build, python=CELL.os.python, flavour=flavour, platform=PLATFORM, requires=(), exclude_newer="2026-01-01T00:00:00Z", uv="1", pins=ordered
    )


def plan(*items: Item, flavours: Sequence[str] = ("base",), per_flavour: int = 0) -> Plan:
    """Return the plan of images whose items are prefixes of ``items``: so many more for each flavour, or all for one."""
    step = per_flavour or len(items)
    return Plan(images=tuple(_image(flavours[: count + 1], items[: step * (count + 1)]) for count in range(len(flavours))))


def _image(lineage: Sequence[str], items: tuple[Item, ...]) -> ImagePlan:
    pins = itertools.chain.from_iterable(item.pins for item in items)
    return ImagePlan(cell=CELL, lineage=tuple(lineage), lock=lock(*pins, flavour=lineage[-1]), items=items)
