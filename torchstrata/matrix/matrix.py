"""``matrix.yaml`` as frozen values, and the choice of cells by globs on their ids."""

from __future__ import annotations

import datetime as dt
import difflib
import fnmatch
import functools
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec.structs

from torchstrata import checkout, platforms
from torchstrata.errors import MatrixError
from torchstrata.matrix import compat, flavours, plain_yaml, schema, shape, validation
from torchstrata.matrix.flavours import Flavour, Service
from torchstrata.platforms import PLATFORM

ROOT: Final = checkout.ROOT
MATRIX: Final = ROOT / "matrix.yaml"


class OperatingSystem(schema.SystemSettings, frozen=True, kw_only=True):
    """An operating system of the matrix, as the file has it.

    :param id: such as ``debian13``.
    :param platform: of its packages, such as ``linux/arm64``.
    """

    id: str
    platform: str = PLATFORM

    @property
    def name(self) -> str:
        """The id, and the architecture where it is not the default one: ``debian13-arm64``."""
        return f"{self.id}{platforms.suffix(self.platform)}"

    @property
    def asked(self) -> str:
        """What `inv lock --os` takes to mean it: ``debian13 --platform linux/arm64``."""
        return self.id if self.platform == PLATFORM else f"{self.id} --platform {self.platform}"

    @property
    def python_tag(self) -> str:
        """The wheel tag of its Python, such as ``cp313``."""
        return f"cp{self.python.replace('.', '')}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One supported row of the matrix on one OS.

    :param torch: minor version, such as ``2.8``.
    :param cuda: what is asked for, such as ``cu121``.
    :param wheels: the build that serves it, such as ``cu128``.
    :param companions: pins of what is installed beside torch, such as ``torchvision==0.23.0``.
    :param named: ``v<torch>`` means this cell.
    :param platforms: on which the row is offered, the default one first.
    """

    torch: str
    cuda: str
    wheels: str
    os: OperatingSystem
    companions: tuple[str, ...]
    is_default_os: bool
    named: bool
    platforms: tuple[str, ...] = (PLATFORM,)

    def on(self, platform: str) -> Cell:
        """Return the cell on another platform: the same id, versions and names; other wheels, packages and bytes.

        :raises PlatformError: the row is not offered on it.
        """
        if platform not in self.platforms:
            raise validation.not_offered(self.torch, self.wheels, self.short, platform)
        if platform == self.platform:
            return self
        return replace(self, os=msgspec.structs.replace(self.os, platform=platform))

    @property
    def platform(self) -> str:
        """The platform of its images, such as ``linux/amd64``."""
        return self.os.platform

    @property
    def short(self) -> str:
        """``2.8-cu121``: the cell on its default OS."""
        return f"{self.torch}-{self.cuda}"

    @property
    def id(self) -> str:
        """``2.8-cu121-debian13``, on every platform."""
        return f"{self.short}-{self.os.id}"

    @property
    def name(self) -> str:
        """The id, and the architecture where it is not the default one: ``2.15-cu132-debian13-arm64``."""
        return f"{self.short}-{self.os.name}"

    @property
    def weighed(self) -> str:
        """The short id, and the architecture where it is not the default: ``2.15-cu132-arm64`` has its own weights."""
        return f"{self.short}{platforms.suffix(self.platform)}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which the cell is known: the short id, on the default OS, and the full one."""
        return (self.short, self.id) if self.is_default_os else (self.id,)

    @property
    def release(self) -> tuple[int, ...]:
        """Torch's minor version as numbers, to compare: ``2.10`` is newer than ``2.8``."""
        return compat.numbers(self.torch)

    @property
    def all_in_one(self) -> str:
        """``v2.8``: the image of a named cell with the layers of ``all_in_one``, which starts as root and drops it."""
        return f"v{self.torch}"

    @property
    def version(self) -> str:
        """Torch's patch version, such as ``2.8.0``."""
        return compat.torch(self.torch).version

    @property
    def build(self) -> str:
        """``2.8.0-cu128``: the wheels, under whose name the locks lie."""
        return f"{self.version}-{self.wheels}"

    @functools.cached_property
    def facts(self) -> compat.CellFacts:
        """What is known of the cell: CUDA, driver floor, GPU architectures, compiler."""
        return compat.cell_facts(self.torch, self.wheels, self.cuda, self.platform)

    @property
    def host_compiler(self) -> str:
        """The OS's best g++ that the cell's nvcc accepts, such as ``g++-13``."""
        return compat.host_compiler(self.os.compilers, self.facts.nvcc)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """Tags that move together; :mod:`torchstrata.release.channels` tells which they are.

    :param source: the channel that images come from; ``None`` for the one that takes new images.
    :param soak: how long they must have been there.
    :param max_age: how long nobody may look after it, or how long it may lag behind its source.
    :param tags: templates.
    :param keep: sets of images of a cell that stay in the registry, the present one included; ``None`` sets no limit.
    :param keep_for: how long others stay after they were replaced.
    """

    name: str
    source: str | None
    soak: dt.timedelta
    max_age: dt.timedelta
    tags: tuple[str, ...]
    keep: int | None = None
    keep_for: dt.timedelta | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """All of ``matrix.yaml`` and of the flavours beside it, checked.

    :param name: repository name of the images.
    :param flavours: parents before children; a tree.
    :param all_in_one: the flavour whose layers ``v<torch>`` has.
    :param cells: in the order of the file, the default OS of a row first.
    :param channels: in the order of the file.
    :param registry: the team's, as ``HOST[:PORT][/PATH]``, if the file names one.
    :param pinned: digests of images that stay in the registry.
    :param bootstrap_image: reference, with digest, of the image in which mmdebstrap runs where it cannot run otherwise.
    """

    name: str
    systems: Mapping[str, OperatingSystem]
    flavours: Mapping[str, Flavour]
    all_in_one: str
    cells: tuple[Cell, ...]
    strata: schema.Strata
    channels: Mapping[str, Channel]
    registry: str | None = None
    pinned: tuple[str, ...] = ()
    bootstrap_image: str | None = None

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The lineage of each flavour that is no parent: together they have all."""
        parents = {flavour.parent for flavour in self.flavours.values()}
        return tuple(self.with_parents(name) for name in self.flavours if name not in parents)

    def with_parents(self, flavour: str) -> tuple[str, ...]:
        """Return ``flavour`` and all it contains, parents first.

        :raises MatrixError: there is no such flavour.
        """
        if flavour not in self.flavours:
            raise MatrixError(f"unknown flavour {flavour}", fix=f"use one of {', '.join(self.flavours)}")
        parent = self.flavours[flavour].parent
        return (*(self.with_parents(parent) if parent else ()), flavour)

    def check(self, flavours: Iterable[str]) -> None:
        """Refuse flavours that do not exist.

        :raises MatrixError: there is no such flavour.
        """
        for flavour in flavours:
            self.with_parents(flavour)

    def lineage(self, flavour: str) -> tuple[Flavour, ...]:
        """Return ``flavour`` and all it contains as their files have them, parents first.

        :raises MatrixError: there is no such flavour.
        """
        return tuple(self.flavours[name] for name in self.with_parents(flavour))

    def services(self, flavour: str) -> tuple[Service, ...]:
        """Return what containers of a flavour run if nothing is asked for, its parents' first.

        :raises MatrixError: there is no such flavour.
        """
        return tuple(itertools.chain.from_iterable(link.own_services for link in self.lineage(flavour)))

    def budget(self, flavour: str, weighed: str) -> int | None:
        """Return the compressed bytes that an image may have: by its flavour, else the nearest parent that says it.

        :param weighed: the cell's id on its default OS, with the architecture where that is not the default one.
        """
        return next((size for link in reversed(self.with_parents(flavour)) if (size := self.flavours[link].budget(weighed))), None)

    def channel(self, name: str) -> Channel:
        """Return the channel ``name``.

        :raises MatrixError: there is no such channel.
        """
        if name not in self.channels:
            what = f"unknown channel {name}" if name else "no channel is named"
            raise MatrixError(what, fix=f"use one of {', '.join(self.channels) or '(matrix.yaml has none)'}")
        return self.channels[name]


def load(path: Path = MATRIX) -> Matrix:
    """Read and check ``matrix.yaml``, and the flavours beside it.

    :raises CheckoutError: this package is installed outside a checkout, and nothing names one.
    :raises MatrixError: it cannot be read, is not of the right shape, or asks for something that cannot work.
    :raises FlavourError: a flavour is not what it must be.
    """
    if path == MATRIX:
        checkout.require()
    return _made(shape.convert(plain_yaml.read(path, path.name), schema.MatrixFile, path.name), path.parent)


def of(text: str, root: Path = ROOT) -> Matrix:
    """Check what ``matrix.yaml`` would be with this text.

    :param root: the checkout that has the flavours.
    :raises MatrixError, FlavourError: see :func:`load`.
    """
    return _made(shape.convert(plain_yaml.parse(text.encode(), MATRIX.name), schema.MatrixFile, MATRIX.name), root)


def _made(raw: schema.MatrixFile, root: Path) -> Matrix:
    tree = flavours.read(root)
    for name in tree:
        flavours.check_name(name, raw.systems)
    validation.check(raw, tree)
    systems = {name: _system(name, system) for name, system in raw.systems.items()}
    return Matrix(
        name=raw.name,
        systems=systems,
        flavours=tree,
        all_in_one=raw.all_in_one,
        cells=tuple(itertools.chain.from_iterable(_cells(row, systems) for row in raw.rows)),
        strata=raw.strata,
        channels={name: _channel(name, channel) for name, channel in raw.channels.items()},
        registry=raw.registry,
        pinned=raw.pinned,
        bootstrap_image=raw.bootstrap_image,
    )


def select(matrix: Matrix, *globs: str) -> tuple[Cell, ...]:
    """Return the cells that match any of ``globs``, in the matrix's order; all of them if there are no globs.

    A short id, such as ``2.8-cu121``, means the row's default OS; globs match short and full ids.

    :raises MatrixError: one of the globs matches nothing; names the nearest ids.
    """
    for glob in globs:
        if not any(_matches(cell, glob) for cell in matrix.cells):
            raise MatrixError(why_none(matrix, glob), fix=f"nearest: {', '.join(nearest(matrix, glob))}")
    return tuple(cell for cell in matrix.cells if not globs or any(_matches(cell, glob) for glob in globs))


def select_on(matrix: Matrix, platform: str, *globs: str) -> tuple[Cell, ...]:
    """Return the cells that match on a platform; without globs, those that are offered on it.

    :raises MatrixError: one of the globs matches nothing.
    :raises PlatformError: no platform is called so; one that was asked for is not offered on it, or none is.
    """
    platforms.check(platform)
    chosen = select(matrix, *globs)
    offered = [cell for cell in chosen if platform in cell.platforms]
    return tuple(cell.on(platform) for cell in (chosen if globs or not offered else offered))


def everywhere(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return cells on every platform on which their rows are offered, the default one first."""
    return tuple(itertools.chain.from_iterable(map(cell.on, cell.platforms) for cell in cells))


