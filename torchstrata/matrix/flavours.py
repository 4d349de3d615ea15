"""Flavours: every ``images/*/flavour.yaml``, as frozen values that form a tree.

A flavour contains its parent, whose image is a prefix of its own, except the all-in-one's. Siblings are independent.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from torchstrata import decoding, platforms
from torchstrata.errors import FlavourError, MatrixError
from torchstrata.matrix import plain_yaml, schema, shape, validation
from torchstrata.text import printable

FOLDER: Final = "images"
FILE: Final = "flavour.yaml"

ROOT_FLAVOUR: Final = "base"
"""The one without a parent: it brings the OS, Python and torch."""

SHARED: Final = "apt"
"""The folder of images that is no flavour: what all of them install packages with."""

HIDDEN: Final = ".new-"
"""Begins the name of a folder until all of a new flavour is in it."""

RESERVED: Final = frozenset({SHARED, "os", "below", "gpu", "host", "cases"})
"""What contexts, sections of locks and lists of required tests are called beside flavours."""

SHAPES: Final[Mapping[str, type[schema.Raw]]] = {
    "$": schema.FlavourFile,
    "$.services": schema.ServiceSettings,
    "$.services.health": schema.HealthSettings,
}


class Service(schema.ServiceSettings, frozen=True, kw_only=True):
    """A service of a flavour, as the file has it.

    :param flavour: that brings it.
    """

    name: str
    flavour: str

    @property
    def variable(self) -> str:
        """The variable that names another port, such as ``JUPYTER_PORT``."""
        return self.port_variable or usual_variable(self.name)


class Flavour(schema.FlavourFile, frozen=True, kw_only=True):
    """A flavour, as its file has it."""

    name: str

    @property
    def own_services(self) -> tuple[Service, ...]:
        """What it runs beside what its parents do."""
        return tuple(Service(name=name, flavour=self.name, **msgspec.structs.asdict(service)) for name, service in self.services.items())

    def budget(self, weighed: str) -> int | None:
        """Return the compressed bytes that its image of a cell may have; ``None`` if nobody has measured it.

        :param weighed: the cell's id on its default OS, with the architecture where that is not the default one.
        """
        return _bytes(self.sizes[weighed]) if weighed in self.sizes else None


def usual_variable(service: str) -> str:
    """Return the variable that names the port of a service, where it names no other: ``JUPYTER_PORT``."""
    return f"{service.upper().replace('-', '_')}_PORT"


def path_of(name: str) -> str:
    """Return where the file of a flavour lies in a checkout."""
    return f"{FOLDER}/{name}/{FILE}"


def read(root: Path) -> dict[str, Flavour]:
    """Return every flavour of a checkout, parents first, siblings by name.

    :raises FlavourError: one of them is not what it must be, or they form no tree.
    """
    unordered = {folder.name: _read(root, folder.name) for folder in _folders(root / FOLDER)}
    parents = {name: flavour.parent for name, flavour in unordered.items()}
    try:
        lines = {name: validation.ancestry(name, parents, "flavour", "parent", "parent") for name in parents}
    except MatrixError as error:
        raise FlavourError(error.what, fix=error.fix) from error
    ordered = {name: unordered[name] for name in sorted(lines, key=lambda name: lines[name][::-1])}
    for name, flavour in ordered.items():
        _check_root(flavour)
        _check_services(itertools.chain.from_iterable(ordered[link].own_services for link in reversed(lines[name])))
    if not ordered:
        raise FlavourError(f"there is no flavour: {FOLDER}/ has no */{FILE}", fix="run from a checkout of the repository")
    return ordered


def check_name(name: str, systems: Iterable[str] = ()) -> None:
    """Refuse a name that cannot be a flavour's.

    :param systems: names of OSes, which tags have in the same place.
    :raises FlavourError: it has other characters than a tag and a build target allow, or means something else.
    """
    try:
        decoding.convert(name, schema.FlavourName)
    except msgspec.ValidationError as error:
        what = f"{name!r} cannot be a flavour's name"
        raise FlavourError(what, fix="use at most 32 lower-case letters, digits and single hyphens, a letter first") from error
    if name in RESERVED:
        raise FlavourError(f"{name!r} cannot be a flavour's name: it means something else here", fix=f"use none of {', '.join(sorted(RESERVED))}")
    if re.match(r"(cpu|cu[0-9]{3})(-|$)", name):
        raise FlavourError(f"{name!r} cannot be a flavour's name: tags have a CUDA there", fix="let it begin with another word")
    if any(f"{name}-".startswith(f"{system}-") for system in systems):
        raise FlavourError(f"{name!r} cannot be a flavour's name: tags have an OS there", fix="let it begin with another word")
    if name.rpartition("-")[2] in map(platforms.architecture, platforms.MACHINES):
        raise FlavourError(f"{name!r} cannot be a flavour's name: tags have a platform there", fix="let it end with another word")


def _folders(images: Path) -> Iterator[Path]:
    """Yield the folders of flavours; refuse one without its file, which somebody has forgotten."""
    for folder in sorted(images.iterdir()) if images.is_dir() else ():
        if not folder.is_dir() or folder.name == SHARED or folder.name.startswith(HIDDEN) or not any(folder.iterdir()):
            continue
        if not (folder / FILE).exists():
            fix = f"write {path_of(folder.name)} (docs/adding.md), or remove the folder: git clean -nd -- {FOLDER}/{folder.name}"
            raise FlavourError(f"{FOLDER}/{folder.name} has no {FILE}", fix=fix)
        yield folder


def _read(root: Path, name: str) -> Flavour:
    where = path_of(name)
    check_name(name)
    try:
        raw = shape.convert(plain_yaml.read(root / where, where), schema.FlavourFile, where, SHAPES, schema.FLAVOUR_SCHEMA)
    except MatrixError as error:
        raise FlavourError(error.what, fix=error.fix) from error
    flavour = Flavour(name=name, **{field: getattr(raw, field) for field in raw.__struct_fields__})
    for service, settings in raw.services.items():
        _check_service(f"{where}: service {service}", service, settings)
    return flavour


def _check_root(flavour: Flavour) -> None:
    """Refuse a second root, which would have no OS and no torch."""
    if flavour.parent is None and flavour.name != ROOT_FLAVOUR:
        raise FlavourError(f"flavour {flavour.name} has no parent", fix=f"write parent: {ROOT_FLAVOUR}, or another flavour, into {path_of(flavour.name)}")


def _check_service(what: str, name: str, service: schema.ServiceSettings) -> None:
    """Refuse a service that a container could not run or watch."""
    try:
        decoding.convert(name, schema.ServiceName)
    except msgspec.ValidationError as error:
        raise FlavourError(
            f"{printable(what)} cannot be called that", fix="use at most 16 lower-case letters, digits and single hyphens, a letter first"
        ) from error
    if sum(map(bool, msgspec.structs.astuple(service.health))) != 1:
        raise FlavourError(f"{what} has not one way to tell its health", fix="write health: {http: /path}, {https: /path}, {banner: words}, or {tcp: true}")
    if service.command and not service.command[0].startswith("/"):
        raise FlavourError(f"{what} begins its command with {service.command[0]!r}", fix="write the whole path of the program, such as /opt/venv/bin/python")
    if not service.command and service.module is None:
        raise FlavourError(f"{what} has no command", fix="write command: [program, word, ...], or the module that makes it")


def _check_services(lineage: Iterable[Service]) -> None:
    """Refuse two services of one image that would take each other's place."""
    taken: dict[tuple[str, object], Service] = {}
    for service in lineage:
        for kind, value in (("name", service.name), ("port", service.port), ("port_variable", service.variable), ("module", service.module or service)):
            other = taken.setdefault((kind, value), service)
            if other is not service:
                raise FlavourError(
                    f"{path_of(service.flavour)}: service {service.name} has the {kind} {value}, which service {other.name} of {other.flavour} has",
                    fix=f"give it another {kind}",
                )


def _bytes(size: str) -> int:
    """Return what ``3.92 GB`` means."""
    number, _, unit = size.partition(" ")
    return round(float(number) * {"MB": 1e6, "GB": 1e9}[unit])
