"""What a catalogue is about, as frozen values: images with what is known of them, the ledger, and the time."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from torchstrata.attestations.examination import Finding
from torchstrata.attestations.record import Record
from torchstrata.containers.description import Endpoint
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.registry.dated_tag import DatedTag, PushNumber
from torchstrata.release.ledger import Ledger
from torchstrata.verification.evidence import Evidence

CELL: Final = re.compile(r"(?P<torch>[0-9]{1,3}\.[0-9]{1,3})-(?P<cuda>cu[0-9]{3}|cpu)-(?P<os>[a-z][a-z0-9.]{1,40})")
FLAVOUR: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")

DRIVER: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}")

Verdict = Literal["verified", "quick", "failed", "unknown"]
"""Passed all tests; passed those of a quick verification; failed; nobody has attached a result."""

UNPUSHED: Final = PushNumber(day="", number=0)
"""Of an image that no dated tag names: older than all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachedDocument:
    """A document that is attached to an image.

    :param digest: of the artifact, by which it is pulled.
    :param file: the name that it gets.
    """

    kind: str
    digest: str
    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownLayer:
    """A layer, bottom to top in its image; ``title`` is empty where nobody has said what it is."""

    digest: str
    size: int
    title: str = ""
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """An image as a catalogue shows it.

    :param digest: of the manifest; of the config, where an engine knows no other.
    :param tags: all that name it.
    :param labels: of its config.
    :param platform: such as ``linux/amd64``.
    :param size: compressed bytes; those that the engine tells, where no record is at hand.
    :param endpoints: its services.
    :param is_signed: there is a signature; whether it holds is what ``findings`` say.
    :param findings: what a check of all that is signed has found; empty if nobody has checked.
    :param problems: what could not be read of it, one line each.
    :param indexes: digests of what lists it for its platform.
    """

    digest: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    platform: str
    size: int
    endpoints: tuple[Endpoint, ...] = ()
    user: str = ""
    layers: tuple[ShownLayer, ...] = ()
    record: Record | None = None
    evidence: Evidence | None = None
    attached: tuple[AttachedDocument, ...] = ()
    is_signed: bool = False
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()
    indexes: frozenset[str] = frozenset()

    @property
    def moved(self) -> frozenset[str]:
        """Its digests in channels and their ledger: its own, or, in a row of several platforms, that of an index."""
        return self.indexes | {self.digest}

    @property
    def cell(self) -> str:
        """Its full id, such as ``2.8-cu121-debian13``."""
        return self.labels.get("torchstrata.cell", "")

    @property
    def flavour(self) -> str:
        """Its flavour; that of the named image (``v2.8``) is the flavour whose layers it has."""
        return self.labels.get("torchstrata.flavour", "")

    @property
    def is_root(self) -> bool:
        """Whether containers of it start as root, as those of ``v2.8`` do."""
        return self.user.partition(":")[0] in {"0", "root"}

    @property
    def image(self) -> str:
        """What tells it from the others of its cell: the flavour, or ``v2.8``."""
        return f"v{self.torch}" if self.is_root else self.flavour

    @functools.cached_property
    def _parts(self) -> Mapping[str, str]:
        match = CELL.fullmatch(self.cell)
        return match.groupdict() if match else {}

    @property
    def is_ours(self) -> bool:
        """Whether its labels say which cell and flavour it is."""
        return bool(self._parts and FLAVOUR.fullmatch(self.flavour))

    @property
    def torch(self) -> str:
        """Torch's minor version."""
        return self._parts.get("torch", "")

    @property
    def cuda(self) -> str:
        """The CUDA of the cell's name, such as ``cu121``."""
        return self._parts.get("cuda", "")

    @property
    def os(self) -> str:
        """Such as ``debian13``."""
        return self._parts.get("os", "")

    @property
    def short(self) -> str:
        """Torch and CUDA: ``2.8-cu121``."""
        return f"{self.torch}-{self.cuda}"

    @property
    def release(self) -> tuple[int, ...]:
        """Torch's minor version as numbers, to compare."""
        return tuple(map(int, self.torch.split("."))) if self.torch else ()

    @property
    def version(self) -> str:
        """Torch's patch version."""
        return self.labels.get("torchstrata.torch", "")

    @property
    def wheels_cuda(self) -> str:
        """The CUDA of torch's wheels, such as ``12.8``; empty for CPU."""
        return self.labels.get("torchstrata.cuda", "")

    @property
    def driver_floor(self) -> str:
        """The oldest driver that runs it; empty where none is needed, or what stands there is no version."""
        floor = self.labels.get("torchstrata.driver.floor", "")
        return floor if DRIVER.fullmatch(floor) else ""

    @property
    def architectures(self) -> tuple[str, ...]:
        """GPU generations with machine code in torch, such as ``8.0``."""
        return tuple(f"{name[3:-1]}.{name[-1]}" for name in self.labels.get("torchstrata.architectures", "").split() if re.fullmatch(r"sm_[0-9]{2,3}", name))

    @functools.cached_property
    def push(self) -> PushNumber:
        """The first push that gave it a dated tag."""
        return min((dated.push for tag in self.tags if (dated := DatedTag.parse(tag))), default=UNPUSHED)

    @property
    def day(self) -> str:
        """The day of that push, ``YYYY-MM-DD``; else of its OS lock, or of its wheels' lock; empty if nothing says."""
        if self.push != UNPUSHED:
            return f"{self.push.day[:4]}-{self.push.day[4:6]}-{self.push.day[6:8]}"
        return self.record.inputs.os_lock_date[:10] if self.record else self.labels.get("org.opencontainers.image.created", "")[:10]

    @property
    def verdict(self) -> Verdict:
        """What the result of its tests says."""
        if self.evidence is None:
            return "unknown"
        if self.evidence.passed:
            return "verified"
        return "quick" if self.evidence.holds else "failed"

    @property
    def tag(self) -> str:
        """The tag to show: the shortest of those that move, else the newest one; empty if none names it."""
        moving = sorted((tag for tag in self.tags if DatedTag.parse(tag) is None), key=lambda tag: (tag.startswith("nightly"), tag == "latest", len(tag), tag))
        return next(iter([*moving, *sorted(self.tags, reverse=True)]), "")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All that the site shows.

    :param place: ``HOST/REPOSITORY`` of the images; empty for those of an engine.
    :param source: the registry or engine in words.
    :param who: whose signatures were checked; empty if none were.
    :param images: newest torch first; the newest of a cell's flavour before older ones.
    :param unread: tags or images that could not be read, with the reason.
    :param made: when all this was looked at, UTC.
    :param measurements: content of the files of measurements, by name.
    """

    matrix: Matrix
    place: str
    source: str
    images: tuple[Exhibit, ...]
    made: dt.datetime
    who: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    unread: Mapping[str, str] = field(default_factory=dict)
    measurements: Mapping[str, bytes] = field(default_factory=dict)

    @functools.cached_property
    def cells(self) -> Mapping[str, Cell]:
        """The cells of the matrix by id."""
        return {cell.id: cell for cell in self.matrix.cells}

    @functools.cached_property
    def current(self) -> tuple[Exhibit, ...]:
        """The newest image of each cell, platform and flavour: what people should take."""
        return tuple(releases[0] for releases in self.series.values())

    @functools.cached_property
    def holders(self) -> Mapping[str, tuple[Exhibit, ...]]:
        """The images that have a layer, by its digest."""
        holders: dict[str, list[Exhibit]] = {}
        for image in self.images:
            for layer in dict.fromkeys(layer.digest for layer in image.layers):
                holders.setdefault(layer, []).append(image)
        return {digest: tuple(images) for digest, images in holders.items()}

    def releases(self, image: Exhibit) -> tuple[Exhibit, ...]:
        """Return all releases of the same cell, platform and flavour, newest first."""
        return self.series[image.cell, image.platform, image.image]

    @functools.cached_property
    def series(self) -> Mapping[tuple[str, str, str], tuple[Exhibit, ...]]:
        """All releases by cell, platform and flavour, newest first."""
        series: dict[tuple[str, str, str], list[Exhibit]] = {}
        for image in self.images:
            series.setdefault((image.cell, image.platform, image.image), []).append(image)
        return {key: tuple(images) for key, images in series.items()}


def ordered(images: list[Exhibit], matrix: Matrix, held: frozenset[str]) -> tuple[Exhibit, ...]:
    """Return images in a catalogue's order: by torch, cell, flavour as in the matrix, those to take first, the newest.

    :param held: digests of what people should take: of the last channel now, or of the names that a build has given.
    """
    cells = {cell.id: number for number, cell in enumerate(matrix.cells)}
    flavours = {name: number for number, name in enumerate(matrix.flavours)}

    def place(image: Exhibit) -> tuple[object, ...]:
        newest = tuple(-part for part in image.release)
        return newest, cells.get(image.cell, len(cells)), image.cell, image.platform, image.is_root, flavours.get(image.flavour, 99), image.flavour

    by_age = sorted(images, key=lambda image: (not image.moved.isdisjoint(held), image.push, image.digest), reverse=True)
    return tuple(sorted(by_age, key=place))
