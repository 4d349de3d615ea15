"""What is wrong with channels: they are too old, lack images, have tags elsewhere, or images that are gone.

Pure, except that the registry is asked what its tags point to.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from torchstrata.matrix.matrix import Cell, Channel, Matrix
from torchstrata.registry import pool
from torchstrata.release import channels
from torchstrata.release.ledger import State

Point = Callable[[str], str | None]
"""Returns the digest that a tag or digest names in the registry, ``None`` if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that a person should look at, in one line."""

    channel: str
    what: str

    def __str__(self) -> str:
        return f"{self.channel}: {self.what}"


Lacking = Callable[[Cell, str], tuple[str, ...]]
"""Returns the platforms of a cell of which there is no image under a digest."""


def problems(matrix: Matrix, state: State, point: Point, lacking: Lacking, now: dt.datetime) -> tuple[Problem, ...]:
    """Return all that is wrong."""
    of_channels = chain.from_iterable(_about(matrix, channel, state, now) for channel in matrix.channels.values())
    return (*of_channels, *_lost(state, point), *_halved(matrix, state, point, lacking))


def _about(matrix: Matrix, channel: Channel, state: State, now: dt.datetime) -> Iterator[Problem]:
    if channel.source is None:
        yield from _age(channel, state, now)
    else:
        yield from _lag(channel, channel.source, state, now)
    for cell in matrix.cells:
        held = state.images(channel.name, cell.id)
        lacking = [image for image in channels.images(matrix, cell) if image not in held]
        if held and lacking:
            yield Problem(channel=channel.name, what=f"{cell.id} lacks {', '.join(lacking)}")


def _age(channel: Channel, state: State, now: dt.datetime) -> Iterator[Problem]:
    """Yield that nobody has looked after a channel for too long."""
    seen = state.seen.get(channel.name)
    if seen is None:
        yield Problem(channel=channel.name, what="there has never been anything in it")
    elif now - seen > channel.max_age:
        yield Problem(channel=channel.name, what=f"nobody has looked after it for {_hours(now - seen)}, more than {_hours(channel.max_age)}")


def _lag(channel: Channel, source: str, state: State, now: dt.datetime) -> Iterator[Problem]:
    """Yield the cells of which the channel has not taken what its source has had for too long."""
    for (name, cell), arrived in state.arrived.items():
        images = state.images(source, cell)
        if name != source or images == state.images(channel.name, cell) or state.is_withdrawn(channel.name, cell, images):
            continue
        if now - arrived > channel.max_age:
            yield Problem(channel=channel.name, what=f"{cell} lags behind {source} by {_hours(now - arrived)}, more than {_hours(channel.max_age)}")


def _lost(state: State, point: Point) -> Iterator[Problem]:
    """Yield the tags that are elsewhere, and the images that are gone."""
    owners = dict[str, str]()
    for entry in state.current.values():
        owners |= dict.fromkeys(entry.tags, entry.channel)
    tagged, present = pool.answers(point, state.tags), pool.answers(point, state.tags.values())
    for tag, digest in state.tags.items():
        channel = owners.get(tag, "ledger")
        if present[digest] is None:
            yield Problem(channel=channel, what=f"{tag}: its image {digest[:19]} is gone")
        elif tagged[tag] != digest:
            yield Problem(channel=channel, what=f"{tag} points to {(tagged[tag] or 'nothing')[:19]}, and the ledger says {digest[:19]}")


def _halved(matrix: Matrix, state: State, point: Point, lacking: Lacking) -> Iterator[Problem]:
    """Yield the images of rows of several platforms that are there, but not for all of them."""
    several = {cell.id: cell for cell in matrix.cells if len(cell.platforms) > 1}
    for (channel, cell), entry in state.current.items():
        for image, digest in entry.images.items() if cell in several else ():
            if point(digest) and (gone := lacking(several[cell], digest)):
                yield Problem(channel=channel, what=f"{cell} {image} has no image for {', '.join(gone)}")


def _hours(time: dt.timedelta) -> str:
    return f"{time.total_seconds() / 3600:.0f} h"
