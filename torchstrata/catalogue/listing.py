"""``catalogue.json``: what the catalogue knows, for programs; and the data that the script of the pages reads."""

from __future__ import annotations

import json
from itertools import chain, product
from typing import Any, Final

from torchstrata import progress
from torchstrata.catalogue import grid, instructions, machines
from torchstrata.catalogue.exhibits import Catalogue, Exhibit
from torchstrata.catalogue.strings import Speaker

SCHEMA: Final = 1

LAUNCHERS: Final = {
    "compose": "Docker Compose",
    "devcontainer": "Dev Containers",
    "k8s": "Kubernetes",
    "jupyterhub": "JupyterHub",
    "slurm": "Slurm",
}
"""Names of launchers, in all languages; that of ``docker run`` is a line of its own."""


def document(catalogue: Catalogue, pages: dict[str, str]) -> dict[str, Any]:
    """Return the catalogue.

    :param pages: path of the page by digest of the image.
    """
    current = {image.digest for image in catalogue.current}
    state = catalogue.ledger.state
    held: dict[str, list[str]] = {}
    for (channel, _), entry in state.current.items():
        for digest in entry.images.values():
            held.setdefault(digest, []).append(channel)
    return {
        "schema": SCHEMA,
        "name": catalogue.matrix.name,
        "source": catalogue.source,
        "repository": catalogue.place or None,
        "made": f"{catalogue.made:%Y-%m-%dT%H:%M:%SZ}",
        "checked": catalogue.who or None,
        "unread": dict(catalogue.unread),
        "images": [
            {
                **_facts(catalogue, image),
                "page": pages[image.digest],
                "newest": image.digest in current,
                "channels": sorted(set(chain.from_iterable(held.get(digest, ()) for digest in image.moved))),
            }
            for image in catalogue.images
        ],
        "cells": [_box(box) for box in chain.from_iterable(line.boxes for line in grid.by_system(catalogue).lines)],
    }


def _facts(catalogue: Catalogue, image: Exhibit) -> dict[str, Any]:
    tested = image.evidence
    return {
        "digest": image.digest,
        "reference": instructions.reference(catalogue, image),
        "tags": list(image.tags),
        "cell": image.cell,
        "flavour": image.flavour,
        "image": image.image,
        "platform": image.platform,
        "torch": image.version,
        "cuda": image.wheels_cuda or None,
        "os": image.os,
        "driver_floor": image.driver_floor or None,
        "architectures": list(image.architectures),
        "released": image.day or None,
        "size": image.size,
        "verification": image.verdict,
        "verified": tested.finished if tested else None,
        "signed": image.is_signed,
        "findings": {finding.part: finding.problem or "holds" for finding in image.findings},
        "problems": list(image.problems),
        "layers": [{"digest": layer.digest, "size": layer.size} for layer in image.layers],
        "documents": {document.file: document.digest for document in image.attached},
    }


def _box(box: grid.Box) -> dict[str, Any]:
    reason = Speaker(language="en").reason(box.reason) if box.reason else None
    return {"cell": box.name, "state": box.state, "reason": reason, "verification": box.verdict if box.images else None}


def picker(catalogue: Catalogue, pages: dict[str, str], slugs: dict[str, str], say: Speaker) -> dict[str, Any]:
    """Return what the picker chooses from: the newest image of each cell, platform and flavour."""
    flavours = dict.fromkeys((*catalogue.matrix.flavours, *sorted({image.image for image in catalogue.current})))
    return {"flavours": list(flavours), "images": [_choice(catalogue, image, pages, slugs, say) for image in catalogue.current]}


def _choice(catalogue: Catalogue, image: Exhibit, pages: dict[str, str], slugs: dict[str, str], say: Speaker) -> dict[str, Any]:
    return {
        "slug": slugs[image.digest],
        "page": pages[image.digest],
        "name": f"{image.cell}-{image.image}",
        "torch": image.torch,
        "cuda": image.cuda,
        "os": image.os,
        "platform": image.platform,
        "flavour": image.image,
        "tag": instructions.name(catalogue, image) if image.tag else "",
        "digest": image.digest,
        "pull": instructions.pull(catalogue, image),
        "size": progress.size(image.size),
        "day": image.day,
        "verdict": image.verdict,
        "verdict_words": say(f"verdict.{image.verdict}"),
        "floor": image.driver_floor,
        "drivers": machines.drivers(image, catalogue.cells.get(image.cell)),
    }


def data(catalogue: Catalogue, image: Exhibit) -> dict[str, Any]:
    """Return what pages load of an image when somebody asks for it: files of launchers, and what it is compared by."""
    started = instructions.launchers(catalogue, image)
    named = chain.from_iterable(product([LAUNCHERS[launcher]], files.items()) for launcher, files in started.items() if launcher in LAUNCHERS)
    image_record = image.record
    return {
        "name": f"{image.cell}-{image.image} {image.day}".strip(),
        "size": progress.size(image.size),
        "run": next(iter(started["print"].values())),
        "files": [{"title": title, "name": path, "text": text} for title, (path, text) in named],
        "facts": {name: value for name, value in image.labels.items() if name.startswith(("torchstrata.", "org.opencontainers.image."))},
        "python": {wheel.name: wheel.version for wheel in image_record.wheels} if image_record else {},
        "os": {package.name: package.version for package in image_record.packages} if image_record else {},
    }


def script(name: str, value: Any) -> str:
    """Return a script that hands a value to the pages, which may lie on a disk where nothing else can be loaded."""
    return f"catalogue({_json(name)}, {_json(value)});\n"


def _json(value: Any) -> str:
    """Return a value as JSON that ends no element and no line, wherever it is put."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
