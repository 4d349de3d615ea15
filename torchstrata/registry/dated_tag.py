"""Tags that never move: ``2.8.0-cu121-debian13-devel-20261124.1`` ends in the push's day and its number on that day."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from torchstrata.errors import TorchstrataError
from torchstrata.matrix.matrix import Cell

PUSH: Final = re.compile(r"([0-9]{8})\.([1-9][0-9]*)")

TAG: Final = re.compile(rf"([A-Za-z0-9_][A-Za-z0-9._-]*)-({PUSH.pattern})")

MARK: Final = "_"
"""What stands before the architecture in tags of one platform; names of flavours have none."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PushNumber:
    """When images were pushed; later pushes are greater.

    :param day: ``YYYYMMDD``, in UTC.
    :param number: of the push on that day, from 1.
    """

    day: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what ``20261124.1`` means, or ``None`` if it is no push number."""
        match = PUSH.fullmatch(text)
        return cls(day=match[1], number=int(match[2])) if match and _is_day(match[1]) else None

    @classmethod
    def of(cls, text: str, error: type[TorchstrataError]) -> Self:
        """Return what ``20261124.1`` means.

        :raises error: it is no push number.
        """
        push = cls.parse(text)
        if push is None:
            raise error(f"{text!r} is no build", fix="write it as in dated tags: 20261124.1")
        return push

    def __str__(self) -> str:
        return f"{self.day}.{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class DatedTag:
    """A tag that never moves.

    :param stem: what is before the date, such as ``2.8.0-cu121-debian13-devel``.
    """

    stem: str
    push: PushNumber

    @classmethod
    def parse(cls, tag: str) -> Self | None:
        """Return the parts of a tag, ``None`` if it is not dated."""
        match = TAG.fullmatch(tag)
        push = PushNumber.parse(match[2]) if match else None
        return cls(stem=match[1], push=push) if match and push else None

    def __str__(self) -> str:
        return f"{self.stem}-{self.push}"


def _is_day(text: str) -> bool:
    """Return whether eight digits are a day: whoever may push to a registry may call tags as they like."""
    try:
        return bool(dt.date.fromisoformat(text))
    except ValueError:
        return False


def stem(cell: Cell, image: str, platform: str | None = None) -> str:
    """Return what the dated tags of an image begin with.

    :param platform: of one image of an index: its tags end in ``_arm64``, as no flavour's name can. In a row of one
        platform there is no index, and the tag is the image's.
    """
    alone = platform is None or len(cell.platforms) == 1
    return f"{cell.version}-{cell.cuda}-{cell.os.id}-{image}" + ("" if alone else f"{MARK}{str(platform).rpartition('/')[2]}")


def is_of_platform(tag: str) -> bool:
    """Return whether a tag is the dated one of a single platform's image, which an index lists."""
    dated = DatedTag.parse(tag)
    return dated is not None and MARK in dated.stem


def is_dated(tag: str) -> bool:
    """Return whether a tag never moves."""
    return DatedTag.parse(tag) is not None


def pushes(start: str, tags: Iterable[str]) -> list[PushNumber]:
    """Return the pushes of which ``tags`` has one with this stem, oldest first."""
    dated = map(DatedTag.parse, tags)
    return sorted(tag.push for tag in dated if tag and tag.stem == start)


def last(start: str, tags: Iterable[str], until: PushNumber | None = None) -> DatedTag | None:
    """Return the newest of ``tags`` with this stem, ``None`` if there is none.

    :param until: leave out what was pushed after that.
    """
    fitting = [push for push in pushes(start, tags) if until is None or push <= until]
    return DatedTag(stem=start, push=fitting[-1]) if fitting else None


def following(earlier: Iterable[PushNumber], today: dt.date) -> PushNumber:
    """Return the next push: number 1 of a new day, else one more than the last.

    It is later than all others, also where a clock was ahead: what was pushed last is known by that alone.
    """
    pushes = tuple(earlier)
    day = max((f"{today:%Y%m%d}", *(push.day for push in pushes)))
    return PushNumber(day=day, number=max((push.number for push in pushes if push.day == day), default=0) + 1)
