"""What tests of OS parts share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from torchstrata.matrix import matrix


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what OS parts are made from, with the modes of another umask."""
    for name in ("images", "locks/os"):
        shutil.copytree(matrix.ROOT / name, tmp_path / "checkout" / name, symlinks=True)
    for path in (tmp_path / "checkout").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    return tmp_path / "checkout"
