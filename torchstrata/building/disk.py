"""Disk space: what a build will need, said before it starts, and refused if it is not there."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from torchstrata import progress
from torchstrata.building.engine import Engine
from torchstrata.building.maker import IN_FLIGHT
from torchstrata.building.plan import ImagePlan, Item, OsPart, Plan
from torchstrata.errors import DiskFullError
from torchstrata.store.layer import Layer
from torchstrata.store.store import Store

UNPACKED: Final = 2.1
"""Bytes of files per byte of wheel, measured over the CUDA wheels of torch 2.8."""

FIRST_OS_PART: Final = 250_000_000
"""Compressed bytes of the OS part that has the operating system itself, at most, where it is not made yet."""

NEXT_OS_PART: Final = 100_000_000
"""Compressed bytes of the OS part that a flavour adds to its parent's, at most: today 5 to 65 MB."""

OS_UNPACKED: Final = 2
"""Bytes of files per compressed byte that the two bounds allow; debian13 base has 490 MB of files, devel 209 more."""


def check(plan: Plan, store: Store, engine: Engine | None) -> str:
    """Return one line that says what the build needs; the store and the engine may share a disk, or have one each.

    :raises DiskFullError: it is not there.
    """
    fetched = sum(item.fetch for item in plan.missing())
    packages = sum(item.packages for item in plan.missing())
    in_store = fetched + packages + sum(_os_part(item) for item in plan.missing()) + min(fetched, IN_FLIGHT)
    in_engine = 0 if engine is None else _loaded(plan, engine)
    place = _existing(store.root)
    free, free_in_engine = shutil.disk_usage(place).free, engine.free_space() if engine else None
    on_place = in_store + (in_engine if engine and engine.shares_disk(place) else 0)
    if on_place > free or (free_in_engine is not None and in_engine > free_in_engine):
        needs = f"{progress.size(in_store)} in {store.root} and {progress.size(in_engine)} in the engine"
        there = "" if free_in_engine is None else f" there, and {progress.size(free_in_engine)} in the engine"
        raise DiskFullError(
            f"the build needs {needs}, and {progress.size(free)} are free{there}",
            fix="free some (inv cache --prune, docker image prune, docker buildx prune), or build fewer flavours: -- --flavour base",
        )
    need = f"needs {progress.size(in_store)} in the store, {progress.size(in_engine)} in the engine"
    return f"to fetch {progress.size(fetched + packages)}; {need}; {progress.size(free)} free"


def _loaded(plan: Plan, engine: Engine) -> int:
    """Return the bytes that the engine needs for what it lacks; what is not made yet is estimated by its wheels."""
    return engine.space_for(engine.lacks(map(_made_layers, plan.images))) + sum(_estimate(item, engine) for item in _above(plan))


def _above(plan: Plan) -> Iterable[Item]:
    """Return the items from the first of each image that is not made yet upward: once for every stack below them."""
    above: dict[tuple[str, ...], Item] = {}
    for image in plan.images:
        for place in range(_made(image.items), len(image.items)):
            above[tuple(item.identity for item in image.items[: place + 1])] = image.items[place]
    return above.values()


def _made_layers(image: ImagePlan) -> list[Layer]:
    """Return the layers of an image, from the bottom, that are in the store."""
    parts = [item.part for item in image.items[: _made(image.items)] if item.part]
    return [*itertools.chain.from_iterable(part.layers for part in parts)]


def _estimate(item: Item, engine: Engine) -> int:
    """Return the bytes that an item takes in the engine at most."""
    return engine.space_for(item.part.layers) if item.part else int(item.fetch * (1 + UNPACKED)) or _os_part(item) * (1 + OS_UNPACKED)


def _os_part(item: Item) -> int:
    """Return the compressed bytes of an OS part, of whose packages nobody knows the sizes yet, at most."""
    if not isinstance(item.source, OsPart):
        return 0
    return FIRST_OS_PART if len(item.source.lineage) == 1 else NEXT_OS_PART


def _made(items: Sequence[Item]) -> int:
    """Return how many of ``items``, from the bottom, are in the store."""
    return next((count for count, item in enumerate(items) if item.part is None), len(items))


def _existing(path: Path) -> Path:
    """Return the nearest directory above ``path`` that exists, whose file system it will be on."""
    return path if path.exists() else _existing(path.parent)
