"""The revision of the sources that an image is made from."""

from __future__ import annotations

from pathlib import Path

from torchstrata import process
from torchstrata.errors import CommandError
from torchstrata.matrix import Cell


def revision(cell: Cell, root: Path) -> str:
    """Return the last commit that touched what the images of ``cell`` are made from, with ``-dirty`` where that has
    changed since, or ``unknown`` outside a repository.

    Other commits leave it as it is, so that they change no image.
    """
    inputs = ("images", f"locks/{cell.build}/{cell.os.python_tag}", f"locks/os/{cell.os.id}.lock", "locks/toolchain")
    try:
        commit = process.run("git", "-C", str(root), "log", "-1", "--format=%H", "--", *inputs).strip()
        changed = process.run("git", "-C", str(root), "status", "--porcelain", "--", *inputs).strip()
    except CommandError:
        return "unknown"
    return f"{commit or 'unknown'}{'-dirty' if changed else ''}"