def select_systems(matrix: Matrix, *globs: str) -> tuple[OperatingSystem, ...]:
    """Return the OSes that ``globs`` name, or that matching cells have; those of all cells if there are no globs.

    :raises MatrixError: one of the globs matches neither an OS nor a cell.
    """
    named = {glob: fnmatch.filter(matrix.systems, glob) for glob in globs}
    of_cells = [glob for glob in globs if not named[glob]]
    for glob in of_cells:
        if not any(_matches(cell, glob) for cell in matrix.cells):
            names = dict.fromkeys([*matrix.systems, *(cell.short for cell in matrix.cells)])
            near = difflib.get_close_matches(glob, names, n=4, cutoff=0.4) or matrix.systems
            raise MatrixError(f"neither an OS nor a cell matches {glob}", fix=f"nearest: {', '.join(near)}")
    asked = {cell.os.id for cell in select(matrix, *of_cells)} if of_cells or not globs else set[str]()
    asked.update(*named.values())
    return tuple(system for name, system in matrix.systems.items() if name in asked)


def select_rows(matrix: Matrix, *globs: str) -> tuple[Cell, ...]:
    """Return the cells that match, and where a glob matches the short id of a row, those on all its OSes.

    :raises MatrixError: one of the globs matches nothing; names the nearest ids.
    """
    chosen = select(matrix, *globs)
    rows = {cell.short for cell in chosen if any(fnmatch.fnmatchcase(cell.short, glob) for glob in globs)}
    return tuple(cell for cell in matrix.cells if cell in chosen or cell.short in rows)


