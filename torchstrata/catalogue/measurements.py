"""Times of builds, pulls and starts, from what the programs in ``bench/`` have kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import msgspec

from torchstrata import decoding
from torchstrata.errors import CatalogueError
from torchstrata.text import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A measured time: the key of its title, seconds, how long the bar is, and what, when and where it was measured."""

    key: str
    seconds: float
    width: float
    about: str


class _ColdBuild(msgspec.Struct, frozen=True):
    cell: str
    composed_s: float
    plain_s: float
    date: str


class _Pulled(msgspec.Struct, frozen=True):
    pull_s: float


class _Pulls(msgspec.Struct, frozen=True):
    images: dict[str, _Pulled]


class _SecurityNight(msgspec.Struct, frozen=True):
    cell: str
    composed: _Pulls
    plain: _Pulls
    date: str
    machine: str


class _Start(msgspec.Struct, frozen=True):
    image: str
    seconds: dict[str, float]
    date: str
    machine: str


TIMES: Final[Mapping[str, tuple[str, ...]]] = {
    "cold_build.json": ("trends.build", "trends.build_plain"),
    "security_night.json": ("trends.pull", "trends.pull_all", "trends.pull_plain"),
    "start.json": ("trends.start_command", "trends.start_ssh", "trends.start_jupyter"),
}
"""Files of measurements, and keys of the titles of what they tell."""


def times(measurements: Mapping[str, bytes]) -> tuple[tuple[Bar, ...], ...]:
    """Return the bars of each file of measurements that is there, those of a file side by side.

    :raises msgspec.DecodeError: a file is not as its program writes it.
    """
    groups = [tuple(_measured(name, measurements[name])) for name in TIMES if name in measurements]
    return tuple(tuple(_bars(group)) for group in groups)


def _bars(group: Sequence[tuple[str, float, str]]) -> Iterator[Bar]:
    longest = max(seconds for _, seconds, _ in group) or 1
    for key, seconds, about in group:
        yield Bar(key=key, seconds=seconds, width=100 * seconds / longest, about=about)


def _measured(name: str, content: bytes) -> Iterator[tuple[str, float, str]]:
    """Yield key, seconds, and what was measured when."""
    if name == "cold_build.json":
        build = decoding.decode(content, _ColdBuild)
        yield from zip(TIMES[name], (build.composed_s, build.plain_s), [f"{build.cell}, {build.date}"] * 2, strict=True)
    elif name == "security_night.json":
        night = decoding.decode(content, _SecurityNight)
        pulls = (night.composed.images["base"], night.composed.images["all_in_one"], night.plain.images["base"])
        yield from zip(TIMES[name], (pulled.pull_s for pulled in pulls), [f"{night.cell}, {night.date}, {night.machine}"] * 3, strict=True)
    else:
        start = decoding.decode(content, _Start)
        seconds = (start.seconds["command"], start.seconds["ssh_banner"], start.seconds["jupyter_200"])
        yield from zip(TIMES[name], seconds, [f"{start.image}, {start.date}, {start.machine}"] * 3, strict=True)


def missing(measurements: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the keys of what nobody has measured."""
    return tuple(chain.from_iterable(keys for name, keys in TIMES.items() if name not in measurements))


def check(measurements: Mapping[str, bytes]) -> None:
    """Refuse files that are not as their programs write them.

    :raises CatalogueError: one is not.
    """
    for name, content in measurements.items():
        try:
            tuple(_measured(name, content))
        except (msgspec.MsgspecError, LookupError) as error:
            raise CatalogueError(f"bench/results/{name} is not as its program writes it: {printable(str(error))}", fix="measure again, or remove it") from error
