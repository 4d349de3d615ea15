"""The matrix as grids: what there is of each cell, and why there is nothing where nothing can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal

from torchstrata.catalogue.exhibits import Catalogue, Exhibit, Verdict
from torchstrata.errors import MatrixError
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import Cell, Matrix, OperatingSystem

State = Literal["images", "unpublished", "offered", "open", "impossible"]
"""There are images; the matrix has the cell, but no image; the same of builds without OS; it could be; it cannot be."""

WORST: Final[Sequence[Verdict]] = ("failed", "unknown", "quick", "verified")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why something is not there: a key of the table of strings, and what its text names."""

    key: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Box:
    """What a grid has at one place.

    :param images: the newest of each flavour.
    :param reason: why there are none.
    """

    state: State
    name: str
    images: tuple[Exhibit, ...] = ()
    reason: Reason | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst that the images' tests say: a row is as good as its weakest image."""
        return min((image.verdict for image in self.images), key=WORST.index, default="unknown")

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest."""
        sizes = [image.size for image in self.images]
        return min(sizes, default=0), max(sizes, default=0)

    @property
    def day(self) -> str:
        """The day of the oldest."""
        return min((image.day for image in self.images if image.day), default="")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a grid."""

    name: str
    words: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of boxes."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def by_system(catalogue: Catalogue) -> Grid:
    """Return a line for each torch with a CUDA, and a column for each OS."""
    rows = {cell.short: cell for cell in reversed(catalogue.matrix.cells) if cell.is_default_os}
    systems = dict.fromkeys((*catalogue.matrix.systems, *sorted({image.os for image in catalogue.current})))
    shorts = dict.fromkeys((*(cell.short for cell in catalogue.matrix.cells), *(image.short for image in catalogue.current)))
    lines = [
        Line(name=short, words=_words(rows.get(short), short), boxes=tuple(_system_box(catalogue, short, rows.get(short), name) for name in systems))
        for short in shorts
    ]
    return Grid(columns=tuple(systems), lines=tuple(lines))


def _words(cell: Cell | None, short: str) -> str:
    if cell is None:
        return short
    return f"torch {cell.version}" + (f" · CUDA {cell.facts.cuda_version}" if cell.facts.cuda_version else " · CPU")


def _system_box(catalogue: Catalogue, short: str, row: Cell | None, system: str) -> Box:
    images = tuple(image for image in catalogue.current if image.short == short and image.os == system)
    name = f"{short}-{system}"
    if images:
        return Box(state="images", name=name, images=images)
    if any(cell.id == name for cell in catalogue.matrix.cells):
        return Box(state="unpublished", name=name, reason=Reason(key="why.unpublished"))
    if row is None or system not in catalogue.matrix.systems:
        return Box(state="open", name=name, reason=Reason(key="why.no_row"))
    reason = obstacle(row, catalogue.matrix.systems[system])
    return Box(state="impossible" if reason else "open", name=name, reason=reason or Reason(key="why.no_row"))


def obstacle(row: Cell, system: OperatingSystem) -> Reason | None:
    """Return why wheels cannot run on an OS, as :mod:`torchstrata.matrix.validation` says; ``None`` if they can."""
    release = compat.torch(row.torch)
    pythons = compat.build(row.torch, row.wheels).pythons or release.pythons
    if system.python not in pythons:
        return Reason(key="why.python", words={"os": system.id, "python": system.python, "torch": release.version, "pythons": ", ".join(pythons)})
    if not compat.at_least(system.glibc, release.glibc):
        return Reason(key="why.glibc", words={"os": system.id, "glibc": system.glibc, "torch": release.version, "needed": release.glibc})
    compiler = compat.nvcc(row.torch, row.wheels)
    try:
        compat.host_compiler(system.compilers, compiler)
    except MatrixError:
        assert compiler is not None
        return Reason(
            key="why.compiler", words={"cuda": compiler.cuda, "gcc": str(compiler.max_gcc), "os": system.id, "compilers": ", ".join(system.compilers)}
        )
    return None


def by_cuda(matrix: Matrix) -> Grid:
    """Return a line for each torch since the oldest of the matrix, and a column for each CUDA that one of them has."""
    oldest = min((cell.release for cell in matrix.cells), default=())
    releases = {name: release for name, release in compat.facts().torch.items() if tuple(map(int, name.split("."))) >= oldest}
    variants = {*chain.from_iterable(release.builds for release in releases.values()), *(cell.cuda for cell in matrix.cells)}
    columns = tuple(sorted(variants, key=lambda name: (name == compat.CPU, name)))
    names = sorted(releases, key=lambda name: tuple(map(int, name.split("."))), reverse=True)
    return Grid(
        columns=columns,
        lines=tuple(
            Line(name=name, words=f"torch {releases[name].version}", boxes=tuple(_cuda_box(matrix, name, variant) for variant in columns)) for name in names
        ),
    )


def _cuda_box(matrix: Matrix, torch: str, variant: str) -> Box:
    name = f"{torch}-{variant}"
    cell = next((cell for cell in matrix.cells if cell.short == name), None)
    if cell:
        serving = cell.wheels != cell.cuda
        return Box(state="offered", name=name, reason=Reason(key="why.serves", words={"wheels": cell.wheels, "cuda": cell.cuda}) if serving else None)
    release = compat.torch(torch)
    if variant in release.builds:
        return Box(state="open", name=name, reason=Reason(key="why.no_row"))
    if variant in release.unknown_builds:
        return Box(state="open", name=name, reason=Reason(key="why.unknown_build", words={"torch": torch, "variant": variant}))
    return Box(state="impossible", name=name, reason=_never(torch, variant))


def _never(torch: str, variant: str) -> Reason:
    last = [*_with(variant)][-1:]
    key = "why.never" if last else "why.nowhere"
    return Reason(key=key, words={"torch": torch, "variant": variant} | ({"last": last[0]} if last else {}))


def _with(variant: str) -> Iterator[str]:
    yield from (release.version for release in compat.facts().torch.values() if variant in release.builds)
