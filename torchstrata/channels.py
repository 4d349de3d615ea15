"""The tags of images: those that never move, and those that a channel moves. Pure: words in, words out.

``2.8.0-cu121-debian13-devel-20261124.1`` never moves: torch's patch version, the cell, the image, and the build, which is a
day and a number. What a channel's tag leaves out is the default: the row's OS, the torch's row, the newest torch, and instead
of a flavour the all-in-one image.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from torchstrata.errors import MatrixError
from torchstrata.matrix import Cell, Channel, Matrix

ALL_IN_ONE: Final = "all-in-one"
"""The image of a torch's default row that ``v<torch>`` names: the last flavour's layers, started as root, which it drops."""


@functools.total_ordering
@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """When images were pushed, in their immutable tags.

    :param day: ``YYYYMMDD``, in UTC.
    :param number: of the build on that day, from 1.
    """

    day: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what ``20261124.1`` means, or ``None`` if it is no build."""
        found = re.fullmatch(r"(\d{8})\.([1-9]\d*)", text)
        return cls(day=found[1], number=int(found[2])) if found else None

    def __lt__(self, other: Build) -> bool:
        return (self.day, self.number) < (other.day, other.number)

    def __str__(self) -> str:
        return f"{self.day}.{self.number}"


def images(matrix: Matrix, cell: Cell) -> tuple[str, ...]:
    """Return the images of a cell: its flavours and, in the default row of a torch, the all-in-one."""
    return (*matrix.flavours, *([ALL_IN_ONE] if cell.named else []))


def immutable(cell: Cell, image: str, build: Build) -> str:
    """Return the tag that names ``image`` of ``cell`` as it was built then, for ever."""
    return f"{_stem(cell, image)}{build}"


def builds(matrix: Matrix, cell: Cell, tags: Iterable[str]) -> Mapping[Build, Mapping[str, str]]:
    """Return tag by image of every build of ``cell``, of this torch version, that has all its images, the newest first."""
    found: dict[Build, dict[str, str]] = {}
    wanted = images(matrix, cell)
    stems = {image: _stem(cell, image) for image in wanted}
    for tag in tags:
        for image, stem in stems.items():
            if tag.startswith(stem) and (build := Build.parse(tag.removeprefix(stem))):
                found.setdefault(build, {})[image] = tag
    return {build: found[build] for build in sorted(found, reverse=True) if len(found[build]) == len(wanted)}


def following(cell: Cell, tags: Iterable[str], day: str) -> Build:
    """Return the build after all those of ``cell`` on ``day``, complete or not."""
    pattern = re.compile(rf"{re.escape(f'{cell.version}-{cell.cuda}-{cell.os.id}-')}.+-{day}\.([1-9]\d*)")
    taken = [int(found[1]) for tag in tags if (found := pattern.fullmatch(tag))]
    return Build(day=day, number=max(taken, default=0) + 1)


def _stem(cell: Cell, image: str) -> str:
    return f"{cell.version}-{cell.cuda}-{cell.os.id}-{image}-"


def moving(matrix: Matrix, channel: Channel, cell: Cell) -> Mapping[str, str]:
    """Return the image by tag, for all tags that ``channel`` gives to the images of ``cell``."""
    newest = max((each for each in matrix.cells if each.named), key=_release)
    templates = [template for template in channel.tags if _means(template, cell, is_newest=cell == newest)]
    return {tag: image for template in templates for tag, image in _expand(template, matrix, cell)}


def _means(template: str, cell: Cell, *, is_newest: bool) -> bool:
    """Return whether what ``template`` leaves out is the default, and so what ``cell`` is."""
    if "{torch}" not in template:
        return is_newest
    if "{cuda}" not in template:
        return cell.named
    return "{os}" in template or cell.is_default_os


def _expand(template: str, matrix: Matrix, cell: Cell) -> Iterator[tuple[str, str]]:
    for image in matrix.flavours if "{flavour}" in template else (ALL_IN_ONE,):
        yield template.format(torch=cell.torch, cuda=cell.cuda, os=cell.os.id, flavour=image), image


def _release(cell: Cell) -> tuple[int, ...]:
    return tuple(map(int, cell.torch.split(".")))


def entry(matrix: Matrix) -> Channel:
    """Return the channel that takes new images.

    :raises MatrixError: there are no channels.
    """
    for channel in matrix.channels.values():
        if channel.source is None:
            return channel
    raise MatrixError("matrix.yaml has no channels", fix="add channels:, as in docs/releasing.md")


def followers(matrix: Matrix, channel: Channel) -> tuple[Channel, ...]:
    """Return the channels whose images come from ``channel``."""
    return tuple(each for each in matrix.channels.values() if each.source == channel.name)
