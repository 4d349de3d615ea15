"""Disk space: what a build will need, said before it starts, and refused if it is not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torchstrata import progress
from torchstrata.building.maker import IN_FLIGHT
from torchstrata.building.plan import Item, Plan
from torchstrata.content.store import Store
from torchstrata.engines.engine import Engine
from torchstrata.errors import DiskFullError

UNPACKED: Final = 2.1
"""Bytes of files per byte of wheel, measured over the CUDA wheels of torch 2.8."""

OS_PART: Final = 250_000_000
"""Compressed bytes of an OS part that is not made yet, at most."""


def check(plan: Plan, store: Store, engine: Engine | None) -> str:
    """Return one line that says what the build needs; the store and the engine may share a disk.

    :raises DiskFullError: it is not there.
    """
    fetched = sum(item.fetch for item in plan.missing())
    in_store = fetched + sum(OS_PART for item in plan.missing() if item.origin == "os") + min(fetched, IN_FLIGHT)
    in_engine = 0 if engine is None else _loaded(plan, engine)
    free = shutil.disk_usage(_existing(store.root)).free
    there = engine.free_space() if engine else None
    if in_store + in_engine > free or (there is not None and in_engine > there):
        raise DiskFullError(
            f"the build needs {progress.size(in_store)} in {store.root} and {progress.size(in_engine)} in the engine, and {progress.size(free)} are free",
            fix="free some (inv cache --prune, docker system prune), or build fewer flavours: -- --flavour base",
        )
    return (
        f"to fetch {progress.size(fetched)}; needs {progress.size(in_store)} in the store, {progress.size(in_engine)} in the engine; {progress.size(free)} free"
    )


def _loaded(plan: Plan, engine: Engine) -> int:
    """Return the bytes that the engine needs for what it lacks; what is not made yet is estimated by its wheels."""
    tops = {image.cell.id: image for image in plan.images}.values()
    known = [[layer for item in top.items[: _made(top.items)] if item.part for layer in item.part.layers] for top in tops]
    lacking = {layer.digest: layer for chain in known for layer in engine.lacks(chain)}
    return engine.space_for(lacking.values()) + sum(int(item.fetch * (1 + UNPACKED)) or OS_PART * 3 for item in plan.missing())


def _made(items: Sequence[Item]) -> int:
    """Return how many of ``items``, from the bottom, are in the store."""
    return next((count for count, item in enumerate(items) if item.part is None), len(items))


def _existing(path: Path) -> Path:
    """Return the nearest directory above ``path`` that exists, whose file system it will be on."""
    return path if path.exists() else _existing(path.parent)
