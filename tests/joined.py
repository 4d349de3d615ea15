"""Small images of one cell for two platforms, in a registry: what each platform's machine would have pushed."""

from __future__ import annotations

import dataclasses

from tests.desks import manifest
from tests.tars import packed
from torchstrata.image import runtime
from torchstrata.image.compose import canonical, sha256
from torchstrata.image.image_index import ImageIndex, PlatformImage
from torchstrata.registry import dated_tag, platform_indexes
from torchstrata.registry.dated_tag import DatedTag, PushNumber

BOTH = ("linux/amd64", "linux/arm64")
REVISION = "2" * 40


def several(table, *names):
    """Return a matrix with cells, by their full ids, of which there are images for two platforms."""
    cells = tuple(dataclasses.replace(cell, platforms=BOTH) if cell.id in names else cell for cell in table.cells)
    return dataclasses.replace(table, cells=cells)


def config(table, cell, name, platform, mark, **labels):
    """Return the config of an image that holds ``mark``, with other labels, or without those that are ``None``."""
    system, _, architecture = platform.partition("/")
    flavour, user = (name, runtime.DEV) if name in table.flavours else (table.all_in_one, runtime.ROOT)
    known = {
        "torchstrata.cell": cell.id,
        "torchstrata.flavour": flavour,
        "torchstrata.lock": "1" * 64,
        "torchstrata.torch": cell.version,
        "torchstrata.os": cell.os.id,
        platform_indexes.REVISION: REVISION,
        **{key.replace("__", "."): value for key, value in labels.items()},
    }
    run = {"Labels": {key: value for key, value in known.items() if value is not None}, "User": user}
    diff_id = sha256(layer(name, platform, mark))
    return canonical({"architecture": architecture, "os": system, "config": run, "rootfs": {"type": "layers", "diff_ids": [diff_id]}})


def layer(name, platform, mark):
    """Return the one layer of an image: a tar with a file that says which image it is of."""
    return packed({"file": f"{name} {platform} {mark}".encode()})


def push(registry, repository, table, cell, name, platform, mark, number=1, **labels):  # noqa: PLR0913, PLR0917  # what an image is
    """Push an image for one platform under its dated tag, as the machine of that platform does; return its manifest."""
    tag = str(DatedTag(stem=dated_tag.stem(cell, name, platform), push=PushNumber(day="20261124", number=number)))
    return manifest(registry, repository, tag, [layer(name, platform, mark)], config(table, cell, name, platform, mark, **labels))


def index(name, **bodies):
    """Return the index of manifests, by architecture."""
    images = (PlatformImage(platform=f"linux/{architecture}", digest=sha256(body), size=len(body)) for architecture, body in bodies.items())
    return ImageIndex(name=name, images=tuple(images))
