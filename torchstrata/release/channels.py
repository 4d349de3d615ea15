"""The tags of images: those that never move, and those that a channel moves. Pure: words in, words out.

``2.8.0-cu121-debian13-devel-20261124.1`` never moves: torch's patch version, the cell, the image, and the push,
which is a day and a number. What a channel's tag leaves out is the default: the row's OS, the torch's row, the newest
torch, and instead of a flavour the all-in-one image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from torchstrata.errors import MatrixError
from torchstrata.matrix.matrix import Cell, Channel, Matrix
from torchstrata.registry import dated_tag
from torchstrata.registry.dated_tag import PushNumber


def images(matrix: Matrix, cell: Cell) -> tuple[str, ...]:
    """Return the images of a cell: its flavours and, in the default row of a torch, the all-in-one."""
    return (*matrix.flavours, *([cell.all_in_one] if cell.named else []))


def pushed(matrix: Matrix, cell: Cell, tags: Iterable[str], until: PushNumber | None = None) -> Mapping[str, str]:
    """Return the last dated tag by image, of this torch version; an image that did not change has kept an older one.

    :param until: leave out what was pushed after that.
    """
    every_tag = tuple(tags)
    last: dict[str, str] = {}
    for image in images(matrix, cell):
        if tag := dated_tag.last(dated_tag.stem(cell, image), every_tag, until):
            last[image] = str(tag)
    return last


def moving(matrix: Matrix, channel: Channel, cell: Cell) -> Mapping[str, str]:
    """Return the image by tag, for all tags that ``channel`` gives to the images of ``cell``."""
    newest = max((other for other in matrix.cells if other.named), key=lambda other: other.release)
    templates = [template for template in channel.tags if _means(template, cell, is_newest=cell == newest)]
    return dict(chain.from_iterable(_expand(template, matrix, cell) for template in templates))


def _means(template: str, cell: Cell, *, is_newest: bool) -> bool:
    """Return whether what ``template`` leaves out is the default, and so what ``cell`` is."""
    if "{torch}" not in template:
        return is_newest
    if "{cuda}" not in template:
        return cell.named
    return "{os}" in template or cell.is_default_os


def _expand(template: str, matrix: Matrix, cell: Cell) -> Iterator[tuple[str, str]]:
    for image in matrix.flavours if "{flavour}" in template else (cell.all_in_one,):
        yield template.format(torch=cell.torch, cuda=cell.cuda, os=cell.os.id, flavour=image), image


def entry(matrix: Matrix) -> Channel:
    """Return the channel that takes new images.

    :raises MatrixError: there are no channels.
    """
    for channel in matrix.channels.values():
        if channel.source is None:
            return channel
    raise MatrixError("matrix.yaml has no channels", fix="add channels:, as in docs/releasing.md")
