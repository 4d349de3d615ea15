"""What a build would reuse and make, image by image, layer by layer. Reads the store and the locks, writes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from torchstrata import platforms, progress
from torchstrata.layers import bytecode, contexts, os_parts, strata, toolchain_lock
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain_lock import Toolchain
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.locks.lockfile import Lock, Pin
from torchstrata.matrix.matrix import ROOT, Cell, Matrix, OperatingSystem
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM, Layer
from torchstrata.store.part import Part
from torchstrata.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytecode:
    """The compiled Python of a flavour's own payload.

    :param sources: the strata that hold the ``.py`` files.
    :param base: identity of the OS part whose interpreter compiles them, and the flavours of its lineage.
    :param interpreter: its full version.
    """

    sources: tuple[Stratum, ...]
    base: str
    system: OperatingSystem
    interpreter: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OsPart:
    """The layers that the Dockerfile of the last flavour of ``lineage`` adds on an OS."""

    system: OperatingSystem
    lineage: tuple[str, ...]


Source = Stratum | Toolchain | Bytecode | OsPart


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One run of layers of an image: found in the store, or to be made.

    :param part: what the store holds for the identity, if anything.
    """

    identity: str
    title: str
    source: Source
    part: Part | None

    @property
    def origin(self) -> str:
        """``os`` or ``payload``, as the compose checks distinguish them."""
        return "os" if isinstance(self.source, OsPart) else "payload"

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The wheels that making it needs."""
        return self.source.pins if isinstance(self.source, Stratum | Toolchain) else ()

    @property
    def fetch(self) -> int:
        """Bytes of wheels to fetch if the store lacks it."""
        return 0 if self.part else sum(pin.size for pin in self.pins)

    @property
    def packages(self) -> int:
        """Bytes of a toolchain's Debian packages to fetch if the store lacks it; little of them stays."""
        return sum(package.size for package in self.source.packages) if isinstance(self.source, Toolchain) and not self.part else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """One image: its cell and flavour, its lock, and its items bottom to top (without the facts layer).

    :param tools: what making these takes, and is in no layer of the image.
    """

    cell: Cell
    lineage: tuple[str, ...]
    lock: Lock
    items: tuple[Item, ...]
    tools: tuple[Item, ...] = ()

    @property
    def flavour(self) -> str:
        """The flavour of the image."""
        return self.lineage[-1]

    @property
    def name(self) -> str:
        """Cell and flavour, such as ``2.8-cu121-debian13-devel``, on every platform."""
        return f"{self.cell.id}-{self.flavour}"

    @property
    def shown(self) -> str:
        """Its name, and the architecture where it is not the default one, as tags in an engine have it, too."""
        return f"{self.name}{platforms.suffix(self.cell.platform)}"

    @property
    def top(self) -> Item | None:
        """The OS part of its own flavour, which knows the versions of all OS packages."""
        return next((item for item in reversed(self.items) if isinstance(item.source, OsPart)), None)

    def fitting(self, *, locked: bool) -> ImagePlan:
        """Return the plan without OS parts that do not fit what they lie on, or, if ``locked``, are not as locked."""
        below, items = None, list[Item]()
        for item in self.items:
            if not isinstance(item.source, OsPart):
                items.append(item)
                continue
            is_first = len(item.source.lineage) == 1
            fits = item.part is not None and (is_first or below is not None) and os_parts.fits(item.part, below, locked=locked)
            below = item.part if fits else None
            items.append(replace(item, part=below))
        fitting = [item.part if item.part and os_parts.fits(item.part, None, locked=locked) else None for item in self.tools]
        tools = tuple(replace(item, part=part) for item, part in zip(self.tools, fitting, strict=True))
        return replace(self, items=tuple(items), tools=tools)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All images of a build, parents before children."""

    images: tuple[ImagePlan, ...]

    def items(self) -> tuple[Item, ...]:
        """Return every item once, in the order in which images need them."""
        return tuple({item.identity: item for _, item in self.used()}.values())

    def used(self) -> Iterator[tuple[ImagePlan, Item]]:
        """Yield each image with each item that it needs, tools first."""
        for image in self.images:
            for item in (*image.tools, *image.items):
                yield image, item

    def missing(self) -> tuple[Item, ...]:
        """Return the items that the store lacks."""
        return tuple(item for item in self.items() if item.part is None)

    def filled(self, parts: Mapping[str, Part]) -> Plan:
        """Return the plan with parts, by identity, that were found elsewhere."""
        return Plan(images=tuple(_filled(image, parts) for image in self.images))

    def fitting(self, *, locked: bool) -> Plan:
        """Return the plan without OS parts that do not fit what they lie on, or, if ``locked``, are not as locked."""
        return Plan(images=tuple(image.fitting(locked=locked) for image in self.images))


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """What plans are made from.

    :param locked: OS parts with other versions than the lock's do not count as made.
    """

    matrix: Matrix
    store: Store
    codec: Codec
    locked: bool = False

    def plan(self, cells: Sequence[Cell], flavours: Sequence[str]) -> Plan:
        """Return the plan for ``flavours`` (with their parents) of ``cells``.

        :raises LockError: a cell is not locked, or its lock no longer matches its inputs.
        :raises MatrixError: there is no such flavour.
        :raises FlavourError: one would hide files of a parent.
        """
        lineages = [self.matrix.with_parents(flavour) for flavour in flavours]
        for lineage in lineages:
            contexts.check_shadows(ROOT, lineage)
        wanted = [name for name in self.matrix.flavours if any(name in lineage for lineage in lineages)]
        images = itertools.chain.from_iterable(self._images(cell, wanted) for cell in cells)
        return Plan(images=tuple(images)).fitting(locked=self.locked)

    def _images(self, cell: Cell, flavours: Iterable[str]) -> Iterator[ImagePlan]:
        """Yield the images of one cell: each flavour's items are a prefix of its child's, except the all-in-one's.

        That is pulled alone, by people: all its payload lies below all its OS parts, so that a fix in any of them
        moves no wheel on the node that pulls it.
        """
        below: dict[str, ImagePlan] = {}
        for flavour in flavours:
            parent = below.get(self.matrix.flavours[flavour].parent or "")
            lock = wheel_locks.read(cell, flavour)
            wheel_locks.check_pins(cell, lock, parent.lock if parent else None)
            own = (*self._payload(cell, lock, parent.lock if parent else None), self._os_part(cell.os, flavour))
            items = (*(parent.items if parent else ()), *own)
            if flavour == self.matrix.all_in_one:
                items = tuple(sorted(items, key=lambda item: item.origin == "os"))
            image = ImagePlan(cell=cell, lineage=self.matrix.with_parents(flavour), lock=lock, items=items, tools=self._tools(cell, items))
            below[flavour] = image
            yield image

    def _payload(self, cell: Cell, lock: Lock, parent: Lock | None) -> Iterator[Item]:
        """Yield the payload items that a flavour adds: toolchain, strata, bytecode."""
        compiler = cell.facts.nvcc
        if lock.flavour == wheel_locks.COMPILER_FLAVOUR and compiler and compiler.lock:
            tools = toolchain_lock.read(compiler.lock, platform=cell.platform)
            yield self._item(tools.identity(self.codec), tools.title, tools)
        own = strata.plan(lock, parent, self.matrix.strata, cell.os.python)
        for stratum in own:
            yield self._item(stratum.identity(self.codec), stratum.title, stratum)
        sources = tuple(stratum for stratum in own if stratum.python and stratum.pins)
        if sources:
            yield self._bytecode(cell, lock.flavour, sources)

    def _bytecode(self, cell: Cell, flavour: str, sources: tuple[Stratum, ...]) -> Item:
        interpreter = os_locks.python_version(cell.os)
        identity = bytecode.identity((stratum.identity(self.codec) for stratum in sources), interpreter, self.codec)
        system = _compiling(cell, interpreter)
        base = self._os_part(system, wheel_locks.TORCH_FLAVOUR).identity
        bytecode_of = Bytecode(sources=sources, base=base, system=system, interpreter=interpreter)
        return self._item(identity, f"bytecode of {flavour}", bytecode_of)

    def _tools(self, cell: Cell, items: Iterable[Item]) -> tuple[Item, ...]:
        """Return the OS parts of another platform whose interpreter compiles what an image has."""
        return tuple(self._os_part(system, wheel_locks.TORCH_FLAVOUR) for system in {source.system for source in _uncompiled(items)} - {cell.os})

    def _os_part(self, system: OperatingSystem, flavour: str) -> Item:
        lineage = self.matrix.with_parents(flavour)
        return self._item(os_parts.identity(system, lineage, self.codec), f"{system.name} {flavour}", OsPart(system=system, lineage=lineage))

    def _item(self, identity: str, title: str, source: Source) -> Item:
        return Item(identity=identity, title=title, source=source, part=self.store.find(identity))


def _compiling(cell: Cell, interpreter: str) -> OperatingSystem:
    """Return the OS whose Python compiles: the default platform's, where it has the same version, else the cell's own.

    Its bytes are the same, and it needs no emulator (docs/arm64.md).
    """
    native = cell.on(PLATFORM).os
    return native if native == cell.os or os_locks.python_version(native) == interpreter else cell.os


def _uncompiled(items: Iterable[Item]) -> list[Bytecode]:
    """Return the bytecode that is still to be made."""
    return [item.source for item in items if isinstance(item.source, Bytecode) and item.part is None]


def _filled(image: ImagePlan, parts: Mapping[str, Part]) -> ImagePlan:
    """Return a plan with parts that were found; a tool for what was found is not needed any more."""
    items = _with(image.items, parts)
    bases = {source.base for source in _uncompiled(items)}
    return replace(image, items=items, tools=tuple(tool for tool in _with(image.tools, parts) if tool.identity in bases))


def _with(items: Iterable[Item], parts: Mapping[str, Part]) -> tuple[Item, ...]:
    return tuple(replace(item, part=item.part or parts.get(item.identity)) for item in items)


def table(plan: Plan) -> Table:
    """Return the plan for people: one row for each run of layers of each image's own, with what becomes of it."""
    view = progress.table("image", "layers of", "reuse", "make", "to fetch")
    for image, item in _own_items(plan):
        reuse = progress.size(sum(layer.size for layer in item.part.layers)) if item.part else ""
        fetch = progress.size(item.fetch) if item.fetch else ""
        view.add_row(image.shown, item.title, reuse, "" if item.part else "yes", fetch)
    return view


def document(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan for programs, in the shape of :func:`table`; sizes in bytes."""
    return [
        {
            "image": image.shown,
            "item": item.title,
            "identity": item.identity,
            "reuse": bool(item.part),
            "layers": [_described(layer) for layer in item.part.layers] if item.part else [],
            "fetch": item.fetch,
        }
        for image, item in _own_items(plan)
    ]


def _described(layer: Layer) -> dict[str, Any]:
    return {"digest": layer.digest, "size": layer.size, "title": layer.title}


def _own_items(plan: Plan) -> Iterator[tuple[ImagePlan, Item]]:
    """Yield every item once, with the first image that needs it."""
    listed: set[str] = set()
    for image, item in plan.used():
        if item.identity not in listed:
            listed.add(item.identity)
            yield image, item
