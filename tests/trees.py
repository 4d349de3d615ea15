"""Flavours of small checkouts: the folders and files that say which there are."""

from __future__ import annotations

from pathlib import Path

SMALL = {"base": "", "devel": "base"}
"""Parent by flavour."""


def grow(root: Path, parents: dict[str, str], **more: str) -> Path:
    """Write the file of each flavour into a checkout; return the checkout.

    :param parents: by flavour; empty for none.
    :param more: further lines of files, by flavour.
    """
    for name, parent in parents.items():
        folder = root / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        above = f"parent: {parent}\n" if parent else ""
        (folder / "flavour.yaml").write_text(f"{above}summary: what {name} adds\n{more.get(name, '')}")
    return root
