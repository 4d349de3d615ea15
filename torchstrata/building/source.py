"""The revision of the sources: of those that an image is made from, and of all."""

from __future__ import annotations

from pathlib import Path

from torchstrata import process
from torchstrata.cells.matrix import Cell
from torchstrata.errors import CommandError


def revision(cell: Cell, root: Path) -> str:
    """Return the last commit that touched what the images of ``cell`` are made from, with ``-dirty`` where that has
    changed since, or ``unknown`` outside a repository.

    Other commits leave it as it is, so that they change no image.
    """
    inputs = ("images", f"locks/{cell.build}/{cell.os.python_tag}", f"locks/os/{cell.os.id}.lock", "locks/toolchain")
    return _last_commit(root, *inputs)


def state(root: Path) -> str:
    """Return the commit that is checked out, with ``-dirty`` where files differ from it, or ``unknown`` outside a repository."""
    return _last_commit(root)


def _last_commit(root: Path, *paths: str) -> str:
    """Return the last commit that touched ``paths``, or the last one at all."""
    try:
        commit = process.run("git", "-C", str(root), "log", "-1", "--format=%H", "--", *paths).strip()
        changed = process.run("git", "-C", str(root), "status", "--porcelain", "--", *paths).strip()
    except CommandError:
        return "unknown"
    return f"{commit or 'unknown'}{'-dirty' if changed else ''}"
