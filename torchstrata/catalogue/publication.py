"""Writing a site into a directory: whole or not at all, and never over what is something else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from torchstrata.errors import CatalogueError
from torchstrata.host.filesystem import OTHER_DIRECTORY, disk

MARK: Final = "catalogue.json"
"""By which a directory is known as a catalogue, which may be replaced."""

ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")


def checked_address(text: str) -> str:
    """Return the address of a site, ending in a slash; an empty one stays.

    :raises CatalogueError: it is no address of a site.
    """
    if text and not ADDRESS.fullmatch(text):
        raise CatalogueError(f"{text[:200]!a} is no address of a site", fix="write it as browsers show it: --address https://team.example/images/")
    return text if not text or text.endswith("/") else f"{text}/"


def write(files: Iterable[tuple[str, bytes]], output: Path) -> int:
    """Write files into a directory, which has them all or stays as it was; return their bytes.

    :param files: path below the directory, and content.
    :raises CatalogueError: there is something else than a catalogue.
    :raises DiskFullError, StoreError: it cannot be written.
    """
    output = output.absolute()
    check(output)
    partial, old = (output.with_name(f".{output.name}.{kind}") for kind in ("partial", "old"))
    with disk(output, OTHER_DIRECTORY):
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            size = sum(_write(partial / path, content) for path, content in files)
            if output.exists():
                output.rename(old)
            partial.rename(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not output.exists():
                old.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    return size


def check(output: Path) -> None:
    """Refuse a place where something else than a catalogue is.

    :raises CatalogueError: there is.
    :raises StoreError: this user may not look.
    """
    if not os.path.lexists(output):
        return
    if output.is_symlink() or not output.is_dir():
        raise CatalogueError(f"{output} is no directory", fix="name a new directory: --output DIRECTORY")
    with disk(output, OTHER_DIRECTORY):
        is_other = any(output.iterdir()) and not (output / MARK).is_file()
    if is_other:
        raise CatalogueError(f"{output} has other files than those of a catalogue", fix="name a new directory, or remove what is there: --output DIRECTORY")


def _write(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(content)
