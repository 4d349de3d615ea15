"""Pictures of numbers as plain geometry, which templates draw as SVG: layers side by side, sizes over time."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from torchstrata.catalogue.exhibits import Catalogue, Exhibit, ShownLayer

WIDTH: Final = 1000.0
GAP: Final = 2.0
LEAST: Final = 3.0
"""Units of the narrowest layer: one that cannot be seen cannot be asked about."""

CHART: Final = (640.0, 220.0)
MARGINS: Final = (64.0, 16.0, 12.0, 30.0)
"""Left, right, top, bottom."""

PINS: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*) ([0-9][^, ]*)")

Kind = str
"""Of a layer: ``cuda``, ``torch``, ``wheels``, ``bytecode``, ``os`` or ``facts``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """A layer in the picture of all of them; places in units of which the picture has :data:`WIDTH`."""

    layer: ShownLayer
    kind: Kind
    left: float
    width: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line of a chart: its name, its points, and the words of each."""

    name: str
    points: tuple[tuple[float, float, str], ...]

    @property
    def path(self) -> str:
        """The points as SVG has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in self.points)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Sizes of images of a cell over time.

    :param ticks: height and bytes of the lines across.
    :param days: place and day of the marks below.
    """

    name: str
    curves: tuple[Curve, ...]
    ticks: tuple[tuple[float, int], ...]
    days: tuple[tuple[float, str], ...]
    low: int
    high: int
    count: int


def kind(layer: ShownLayer, cuda_titles: Iterable[str]) -> Kind:
    """Return what a layer holds, by its origin and its title."""
    if layer.origin in {"os", "facts"}:
        return layer.origin
    if any(layer.title.startswith(title) for title in (*cuda_titles, "CUDA", "cuda")):
        return "cuda"
    word = layer.title.partition(" ")[0]
    return {"torch": "torch", "triton": "torch", "bytecode": "bytecode"}.get(word, "wheels")


def strips(image: Exhibit, cuda_titles: Sequence[str]) -> tuple[Strip, ...]:
    """Return the layers side by side, the bottom one at the left, as wide as they are large, none too narrow."""
    room = WIDTH - GAP * max(len(image.layers) - 1, 0)
    whole = sum(layer.size for layer in image.layers) or 1
    raw = [max(room * layer.size / whole, LEAST) for layer in image.layers]
    scale, left, made = room / (sum(raw) or 1), 0.0, []
    for layer, width in zip(image.layers, raw, strict=True):
        made.append(Strip(layer=layer, kind=kind(layer, cuda_titles), left=left, width=width * scale))
        left += width * scale + GAP
    return tuple(made)


def wheels_of(layer: ShownLayer, sizes: Mapping[tuple[str, str], int]) -> tuple[tuple[str, str, int], ...]:
    """Return name, version and bytes of the wheels that a layer's title lists, the largest first.

    :param sizes: of all wheels of the image, by name and version.
    """
    named = [(name, version, sizes[name, version]) for name, version in PINS.findall(layer.title) if (name, version) in sizes]
    return tuple(sorted(named, key=lambda wheel: -wheel[2])) if layer.origin == "payload" else ()


def charts(catalogue: Catalogue) -> tuple[Chart, ...]:
    """Return a chart for each cell of which a flavour has had two releases at least."""
    by_cell: dict[tuple[str, str], dict[str, tuple[Exhibit, ...]]] = {}
    for (cell, platform, image), releases in catalogue.series.items():
        by_cell.setdefault((cell, platform), {})[image] = tuple(release for release in reversed(releases) if release.day)
    grown = {key: series for key, series in by_cell.items() if any(len(releases) > 1 for releases in series.values())}
    return tuple(_chart(cell, series) for (cell, _), series in grown.items())


def _chart(cell: str, series: Mapping[str, Sequence[Exhibit]]) -> Chart:
    shown = list(chain.from_iterable(series.values()))
    days = sorted({_ordinal(image.day) for image in shown})
    low, high = min(image.size for image in shown), max(image.size for image in shown)
    across, up = _scale(days[0], days[-1], MARGINS[0], CHART[0] - MARGINS[1]), _scale(low, high, CHART[1] - MARGINS[3], MARGINS[2])
    curves = [
        Curve(name=name, points=tuple((across(_ordinal(image.day)), up(image.size), image.day) for image in releases)) for name, releases in series.items()
    ]
    ends = (days[0], days[-1]) if len(days) > 1 else (days[0],)
    return Chart(
        name=cell,
        curves=tuple(curves),
        ticks=tuple((up(size), size) for size in dict.fromkeys((low, (low + high) // 2, high))),
        days=tuple((across(day), dt.date.fromordinal(day).isoformat()) for day in ends),
        low=low,
        high=high,
        count=max(len(releases) for releases in series.values()),
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return what leads from values to places."""
    return lambda value: start + (end - start) * (value - low) / ((high - low) or 1)


def _ordinal(day: str) -> int:
    """Return a day as a number; tags of nobody's calendar (``20261399``) are of the first day that there is."""
    try:
        return dt.date.fromisoformat(day).toordinal()
    except ValueError:
        return 1
