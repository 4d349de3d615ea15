"""Images in a directory, as an OCI image layout (image specification 1.1, image-layout.md)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torchstrata.content.archive import Loadable
from torchstrata.content.compose import MANIFEST, canonical, sha256
from torchstrata.content.digest import file_name
from torchstrata.content.store import Store, disk


def write(directory: Path, images: Sequence[Loadable], store: Store) -> None:
    """Write ``images`` into ``directory``; blobs are hard links into the store where the file system allows, else copies.

    The index comes last, so that it never names what is not there.

    :raises DiskFullError: there is no space left.
    :raises StoreError: the directory cannot be written, or the store lacks a blob.
    """
    blobs = directory / "blobs" / "sha256"
    with disk(directory):
        blobs.mkdir(parents=True, exist_ok=True)
        for image in images:
            for layer in image.layers:
                _place(store.open_blob(layer.digest, layer.size), blobs / file_name(layer.digest))
            for content in (image.config, image.manifest):
                (blobs / file_name(sha256(content))).write_bytes(content)
        (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
        (directory / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [_described(image, tag) for image in images for tag in image.tags]}))


def _place(blob: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(blob, target)
    except OSError:
        shutil.copyfile(blob, target)


def _described(image: Loadable, tag: str) -> dict[str, object]:
    return {
        "mediaType": MANIFEST,
        "digest": sha256(image.manifest),
        "size": len(image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag.rpartition(":")[2]},
    }
