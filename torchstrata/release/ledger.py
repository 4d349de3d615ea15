"""The ledger: every move of every channel, one JSON line each, oldest first. Pure; other modules keep it.

Each line carries the SHA-256 of the line before it, without its line end, so that no line can be changed, removed or
slipped in unseen. What tags must point to, and what a channel holds, follows from the lines alone.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Final, Literal, Self

import msgspec

from torchstrata import decoding
from torchstrata.errors import LedgerError
from torchstrata.store.digest import Digest
from torchstrata.text import printable

FILE: Final = "ledger.jsonl"
ALL: Final = "*"
"""The cell of an entry that is about the whole channel."""

Action = Literal["publish", "promote", "rollback", "check"]
"""``publish``: new images; ``promote``: of another channel; ``rollback``: of before; ``check``: nothing moved."""

LIMIT: Final = 64_000_000
"""Bytes of a ledger that is read; a line has about 2,000."""

LINE: Final = 1_000_000
"""Characters of a line."""

WHY: Final = 4_000
"""Characters of a reason; a longer one is cut."""

Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")]
"""What may be a tag, as registries take them."""

Time = Annotated[str, msgspec.Meta(pattern=r"\A20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
"""RFC 3339, UTC, to the second."""

CHANGED: Final = "find out who has changed it; the registry's copy, which is signed, tells what it was: inv release.log --from-registry"


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger.

    :param sequence: from 1.
    :param time: when it was written.
    :param cell: full id, or :data:`ALL`.
    :param images: digest by image.
    :param tags: old digest, ``None`` if there was none, and new digest, by tag that moved.
    :param inputs: digests of what new images were made from, by which a nightly run knows that nothing has changed.
    :param run: address of the run that did it, if a machine did.
    :param previous: SHA-256 of the line before, in hex; empty for the first.
    """

    sequence: int
    time: Time
    action: Action
    channel: Word
    cell: Annotated[str, msgspec.Meta(pattern=r"\A(?:\*|[A-Za-z0-9._-]{1,128})\Z")]
    images: dict[Word, Digest]
    tags: dict[Word, tuple[Digest | None, Digest]]
    inputs: dict[str, str]
    who: str
    run: str
    why: str
    previous: str

    @property
    def moment(self) -> dt.datetime:
        """Its time."""
        return dt.datetime.fromisoformat(self.time)


