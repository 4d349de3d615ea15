"""What an image was made from, as far as its record says it.

A pure function of the image and its parts: no clock, no machine, so that the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import msgspec

import torchstrata
from torchstrata.attestations import licences
from torchstrata.attestations.record import SCHEMA, Deb, Inputs, LockedWheel, Package, Record, RecordedLayer, SourceRepository, System, Tools, Torch
from torchstrata.building.assembly import Composed
from torchstrata.building.plan import Item, OsPart
from torchstrata.image.compose import Image, sha256
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain_lock import Toolchain
from torchstrata.matrix.matrix import Cell, OperatingSystem
from torchstrata.store import inventory
from torchstrata.store.inventory import Inventory
from torchstrata.store.part import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """An image with all that is known of how it was made.

    :param parts: of the image's plan, by identity.
    :param inventories: of those parts that hold packages, by identity.
    """

    composed: Composed
    parts: Mapping[str, Part]
    inventories: Mapping[str, Inventory]
    source: SourceRepository
    os_lock: str
    os_lock_date: str
    os_image: str
    codec: str


def record_of(made: Made) -> Record:
    """Return the record of an image."""
    image, plan = made.composed.image, made.composed.plan
    config = msgspec.json.decode(image.config)
    words: dict[str, str] = {}
    wheels, packages = tuple(_wheels(made, words)), tuple(_packages(made, words))
    return Record(
        schema=SCHEMA,
        tool=torchstrata.__version__,
        name=image.name,
        cell=plan.cell.id,
        flavour=plan.flavour,
        user=config["config"]["User"],
        platform=plan.cell.platform,
        os=_system(plan.cell.os),
        created=config["created"],
        digest=image.digest,
        config=sha256(image.config),
        size=image.size,
        unpacked=sum(layer.unpacked for layer in image.layers),
        source=made.source,
        inputs=_inputs(made, words),
        torch=torch(plan.cell),
        layers=tuple(_layers(image, plan.items, made.parts)),
        wheels=wheels,
        packages=packages,
        licences=dict(sorted(words.items())),
        platforms=plan.cell.platforms if len(plan.cell.platforms) > 1 else (),
    )


def torch(cell: Cell) -> Torch:
    """Return what is known of a cell's torch."""
    facts = cell.facts
    return Torch(
        version=cell.version,
        wheels=cell.wheels,
        git=facts.git,
        cuda=facts.cuda_version,
        asked_cuda=facts.asked_cuda,
        cudnn=facts.cudnn,
        nccl=facts.nccl,
        nvcc=facts.nvcc.cuda if facts.nvcc else None,
        driver_floor=facts.driver_floor,
        architectures=facts.architectures,
    )


def _system(system: OperatingSystem) -> System:
    return System(id=system.id, distribution=system.distribution, release=system.release, suite=system.suite, python=system.python)


def _inputs(made: Made, words: dict[str, str]) -> Inputs:
    lock = made.composed.plan.lock
    return Inputs(
        lock=lock.digest,
        lock_seen=lock.exclude_newer,
        os_lock=made.os_lock,
        os_lock_date=made.os_lock_date,
        os_image=made.os_image,
        codec=made.codec,
        toolchain=_tools(made, words),
        drift=tuple(map(str, made.composed.drift)),
    )


def _tools(made: Made, words: dict[str, str]) -> Tools | None:
    """Return the toolchain of the image, if it has one."""
    for item in made.composed.plan.items:
        if isinstance(item.source, Toolchain):
            licence = licences.of_debian(made.inventories[item.identity].copyrights.get(item.source.name, ()))
            words |= licence.words
            packages = tuple(
                Deb(name=package.name, version=package.version, filename=package.filename, sha256=package.sha256, licence=licence.expression)
                for package in item.source.packages
            )
            return Tools(name=item.source.name, package=next(iter(packages), None), libraries=packages[1:], wheels=item.source.pins)
    return None


def _layers(image: Image, items: Sequence[Item], parts: Mapping[str, Part]) -> Iterator[RecordedLayer]:
    """Yield the layers of the image; those above its items' are its own."""
    for item in items:
        for layer in parts[item.identity].layers:
            yield RecordedLayer(**asdict(layer), origin=item.origin, part=item.identity)
    for layer in image.layers[sum(len(parts[item.identity].layers) for item in items) :]:
        yield RecordedLayer(**asdict(layer), origin="facts")


def _wheels(made: Made, words: dict[str, str]) -> Iterator[LockedWheel]:
    installed = chain.from_iterable(held.python for held in _held(made, Stratum))
    packages = {package.name: package for package in installed}
    for pin in made.composed.plan.lock.pins:
        licence = licences.of_python(packages[pin.name]) if pin.name in packages else licences.Licence()
        words |= licence.words
        yield LockedWheel(**asdict(pin), licence=licence.expression)


def _packages(made: Made, words: dict[str, str]) -> Iterator[Package]:
    held = inventory.merged(_held(made, OsPart))
    for package in held.os:
        licence = licences.of_debian(inventory.copyright_of(package, held))
        words |= licence.words
        yield Package(**msgspec.structs.asdict(package), licence=licence.expression)


def _held(made: Made, kind: type) -> Iterator[Inventory]:
    """Yield the inventories of the image's parts of one kind, bottom to top."""
    for item in made.composed.plan.items:
        if isinstance(item.source, kind) and item.identity in made.inventories:
            yield made.inventories[item.identity]
