"""Moves of images between channels: by digest, all of a cell or none, only verified ones, each move in the ledger.

The ledger is written first and tags follow it. So after a crash between the two the ledger says what was meant, and
:meth:`Releases.repair` does the rest.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from torchstrata.errors import AbsentError, LedgerError, ReleaseError, UntrustedError
from torchstrata.matrix.matrix import Cell, Channel, Matrix
from torchstrata.registry import pool
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.registry import Registry
from torchstrata.release import channels, ledger_copy
from torchstrata.release.cell_images import CellImages
from torchstrata.release.guard import Guard
from torchstrata.release.ledger import ALL, Action, Author, Ledger, Move
from torchstrata.release.ledger_branch import Branch, Snapshot, conflict
from torchstrata.release.ledger_memory import Memory, Seen
from torchstrata.release.proposals import Grounds, NotYetError, Origin, Proposal, Refusal


def utc() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The channels of one repository in a registry.

    :param now: the clock.
    :param memory: how far the ledger was seen before; ``None`` remembers nothing.
    """

    matrix: Matrix
    registry: Registry
    repository: str
    branch: Branch
    author: Author
    guard: Guard
    now: Callable[[], dt.datetime] = field(default=utc)
    memory: Memory | None = None

    @functools.cached_property
    def images(self) -> CellImages:
        """The images in the repository, whose tags are listed once."""
        return CellImages(matrix=self.matrix, registry=self.registry, repository=self.repository, guard=self.guard)

    def read(self) -> Snapshot:
        """Return the branch as it is, once it is sure that a trusted key has signed what it says.

        :raises LedgerError: somebody has rewritten or added to it, put it back, or deleted the copy.
        :raises UntrustedError: the copy is not signed by who it must be.
        """
        seen = self.memory.recall() if self.memory else None
        copy, snapshot = self._both()
        if copy is None and not snapshot.ledger.is_first_move:  # the first two moves may have come since there was no copy
            copy, snapshot = self._both()
        ledger_copy.check(self.registry, self.repository, snapshot.ledger, copy, self.guard)
        self._remember(snapshot.ledger, seen)
        return snapshot

    def _both(self) -> tuple[Ledger | None, Snapshot]:
        """Return copy and branch; the branch last, since it is written first: it is at least as long as the copy."""
        return ledger_copy.pull(self.registry, self.repository, self.guard), self.branch.read()

    def _remember(self, ledger: Ledger, seen: Seen | None) -> None:
        if self.memory:
            self.memory.check(ledger, seen)
            self.memory.keep(ledger)

    # What would move

    def origin(self, channel: Channel, asked: str | None) -> Origin:
        """Return where images of ``channel`` come from: the channel or push asked for, else what the matrix says.

        :raises MatrixError: there is no such channel.
        """
        if asked and (push := PushNumber.parse(asked)):
            return Origin(channel=None, push=push)
        name = asked or channel.source
        return Origin(channel=self.matrix.channel(name) if name else None)

    def promotion(
        self, cells: Sequence[Cell], channel: Channel, origin: Origin, *, no_soak: str = "", grounds: Mapping[str, Grounds] | None = None
    ) -> Proposal:
        """Return what moves if the images of ``cells`` are taken into ``channel``; cells without any are left out.

        :param no_soak: a reason not to wait, and to take what was rolled back before.
        :param grounds: for the ledger, by cell.
        :raises ReleaseError: none of the cells has images where they come from.
        """
        base = self.read()
        moves, refusals, settled = list[Move](), list[Refusal](), list[str]()
        for cell in self._held(base.ledger, cells, origin):
            try:
                move = self._promote(base.ledger, cell, channel, origin, no_soak, (grounds or {}).get(cell.id, Grounds(why=no_soak or f"from {origin}")))
                moves += [move] if move else []
                settled += [] if move else [cell.id]
            except (ReleaseError, UntrustedError) as error:
                refusals.append(Refusal.of(cell, error))
        return Proposal(base=base, moves=tuple(moves), refusals=tuple(refusals), settled=tuple(settled))

    def rollback(self, cells: Sequence[Cell], channel: Channel, why: str, to: int | None = None) -> Proposal:
        """Return what moves if ``channel`` goes back to what it held of ``cells`` before, or at entry ``to``.

        :raises ReleaseError: it holds none of the cells.
        """
        base = self.read()
        moves, refusals = list[Move](), list[Refusal]()
        for cell in self._held(base.ledger, cells, Origin(channel=channel)):
            try:
                images = self._before(base.ledger, cell, channel, to)
                self.images.check(cell, images)
                moves.append(self._move("rollback", channel, cell, images, why))
            except (ReleaseError, UntrustedError) as error:
                refusals.append(Refusal.of(cell, error))
        return Proposal(base=base, moves=tuple(moves), refusals=tuple(refusals))

    def _promote(  # noqa: PLR0913, PLR0917
        self, ledger: Ledger, cell: Cell, channel: Channel, origin: Origin, no_soak: str, grounds: Grounds
    ) -> Move | None:
        """Return the move of one cell; ``None`` if the channel has these images already, made from the same."""
        images = self._images(ledger, cell, origin)
        move = self._move("promote" if origin.channel else "publish", channel, cell, images, grounds.why)
        move = replace(move, inputs=grounds.inputs)
        if _is_settled(ledger, move):
            return None
        if not no_soak:
            self._check_soak(ledger, cell, channel, origin)
            if ledger.state.is_withdrawn(channel.name, cell.id, images):
                raise NotYetError(f"these images were rolled back in {channel.name} before", fix="build others, or give a reason: --no-soak REASON")
        self.images.check(cell, images)
        return move

    def _held(self, ledger: Ledger, cells: Sequence[Cell], origin: Origin) -> list[Cell]:
        """Return the cells of which there are images where they come from."""
        if origin.channel:
            held = [cell for cell in cells if ledger.state.images(origin.channel.name, cell.id)]
        else:
            held = [cell for cell in cells if self.images.pushed_tags(cell, origin.push)]
        if not held:
            names = ", ".join(cell.names[0] for cell in cells)
            raise ReleaseError(f"{origin}: there are no images of {names[:100]}", fix=f"push a cell first: inv push {cells[0].names[0]}")
        return held

    def _images(self, ledger: Ledger, cell: Cell, origin: Origin) -> Mapping[str, str]:
        """Return the digest of every image of a cell where it comes from."""
        images = ledger.state.images(origin.channel.name, cell.id) if origin.channel else self.images.pushed(cell, origin.push)
        lacking = [image for image in channels.images(self.matrix, cell) if image not in images]
        if lacking:
            what = "nothing of it is there" if not images else f"{', '.join(lacking)} is not there, and all move together"
            raise ReleaseError(f"{origin}: {what}", fix=f"push the cell first: inv push {cell.names[0]}")
        return images

    def _check_soak(self, ledger: Ledger, cell: Cell, channel: Channel, origin: Origin) -> None:
        if channel.source is None:
            return
        arrived = ledger.state.arrived.get((channel.source, cell.id)) if origin.channel and origin.channel.name == channel.source else None
        if arrived is None:
            raise ReleaseError(f"{channel.name} takes what has soaked in {channel.source}, not {origin}", fix="give a reason: --no-soak REASON")
        ready = arrived + channel.soak
        if self.now() < ready:
            raise NotYetError(f"it soaks in {channel.source} until {ready:%Y-%m-%d %H:%M} UTC", fix="wait, or give a reason: --no-soak REASON")

    def _move(self, action: Action, channel: Channel, cell: Cell, images: Mapping[str, str], why: str) -> Move:
        tags = {tag: image for tag, image in channels.moving(self.matrix, channel, cell).items() if image in images}
        return Move(action=action, channel=channel.name, cell=cell.id, images=dict(images), tags=tags, why=why)

    def _before(self, ledger: Ledger, cell: Cell, channel: Channel, to: int | None) -> Mapping[str, str]:
        """Return the images that the channel held before, or when entry ``to`` was written."""
        history, state = ledger.history(channel.name, cell.id), ledger.state
        now = state.images(channel.name, cell.id)
        if to is not None:
            fitting = [entry.images for entry in history if entry.sequence <= to]
        else:
            others = [entry.images for entry in history if entry.images != now]
            fitting = [images for images in others if not state.is_withdrawn(channel.name, cell.id, images)]
        if not fitting or fitting[-1] == now:
            when = "before" if to is None else f"at entry {to}"
            raise ReleaseError(f"{channel.name} held no other images of it {when}", fix="see inv release.log, and name an entry with --to")
        return fitting[-1]

    # Moving it

    def carry_out(self, proposal: Proposal) -> Ledger:
        """Write the moves into the ledger, then move the tags, then the registry's copy of the ledger.

        :raises LedgerConflictError: somebody else was faster; nothing has moved.
        :raises LedgerError: the ledger cannot be written (nothing has moved), or its history was rewritten.
        """
        base = proposal.base
        self._compare(base)
        ledger = base.ledger.append(proposal.moves, self.author, self.now())
        ledger_copy.prepare(self.registry, self.repository, ledger, self.guard)
        self.branch.push(base, ledger, _subject(proposal.moves), self.author)
        return self.settle(chain.from_iterable(entry.tags for entry in ledger.since(base.ledger)))

    def note(self, channel: Channel, why: str) -> Ledger:
        """Write into the ledger that somebody has looked after a channel, and nothing had to move."""
        move = Move(action="check", channel=channel.name, cell=ALL, images={}, tags={}, why=why)
        return self.carry_out(Proposal(base=self.read(), moves=(move,)))

    def settle(self, tags: Iterable[str] | None = None) -> Ledger:
        """Move tags (all if ``None``) to what the ledger says, and the registry's copy to the ledger, until both agree.

        Registries have no compare-and-swap: a late writer could undo a newer move, so each looks at the ledger again.

        :raises ReleaseError: an image is gone; all other tags have moved.
        """
        chosen = None if tags is None else frozenset(tags)
        snapshot = self.read()
        while True:
            gone = self._point(snapshot.ledger, chosen)
            ledger_copy.push(self.registry, self.repository, snapshot.ledger, self.guard)
            after = self.read()
            if after.commit == snapshot.commit:
                break
            snapshot = after
        if gone:
            raise ReleaseError(f"{gone[0]}: the ledger's image is gone from the registry ({len(gone)} tags)", fix="push it again, or roll the channel back")
        return snapshot.ledger

    def repair(self, entries: int | None = None) -> tuple[Ledger, tuple[str, ...]]:
        """Move all tags to what the ledger says; return the ledger, and the tags that were elsewhere.

        :param entries: sign the branch as it is, if it has so many: somebody knows that it is right.
        :raises LedgerError: the branch is not what the registry's copy says, or has another number of entries.
        :raises UntrustedError: an image that a tag would move to is not verified and signed; nothing has moved.
        """
        copy = ledger_copy.pull(self.registry, self.repository, self.guard)
        ledger = self.read().ledger if entries is None else self._confirmed(copy, entries)
        astray = tuple(tag for tag, digest in ledger.state.tags.items() if self.images.digest(tag) != digest)
        self._check_held({*(ledger.state.tags[tag] for tag in astray), *_news(ledger, copy)})
        if entries is not None:
            ledger_copy.push(self.registry, self.repository, ledger, self.guard)
        return self.settle(), astray

    def _confirmed(self, copy: Ledger | None, entries: int) -> Ledger:
        """Return the branch's ledger, signed or not; it must continue the copy and what was seen."""
        seen = self.memory.recall() if self.memory else None
        ledger = self.branch.read().ledger
        ledger_copy.compare(ledger, copy)
        if len(ledger.lines) != entries:
            raise LedgerError(f"the branch has {len(ledger.lines)} entries, not {entries}", fix="see what it says, and since when: inv release.log")
        self._remember(ledger, seen)
        return ledger

    def _check_held(self, digests: Iterable[str]) -> None:
        """Refuse images that are not verified and signed; those that are gone are told of when all else has moved.

        :raises UntrustedError: one is not.
        """
        self.images.check_verified([digest for digest in digests if self.images.digest(digest)])

    def copied(self) -> Ledger:
        """Return the registry's copy of the ledger.

        :raises LedgerError: there is none, or it ends before what was seen.
        """
        seen = self.memory.recall() if self.memory else None
        copy = ledger_copy.pull(self.registry, self.repository, self.guard)
        if copy is None:
            raise LedgerError(f"{self.registry.host}/{self.repository} has no copy of the ledger", fix="inv release.repair makes it, or says why not")
        if self.memory:
            self.memory.check(copy, seen)
        return copy

    def _compare(self, base: Snapshot) -> None:
        """Refuse a base that is not what the registry's copy says.

        :raises LedgerConflictError: since somebody has added to it.
        :raises LedgerError: since somebody has rewritten history.
        """
        copy = ledger_copy.pull(self.registry, self.repository, self.guard)
        if copy is None and base.ledger.lines:  # a first move that was cut off: the next one must find its copy
            ledger_copy.push(self.registry, self.repository, base.ledger, self.guard)
        if copy and not base.ledger.continues(copy):
            ledger_copy.compare(self.branch.read().ledger, copy)
            raise conflict(self.branch)

    def _point(self, ledger: Ledger, chosen: frozenset[str] | None) -> list[str]:
        """Move tags to what the ledger says; return those whose image is gone."""
        todo = [(tag, digest) for tag, digest in ledger.state.tags.items() if chosen is None or tag in chosen]
        with pool.threads("tag") as threads:
            done = list(threads.map(lambda pair: self._tag(*pair), todo))
        return [tag for (tag, _), moved in zip(todo, done, strict=True) if not moved]

    def _tag(self, tag: str, digest: str) -> bool:
        try:
            manifest = self.registry.manifest(self.repository, digest)
        except AbsentError:
            return False
        self.registry.put_manifest(self.repository, tag, manifest.body, manifest.media_type)
        return True


def _news(ledger: Ledger, copy: Ledger | None) -> set[str]:
    """Return the images that entries after the copy moved to, and that their channels still hold."""
    added = {entry.sequence for entry in ledger.since(copy or Ledger())}
    held = (entry.images.values() for entry in ledger.state.current.values() if entry.sequence in added)
    return set(chain.from_iterable(held))


def _is_settled(ledger: Ledger, move: Move) -> bool:
    """Return whether the channel holds these images already, under these tags, and knows what they were made from."""
    state = ledger.state
    entry = state.current.get((move.channel, move.cell))
    if move.inputs and (entry is None or entry.inputs != move.inputs):
        return False
    return state.images(move.channel, move.cell) == move.images and all(state.tags.get(tag) == move.images[image] for tag, image in move.tags.items())


def _subject(moves: Sequence[Move]) -> str:
    """Return what the commit is called: ``promote 2.8-cu121-debian13 to stable``."""
    kinds = dict.fromkeys((move.action, move.channel) for move in moves)
    cells = ", ".join(dict.fromkeys(move.cell for move in moves))
    return f"{', '.join(f'{action} in {channel}' for action, channel in kinds)}: {cells}"