def nearest(matrix: Matrix, name: str) -> tuple[str, ...]:
    """Return the ids nearest to ``name``: the cell of an image of that name first, then those of the same torch, then by spelling."""
    ids = list(dict.fromkeys(itertools.chain.from_iterable(cell.names for cell in matrix.cells)))
    torch = name.partition("-")[0]
    same = [cell.short for cell in matrix.cells if cell.torch == torch and cell.is_default_os]
    close = difflib.get_close_matches(name, ids, n=3, cutoff=0.0)
    return tuple(filter(None, dict.fromkeys([_image(matrix, name)[0], *same, *close])))[:4]


def _matches(cell: Cell, glob: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in cell.names)


def why_none(matrix: Matrix, glob: str) -> str:
    """Return one line that says why ``glob`` matches nothing."""
    if platform := platforms.named(glob):
        return f"no cell matches {glob}: its end is said by --platform {platform}"
    cell, flavour = _image(matrix, glob)
    if cell:
        return f"{glob} names an image, not a cell: cell {cell}, flavour {flavour}"
    asked = re.fullmatch(r"(\d+\.\d+)-(cu\d{3}|cpu)(?:-(.+))?", glob)
    if asked is None:
        return f"no cell matches {glob}"
    torch, variant, system = asked.groups()
    if system and system not in matrix.systems:
        return f"no cell matches {glob}: {system} is none of {', '.join(matrix.systems)}"
    if torch in compat.facts().torch and variant not in compat.torch(torch).builds:
        return f"no cell matches {glob}: {compat.why_not(torch, variant)}"
    return f"no cell matches {glob}: matrix.yaml has no such row"


