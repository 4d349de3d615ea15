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
from typing import Self

from torchstrata.errors import MatrixError
from torchstrata.matrix.matrix import Cell, Channel, Matrix


@functools.total_ordering
@dataclass(frozen=True, kw_only=True, slots=True)
class PushNumber:
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

    def __lt__(self, other: PushNumber) -> bool:
        return (self.day, self.number) < (other.day, other.number)

    def __str__(self) -> str:
        return f"{self.day}.{self.number}"


def images(matrix: Matrix, cell: Cell) -> tuple[str, ...]:
    """Return the images of a cell: its flavours and, in the default row of a torch, the all-in-one."""
    return (*matrix.flavours, *([all_in_one(cell)] if cell.named else []))


def all_in_one(cell: Cell) -> str:
    """Return the name of the image that has the last flavour's layers, and starts as root, which it drops: ``v2.8``."""
    return f"v{cell.torch}"


def immutable(cell: Cell, image: str, build: PushNumber) -> str:
    """Return the tag that names ``image`` of ``cell`` as it was pushed then, for ever."""
    return f"{_stem(cell, image)}{build}"


def pushed(matrix: Matrix, cell: Cell, tags: Iterable[str], until: PushNumber | None = None) -> Mapping[str, str]:
    """Return the last immutable tag by image, of this torch version; an image that did not change has kept an older one.

    :param until: leave out what was pushed after that build.
    """
    known = tuple(tags)
    found: dict[str, str] = {}
    for image in images(matrix, cell):
        stem = _stem(cell, image)
        builds = [build for tag in known if tag.startswith(stem) and (build := PushNumber.parse(tag.removeprefix(stem)))]
        if fitting := [build for build in builds if until is None or build <= until]:
            found[image] = immutable(cell, image, max(fitting))
    return found


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
    for image in matrix.flavours if "{flavour}" in template else (all_in_one(cell),):
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
