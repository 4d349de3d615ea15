"""Push images of small parts as a build does, then find their parts as another machine does: ``push.py HOST DIRECTORY MARK``."""

from __future__ import annotations

import dataclasses
import faulthandler
import io
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.parts import CODEC, MATRIX, os_part, plan
from torchstrata.attestations.remote import Remote
from torchstrata.building.assembly import Builder
from torchstrata.building.plan import Item, Plan
from torchstrata.progress import PlainReporter
from torchstrata.registry.reference import Place
from torchstrata.store.store import Store

PARTS: Final = 12


def parts(store: Store, mark: str) -> Plan:
    """Make parts, and return the plan of the images of all flavours."""
    flavours = tuple(MATRIX.flavours)
    items = [os_part(store, {f"etc/{mark}-{number}": f"{mark} {number}".encode() * 5000}, flavours[:1]) for number in range(PARTS)]
    return plan(*items, flavours=flavours, per_flavour=PARTS // len(flavours))


def lacking(item: Item) -> Item:
    """Return an item as a store has it that lacks its part."""
    return dataclasses.replace(item, part=None)


def main(host: str, directory: Path, mark: str) -> None:
    """Push, then find every part again."""
    place, store, empty = Place.parse(f"{host}/team"), Store(directory / "full"), Store(directory / "empty")
    whole = parts(store, mark)
    composed = Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO()))).build(whole)
    with Remote.opened(place, f"pushed-{mark}", store) as shared:
        assert shared is not None
        shared.push(whole, shared.publications(composed))
    images = tuple(dataclasses.replace(image, items=tuple(map(lacking, image.items))) for image in whole.images)
    with Remote.opened(place, f"pushed-{mark}", empty, unsealed=True) as shared:
        assert shared is not None
        assert shared.fill(Plan(images=images), CODEC, locked=False).missing() == ()


if __name__ == "__main__":
    faulthandler.enable()
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
