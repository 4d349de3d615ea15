"""The revision of the sources: of those that an image is made from, and of all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torchstrata import platforms, process
from torchstrata.errors import CommandError
from torchstrata.locks import wheel_locks
from torchstrata.matrix.matrix import Cell
from torchstrata.store.layer import PLATFORM

SHARED: Final = ("images/apt", "locks/toolchain")
"""What images of every flavour may be made from."""

OWN: Final = ("Dockerfile", "rootfs", "requirements.in")
"""What a flavour is made from. Its tests and its ``flavour.yaml`` (a budget, say) change no image's revision."""


def revision(cell: Cell, lineage: Sequence[str], root: Path) -> str:
    """Return the last commit that touched what an image is made from, with ``-dirty`` where that has changed since, or
    ``unknown`` outside a repository.

    Other commits leave it as it is, so that they change no image: those of a flavour change none of its parents.

    :param lineage: the image's flavour and its parents.
    """
    own = [f"images/{flavour}/{name}" for flavour, name in itertools.product(lineage, OWN)]
    locks = [wheel_locks.path_of(cell, flavour) for flavour in lineage]
    shared = SHARED if cell.platform == PLATFORM else (*SHARED, f"locks/toolchain{platforms.suffix(cell.platform)}")
    return _last_commit(root, *shared, f"locks/os/{cell.os.name}.lock", *own, *locks)


def state(root: Path) -> str:
    """Return the commit that is checked out: ``-dirty`` where files differ, ``unknown`` outside a repository."""
    return _last_commit(root)


def _last_commit(root: Path, *paths: str) -> str:
    """Return the last commit that touched ``paths``, or the last one at all."""
    try:
        commit = process.run("git", "-C", str(root), "log", "-1", "--format=%H", "--", *paths).strip()
        changed = process.run("git", "-C", str(root), "status", "--porcelain", "--", *paths).strip()
    except CommandError:
        return "unknown"
    return f"{commit or 'unknown'}{'-dirty' if changed else ''}"