def _image(matrix: Matrix, name: str) -> tuple[str, str]:
    """Return cell and flavour of the image that is called ``name`` in an engine; empty texts where none is."""
    cell, _, flavour = name.rpartition("-")
    if flavour in matrix.flavours and any(cell in known.names for known in matrix.cells):
        return cell, flavour
    return next(((known.short, matrix.all_in_one) for known in matrix.cells if known.named and name == f"v{known.torch}"), ("", ""))


def _system(name: str, raw: schema.SystemSettings) -> OperatingSystem:
    return OperatingSystem(id=name, **msgspec.structs.asdict(raw))


def _channel(name: str, raw: schema.ChannelSettings) -> Channel:
    soak, keep_for = _duration(raw.soak or "0 h"), _duration(raw.keep_for) if raw.keep_for else None
    return Channel(name=name, source=raw.source, soak=soak, max_age=_duration(raw.max_age), tags=raw.tags, keep=raw.keep, keep_for=keep_for)


def _duration(text: str) -> dt.timedelta:
    """Return what ``24 h`` or ``7 d`` means."""
    number, _, unit = text.partition(" ")
    return int(number) * {"h": dt.timedelta(hours=1), "d": dt.timedelta(days=1)}[unit]


def _cells(row: schema.Row, systems: Mapping[str, OperatingSystem]) -> tuple[Cell, ...]:
    companions = validation.companions(row)
    return tuple(
        Cell(
            torch=row.torch,
            cuda=row.serves or row.cuda,
            wheels=row.cuda,
            os=systems[name],
            companions=companions,
            is_default_os=name == row.os[0],
            named=row.default and name == row.os[0],
            platforms=row.platforms,
        )
        for name in row.os
    )
