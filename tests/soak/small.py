"""A build of small wheels, and its push: ``small.py build WHEELS DIRECTORY``, ``small.py push HOST``. As a build of real ones, in seconds.

The wheels come from the index that pip is told of; the content store lies where its variable says.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from tests.parts import CODEC, MATRIX, missing, os_part, plan, stratum
from tests.wheelhouse import wheel
from torchstrata import process
from torchstrata.attestations.remote import Remote
from torchstrata.building.assembly import Builder, Composed
from torchstrata.building.plan import Item, Plan
from torchstrata.commands import cli
from torchstrata.image import layout
from torchstrata.locks.lockfile import Pin
from torchstrata.progress import PlainReporter
from torchstrata.registry.reference import Place
from torchstrata.store.store import Store

COUNT: Final = 6
SIZE: Final = 1_500_000
NAME: Final = "small"


def wheels(directory: Path) -> tuple[Pin, ...]:
    """Write wheels of noise, the same ones each time; return their pins."""
    noise = random.Random(1)  # content, no secret
    return tuple(wheel(directory, f"small{number}", "1.0", {f"small{number}/data": noise.randbytes(SIZE)})[0] for number in range(COUNT))


def whole(store: Store, pins: tuple[Pin, ...]) -> Plan:
    """Return the plan of one image: a layer for each wheel, and an OS part."""
    return plan(*(_item(store, pin) for pin in pins), os_part(store, {"etc/small": b"small" * 1000}))


def _item(store: Store, pin: Pin) -> Item:
    item = missing(stratum(pin))
    return Item(identity=item.identity, title=item.title, source=item.source, part=store.find(item.identity))


def composed(store: Store, planned: Plan) -> tuple[Composed, ...]:
    """Make what lacks, and compose."""
    return Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console())).build(planned)


def build(pins: tuple[Pin, ...], to: Path) -> None:
    """Build, and write the image into a directory."""
    store = Store.open()
    images = composed(store, whole(store, pins))
    layout.write(to, [one.loadable for one in images], store)
    print(images[0].image.digest)


def push(pins: tuple[Pin, ...], host: str) -> None:
    """Build, and push image and parts."""
    store = Store.open()
    planned = whole(store, pins)
    images = composed(store, planned)
    planned = whole(store, pins)
    with Remote.opened(Place.parse(host), NAME, store) as shared:
        assert shared is not None
        shared.push(planned, shared.publications(images))


def main(verb: str, listed: str, where: str) -> None:
    """Do what a verb says."""
    process.end_as_by_ctrl_c()
    with cli.guarded():
        pins = msgspec.json.decode(Path(listed).read_bytes(), type=tuple[Pin, ...])
        if verb == "build":
            build(pins, Path(where))
        else:
            push(pins, where)


if __name__ == "__main__":
    main(*sys.argv[1:])