@dataclass(frozen=True, kw_only=True, slots=True)
class Author:
    """Who moves something: a person, or a machine's run with its address."""

    name: str
    email: str
    run: str = ""

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>" if self.email else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """The images of one cell in one channel, and the tags that shall name them: what an entry is made from.

    :param images: digest by image.
    :param tags: image by tag.
    """

    action: Action
    channel: str
    cell: str
    images: Mapping[str, str]
    tags: Mapping[str, str]
    why: str
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class State:
    """What the entries add up to.

    :param tags: digest by tag.
    :param current: the last entry about the images that a channel holds of a cell, by channel and cell.
    :param arrived: when they came there; an entry that names them again does not count.
    :param seen: when somebody last looked after a channel: the time of its last entry.
    :param withdrawn: the sets of images that were rolled back, by channel and cell.
    """

    tags: Mapping[str, str]
    current: Mapping[tuple[str, str], LedgerEntry]
    arrived: Mapping[tuple[str, str], dt.datetime]
    seen: Mapping[str, dt.datetime]
    withdrawn: Mapping[tuple[str, str], tuple[Mapping[str, str], ...]]

    def images(self, channel: str, cell: str) -> Mapping[str, str]:
        """Return the digests of a cell's images in a channel; nothing if it has none."""
        entry = self.current.get((channel, cell))
        return entry.images if entry else {}

    def is_withdrawn(self, channel: str, cell: str, images: Mapping[str, str]) -> bool:
        """Return whether these images were rolled back there, and not brought back since."""
        return dict(images) in map(dict, self.withdrawn.get((channel, cell), ()))


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The lines, checked.

    :param lines: without their line ends.
    """

    lines: tuple[str, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return the ledger in ``content``.

        :raises LedgerError: a line cannot be understood, or is not what the next one says; or there are too many.
        """
        if len(content) > LIMIT:
            raise LedgerError(f"{FILE} has {len(content)} bytes, more than {LIMIT}", fix=CHANGED)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise LedgerError(f"{FILE} is no UTF-8 at byte {error.start}", fix=CHANGED) from error
        ledger = cls(lines=tuple(text.split("\n")[:-1]))
        if not text.endswith("\n") and text:
            raise LedgerError(f"{FILE} is cut off in line {len(ledger.lines) + 1}", fix=CHANGED)
        ledger._check()
        return ledger

    def _check(self) -> None:
        previous, tags = "", dict[str, str]()
        for number, (line, entry) in enumerate(zip(self.lines, self.entries, strict=True), 1):
            if entry.sequence != number:
                raise LedgerError(f"{FILE} line {number} is entry {entry.sequence}: lines were removed or added", fix=CHANGED)
            if entry.previous != previous:
                raise LedgerError(f"{FILE} line {number - 1} is not what line {number} says it was: it has been changed", fix=CHANGED)
            _check_tags(entry, tags)
            tags |= {tag: new for tag, (_, new) in entry.tags.items()}
            previous = fingerprint(line)

    @functools.cached_property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """The entries, oldest first.

        :raises LedgerError: a line cannot be understood.
        """
        return tuple(_entry(number, line) for number, line in enumerate(self.lines, 1))

    @property
    def digests(self) -> frozenset[str]:
        """Digests of all images that a channel ever held."""
        return frozenset(chain.from_iterable(entry.images.values() for entry in self.entries))

    @property
    def content(self) -> bytes:
        """The ledger as a file."""
        return "".join(f"{line}\n" for line in self.lines).encode()

    @property
    def is_first_move(self) -> bool:
        """Whether all of it was written at once, so that there may be no copy of it yet; true of an empty one."""
        return len({(entry.time, entry.who, entry.run) for entry in self.entries}) <= 1

    def continues(self, other: Ledger) -> bool:
        """Return whether this ledger is ``other``, or ``other`` with lines added."""
        return self.lines[: len(other.lines)] == other.lines

    def since(self, other: Ledger) -> tuple[LedgerEntry, ...]:
        """Return the entries that were added to ``other``."""
        return self.entries[len(other.lines) :]

    def append(self, moves: Iterable[Move], author: Author, now: dt.datetime) -> Ledger:
        """Return the ledger with one more entry for each move."""
        ledger = self
        for move in moves:
            ledger = Ledger(lines=(*ledger.lines, ledger._line(move, author, now)))
        return ledger

    def _line(self, move: Move, author: Author, now: dt.datetime) -> str:
        tags = self.state.tags
        targets = {tag: move.images[image] for tag, image in move.tags.items()}
        entry = LedgerEntry(
            sequence=len(self.lines) + 1,
            time=now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            action=move.action,
            channel=move.channel,
            cell=move.cell,
            images=dict(move.images),
            tags={tag: (tags.get(tag), digest) for tag, digest in sorted(targets.items()) if tags.get(tag) != digest},
            inputs=dict(move.inputs),
            who=printable(str(author)),
            run=printable(author.run),
            why=printable(" ".join(move.why.split()), WHY),
            previous=fingerprint(self.lines[-1]) if self.lines else "",
        )
        return msgspec.json.encode(entry).decode()

    @functools.cached_property
    def state(self) -> State:
        """What the entries add up to."""
        tags: dict[str, str] = {}
        current: dict[tuple[str, str], LedgerEntry] = {}
        arrived: dict[tuple[str, str], dt.datetime] = {}
        seen: dict[str, dt.datetime] = {}
        withdrawn: dict[tuple[str, str], tuple[Mapping[str, str], ...]] = {}
        for entry in self.entries:
            place = (entry.channel, entry.cell)
            seen[entry.channel] = entry.moment
            if entry.action == "check":
                continue
            before = current.get(place)
            if entry.action == "rollback" and before:
                withdrawn[place] = (*withdrawn.get(place, ()), before.images)
            withdrawn[place] = tuple(images for images in withdrawn.get(place, ()) if images != entry.images)
            tags |= {tag: new for tag, (_, new) in entry.tags.items()}
            if before is None or before.images != entry.images:
                arrived[place] = entry.moment
            current[place] = entry
        return State(tags=tags, current=current, arrived=arrived, seen=seen, withdrawn=withdrawn)

    def history(self, channel: str, cell: str) -> tuple[LedgerEntry, ...]:
        """Return the entries that gave ``channel`` images of ``cell``, oldest first."""
        return tuple(entry for entry in self.entries if (entry.channel, entry.cell) == (channel, cell) and entry.action != "check")


def fingerprint(line: str) -> str:
    """Return the SHA-256 of a line, in hex, as ``sha256sum`` gives it for the line without its end."""
    return hashlib.sha256(line.encode()).hexdigest()


def _entry(number: int, line: str) -> LedgerEntry:
    """Return what a line says; there is one line for each entry, so that nobody reads it in another way."""
    try:
        entry = decoding.decode(line[: LINE + 1], LedgerEntry)
        is_ours = entry.moment.tzinfo and msgspec.json.encode(entry).decode() == line and _is_printable(entry)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LedgerError(f"{FILE} line {number} is no entry: {printable(str(error))}", fix=CHANGED) from error
    if not is_ours:
        raise LedgerError(f"{FILE} line {number} is not as this program writes entries", fix=CHANGED)
    return entry


def _is_printable(entry: LedgerEntry) -> bool:
    """Return whether what people wrote obeys no terminal."""
    return "".join((entry.who, entry.run, entry.why, *entry.inputs, *entry.inputs.values())).isprintable()


def _check_tags(entry: LedgerEntry, tags: Mapping[str, str]) -> None:
    """Refuse tags that did not point to what an entry says, or that it moves to images that are not its own."""
    for tag, (old, new) in entry.tags.items():
        if old != tags.get(tag) or new not in entry.images.values():
            raise LedgerError(f"{FILE} line {entry.sequence} moves {tag} from or to what it cannot: it has been changed", fix=CHANGED)
