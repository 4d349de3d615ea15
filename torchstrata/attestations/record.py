"""The record of an image: what it was made from and what is in it, as one JSON document that travels with the image.

A pure function of the image and its parts: no clock, no machine, so that the same inputs give the same bytes. SBOM and
provenance are views of it (:mod:`torchstrata.attestations.sbom`, :mod:`torchstrata.attestations.provenance`), and two images are compared by their records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

import torchstrata
from torchstrata import decoding
from torchstrata.attestations import licences
from torchstrata.building.assembly import Composed
from torchstrata.building.plan import Item, OsPart
from torchstrata.errors import UntrustedError
from torchstrata.image.compose import Image, canonical, sha256
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain import Toolchain
from torchstrata.locks.lockfile import Pin
from torchstrata.matrix.matrix import Cell, OperatingSystem
from torchstrata.store import inventory
from torchstrata.store.dpkg_status import OsPackage
from torchstrata.store.inventory import Inventory, PythonPackage
from torchstrata.store.layer import PLATFORM, Layer
from torchstrata.store.part import Part

SCHEMA: Final = 1
MEDIA_TYPE: Final = "application/vnd.torchstrata.record.v1+json"


class SourceRepository(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the inputs of the image are kept.

    :param repository: its URL, if git knows one.
    """

    revision: str
    repository: str = ""


class Deb(msgspec.Struct, frozen=True, kw_only=True):
    """A Debian package that a toolchain was made from."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str


class Tools(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is no package of the OS nor of Python: what the lock of a toolchain pins.

    :param package: the compiler's, where it comes as one; the field is older than ``libraries``.
    """

    name: str
    package: Deb | None = None
    libraries: tuple[Deb, ...] = ()
    wheels: tuple[Pin, ...]

    @property
    def packages(self) -> tuple[Deb, ...]:
        """All Debian packages, the compiler's first."""
        return (*((self.package,) if self.package else ()), *self.libraries)


class Inputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the image was made from.

    :param lock: digest of the wheels' lock, in hex; the label ``torchstrata.lock`` has it too.
    :param lock_seen: no wheel that was uploaded later is in the lock.
    :param os_lock: digest of the OS lock up to the flavour, in hex.
    :param os_image: registry reference with digest, or ``mmdebstrap`` with the suite and the identity of the call.
    :param drift: OS packages that are not as locked.
    """

    lock: str
    lock_seen: str
    os_lock: str
    os_lock_date: str
    os_image: str
    codec: str
    toolchain: Tools | None = None
    drift: tuple[str, ...] = ()


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system, such as ``debian13``, ``debian``, ``13`` and ``trixie``, and the minor version of its Python."""

    id: str
    distribution: str
    release: str
    suite: str
    python: str


class Torch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """torch and what it needs of a host; versions as in the compatibility facts, CPU images have no CUDA.

    :param asked_cuda: the CUDA of the cell's name, whose hosts the image serves.
    """

    version: str
    wheels: str
    git: str
    cuda: str | None = None
    asked_cuda: str | None = None
    cudnn: str | None = None
    nccl: str | None = None
    nvcc: str | None = None
    driver_floor: str | None = None
    architectures: tuple[str, ...] = ()


class RecordedLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A layer, bottom to top; ``part`` is the identity of what it was made as, and the facts layer has none."""

    title: str
    origin: str
    digest: str
    diff_id: str
    media_type: str
    size: int
    unpacked: int
    part: str = ""


UNSHOWN: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves cursors, ends lines or turns letters around; other odd characters may be part of the name of a licence."""

Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+!~:%-]*\Z", max_length=300)]
"""Names and versions of packages: they become lines that pip and apt read, where white space would begin something else."""


class LockedWheel(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package as locked, with its licence as an SPDX expression; an empty one says nothing."""

    name: Word
    version: Word
    filename: Word
    sha256: Word
    size: int
    licence: str


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An OS package as dpkg has it in the image."""

    name: Word
    version: Word
    architecture: Word
    source: str
    source_version: str
    licence: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one image.

    :param user: numeric ``uid:gid`` that containers start as; it tells the named variant from the flavour.
    :param digest: of the manifest.
    :param config: digest of the config.
    :param size: compressed bytes of all layers.
    :param licences: the words that ``LicenseRef-`` names stand for.
    """

    schema: int
    tool: str
    name: str
    cell: str
    flavour: str
    user: str
    platform: str
    os: System
    created: str
    digest: str
    config: str
    size: int
    unpacked: int
    source: SourceRepository
    inputs: Inputs
    torch: Torch
    layers: tuple[RecordedLayer, ...]
    wheels: tuple[LockedWheel, ...]
    packages: tuple[Package, ...]
    licences: dict[str, str]

    def encode(self) -> bytes:
        """Return it in its one form."""
        return canonical(msgspec.to_builtins(self))


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


def decode(data: bytes) -> Record:
    """Return the record that ``data`` is.

    :raises UntrustedError: it is none of a schema that is known.
    """
    try:
        found = decoding.decode(data, Record)
    except msgspec.DecodeError as error:
        raise UntrustedError(f"this is no record: {error}", fix="read it with the version of this program that wrote it") from error
    if not all(map(_is_shown, _texts(msgspec.to_builtins(found)))):
        raise UntrustedError("this is no record: it has characters that cannot be shown", fix="find out who has attached it, and remove it")
    if found.schema != SCHEMA:
        raise UntrustedError(f"this is a record of schema {found.schema}, not {SCHEMA}", fix="read it with the version of this program that wrote it")
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in what JSON may hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _is_shown(text: str) -> bool:
    return UNSHOWN.search(text) is None


def of(made: Made) -> Record:
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
        platform=PLATFORM,
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
    owned = [(item, layer) for item in items for layer in parts[item.identity].layers]
    for item, layer in owned:
        yield _layer(layer, item.origin, item.identity)
    for layer in image.layers[len(owned) :]:
        yield _layer(layer, "facts", "")


def _layer(layer: Layer, origin: str, part: str) -> RecordedLayer:
    return RecordedLayer(
        title=layer.title,
        origin=origin,
        digest=layer.digest,
        diff_id=layer.diff_id,
        media_type=layer.media_type,
        size=layer.size,
        unpacked=layer.unpacked,
        part=part,
    )


def _wheels(made: Made, words: dict[str, str]) -> Iterator[LockedWheel]:
    known: dict[str, PythonPackage] = {package.name: package for one in _held(made, Stratum) for package in one.python}
    for pin in made.composed.plan.lock.pins:
        licence = licences.of_python(known[pin.name]) if pin.name in known else licences.Licence()
        words |= licence.words
        yield LockedWheel(name=pin.name, version=pin.version, filename=pin.filename, sha256=pin.sha256, size=pin.size, licence=licence.expression)


def _packages(made: Made, words: dict[str, str]) -> Iterator[Package]:
    held = inventory.merged(_held(made, OsPart))
    for package in held.os:
        licence = licences.of_debian(inventory.copyright_of(package, held))
        words |= licence.words
        yield _package(package, licence.expression)


def _package(package: OsPackage, licence: str) -> Package:
    return Package(
        name=package.name,
        version=package.version,
        architecture=package.architecture,
        source=package.source,
        source_version=package.source_version,
        licence=licence,
    )


def _held(made: Made, kind: type) -> Iterator[Inventory]:
    """Yield the inventories of the image's parts of one kind, bottom to top."""
    for item in made.composed.plan.items:
        if isinstance(item.source, kind) and item.identity in made.inventories:
            yield made.inventories[item.identity]
