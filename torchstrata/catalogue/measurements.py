"""Times of builds, pulls and starts, from what the programs in ``bench/`` have kept."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

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


TIMES: Final[Mapping[str, Mapping[str, str]]] = {
    "cold_build.json": {"trends.build": "composed_s", "trends.build_plain": "plain_s"},
    "security_night.json": {
        "trends.pull": "composed.images.base.pull_s",
        "trends.pull_all": "composed.images.all_in_one.pull_s",
        "trends.pull_plain": "plain.images.base.pull_s",
    },
    "start.json": {
        "trends.start_command": "seconds.command",
        "trends.start_ssh": "seconds.ssh_banner",
        "trends.start_jupyter": "seconds.jupyter_200",
    },
}
"""Files of measurements: keys of the titles of what they tell, and where in the document it stands."""

ABOUT: Final[Mapping[str, tuple[str, ...]]] = {
    "cold_build.json": ("cell", "date"),
    "security_night.json": ("cell", "date", "machine"),
    "start.json": ("image", "date", "machine"),
}
"""What they say about it."""


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
    document = decoding.decode(content, dict[str, Any])
    about = ", ".join(str(document[word]) for word in ABOUT[name])
    for key, path in TIMES[name].items():
        yield key, decoding.convert(functools.reduce(operator.getitem, path.split("."), document), float), about


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
        except (msgspec.MsgspecError, LookupError, TypeError) as error:
            raise CatalogueError(f"bench/results/{name} is not as its program writes it: {printable(str(error))}", fix="measure again, or remove it") from error
