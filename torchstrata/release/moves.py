"""Moves of images between channels: by digest, all images of a cell together or none, nothing unverified, and nothing unsaid.

The ledger is written first and tags follow it, so that after a crash between the two the ledger says what was meant, and
:meth:`Releases.repair` does the rest.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

import msgspec

from torchstrata import decoding
from torchstrata.errors import AbsentError, ImageIndexError, LedgerError, ReleaseError, UntrustedError
from torchstrata.image import image_index, oci, runtime
from torchstrata.locks import os_locks
from torchstrata.matrix.matrix import Cell, Channel, Matrix
from torchstrata.registry import joining
from torchstrata.registry.client import Manifest
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.registry import Registry
from torchstrata.release import channels, ledger_copy
from torchstrata.release.guard import Guard
from torchstrata.release.ledger import ALL, Action, Author, Ledger, Move
from torchstrata.release.ledger_branch import Branch, Snapshot, conflict
from torchstrata.release.ledger_memory import Memory, Seen
from torchstrata.store.digest import Digest
from torchstrata.text import printable

AT_A_TIME: Final = 4


def utc() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


class _Descriptor(msgspec.Struct, frozen=True):
    digest: Digest


class _Manifest(msgspec.Struct, frozen=True):
    """As much of an image's manifest as is read."""

    config: _Descriptor


class _EngineConfig(msgspec.Struct, frozen=True):
    """As much of what an image tells engines as is read."""

    labels: dict[str, str] = msgspec.field(name="Labels")
    user: str = msgspec.field(name="User", default="")


class _ConfigFile(msgspec.Struct, frozen=True):
    config: _EngineConfig


class _Patience(ReleaseError):
    """Images may not move yet, or not without a person's word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why the images of a cell may not move.

    :param is_patience: since they have not soaked, or were rolled back: time or a person decides.
    :param kind: the error that a call ends with which is refused for this.
    """

    cell: str
    why: str
    fix: str
    is_patience: bool = False
    kind: type[ReleaseError | UntrustedError] = ReleaseError

    @classmethod
    def of(cls, cell: Cell, error: ReleaseError | UntrustedError) -> Self:
        """Return the refusal of a cell for an error."""
        kind = type(error) if isinstance(error, UntrustedError) else ReleaseError
        return cls(cell=cell.id, why=error.what, fix=error.fix, is_patience=isinstance(error, _Patience), kind=kind)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What would move.

    :param base: the ledger that it was made for; if it has moved meanwhile, nothing of this will.
    :param settled: cells that need not move.
    """

    base: Snapshot
    moves: tuple[Move, ...]
    refusals: tuple[Refusal, ...] = ()
    settled: tuple[str, ...] = ()

    def steps(self) -> Iterator[tuple[Move, str, str | None, str]]:
        """Yield move, tag, old digest (``None`` if there was none) and new digest, for every tag that moves."""
        known = self.base.ledger.state.tags
        for move in self.moves:
            for tag, image in move.tags.items():
                if known.get(tag) != move.images[image]:
                    yield move, tag, known.get(tag), move.images[image]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where images come from.

    :param channel: a channel; or ``None`` for what was pushed.
    :param build: the last push that counts.
    """

    channel: Channel | None
    build: PushNumber | None = None

    def __str__(self) -> str:
        return self.channel.name if self.channel else str(self.build or "what was pushed last")


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """Why images move, and digests of what they were made from, as the ledger tells it."""

    why: str
    inputs: Mapping[str, str] = field(default_factory=dict)


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
        """Return copy and branch; the branch last, since it is written first: it is at least as long as what was seen before."""
        return ledger_copy.pull(self.registry, self.repository, self.guard), self.branch.read()

    def _remember(self, ledger: Ledger, seen: Seen | None) -> None:
        if self.memory:
            self.memory.check(ledger, seen)
            self.memory.keep(ledger)

    # What would move

    def origin(self, channel: Channel, asked: str | None) -> Origin:
        """Return where images of ``channel`` come from: what was asked for, a channel or a build, else what the matrix says.

        :raises MatrixError: there is no such channel.
        """
        if asked and (build := PushNumber.parse(asked)):
            return Origin(channel=None, build=build)
        name = asked or channel.source
        return Origin(channel=self.matrix.channel(name) if name else None)

    def promotion(
        self, cells: Sequence[Cell], channel: Channel, origin: Origin, *, no_soak: str = "", grounds: Mapping[str, Grounds] | None = None
    ) -> Proposal:
        """Return what would move if the images of ``cells`` were taken into ``channel``; cells without any are left out.

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
        """Return what would move if ``channel`` went back to what it held of ``cells`` before, or when entry ``to`` was written.

        :raises ReleaseError: it holds none of the cells.
        """
        base = self.read()
        moves, refusals = list[Move](), list[Refusal]()
        for cell in self._held(base.ledger, cells, Origin(channel=channel)):
            try:
                images = self._before(base.ledger, cell, channel, to)
                self._check(cell, images)
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
                raise _Patience(f"these images were rolled back in {channel.name} before", fix="build others, or give a reason: --no-soak REASON")
        self._check(cell, images)
        return move

    def _held(self, ledger: Ledger, cells: Sequence[Cell], origin: Origin) -> list[Cell]:
        """Return the cells of which there are images where they come from."""
        if origin.channel:
            held = [cell for cell in cells if ledger.state.images(origin.channel.name, cell.id)]
        else:
            held = [cell for cell in cells if channels.pushed(self.matrix, cell, self._tags, origin.build)]
        if not held:
            names = ", ".join(cell.names[0] for cell in cells)
            raise ReleaseError(f"{origin}: there are no images of {names[:100]}", fix=f"push a cell first: inv push {cells[0].names[0]}")
        return held

    def _images(self, ledger: Ledger, cell: Cell, origin: Origin) -> Mapping[str, str]:
        """Return the digest of every image of a cell where it comes from."""
        images = ledger.state.images(origin.channel.name, cell.id) if origin.channel else self.pushed(cell, origin.build)
        lacking = [image for image in channels.images(self.matrix, cell) if image not in images]
        if lacking:
            what = "nothing of it is there" if not images else f"{', '.join(lacking)} is not there, and all move together"
            raise ReleaseError(f"{origin}: {what}", fix=f"push the cell first: inv push {cell.names[0]}")
        return images

    def pushed(self, cell: Cell, until: PushNumber | None = None) -> Mapping[str, str]:
        """Return the digest of each image of a cell as it was pushed last, or up to a build."""
        tags = channels.pushed(self.matrix, cell, self._tags, until)
        found = {image: self.registry.find(self.repository, tag) for image, tag in tags.items()}
        return {image: manifest.digest for image, manifest in found.items() if manifest}

    def pushed_for(self, cell: Cell) -> Mapping[str, Mapping[str, str]]:
        """Return the digest of each image of a cell as it was pushed last, by platform and image; of an index those of its images.

        :raises ImageIndexError: what was pushed last has not exactly the platforms of the cell.
        """
        if len(cell.platforms) == 1:
            return {cell.platforms[0]: self.pushed(cell)}
        found: dict[str, dict[str, str]] = {platform: {} for platform in cell.platforms}
        for image, digest in self.pushed(cell).items():
            for platform, child in self._children(cell, image, digest).items():
                found[platform][image] = child.digest
        return found

    @functools.cached_property
    def _tags(self) -> tuple[str, ...]:
        return self.registry.tags(self.repository)

    def _check_soak(self, ledger: Ledger, cell: Cell, channel: Channel, origin: Origin) -> None:
        if channel.source is None:
            return
        arrived = ledger.state.arrived.get((channel.source, cell.id)) if origin.channel and origin.channel.name == channel.source else None
        if arrived is None:
            raise ReleaseError(f"{channel.name} takes what has soaked in {channel.source}, not {origin}", fix="give a reason: --no-soak REASON")
        ready = arrived + channel.soak
        if self.now() < ready:
            raise _Patience(f"it soaks in {channel.source} until {ready:%Y-%m-%d %H:%M} UTC", fix="wait, or give a reason: --no-soak REASON")

    def _check(self, cell: Cell, images: Mapping[str, str]) -> None:
        """Refuse images that are gone, not as locked, or not verified and signed.

        :raises ReleaseError: one is gone, or says that it has drifted from its lock.
        :raises UntrustedError: one is not as it must be.
        """
        for image, digest in images.items():
            self._check_identity(cell, image, digest)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(functools.partial(self.guard.verified, self.registry, self.repository), images.values()))

    def _check_identity(self, cell: Cell, image: str, digest: str) -> None:
        """Refuse an image, and each one of an index, that is gone, or says itself that it is another one, or that it is not as locked.

        :raises ImageIndexError: the index has not exactly the platforms of the cell.
        """
        if len(cell.platforms) == 1:
            self._check_image(cell, image, digest)
            return
        for platform, child in self._children(cell, image, digest).items():
            self._check_image(cell, image, child.digest, platform)

    def _children(self, cell: Cell, image: str, digest: str) -> Mapping[str, Manifest]:
        """Return the images of an index by platform.

        :raises ReleaseError: the index is gone.
        :raises ImageIndexError: it is none, or has not exactly the platforms of the cell.
        """
        name = f"{image}, {digest[:19]},"
        try:
            found = self.registry.manifest(self.repository, digest)
        except AbsentError as error:
            raise ReleaseError(f"{image} is gone: the registry has no {digest}", fix=f"push it again: inv push {cell.names[0]}") from error
        if found.media_type != oci.INDEX:
            raise ImageIndexError(f"{name} is one image alone, and {cell.id} has {', '.join(cell.platforms)}", fix=f"join them: inv join {cell.names[0]}")
        image_index.require(image_index.read(found.body, name).digests, cell.platforms, name)
        return joining.images(self.registry, self.repository, found, name)

    def _check_image(self, cell: Cell, image: str, digest: str, platform: str = "") -> None:
        """Refuse an image that is gone, or that says itself that it is another one, or that it is not as locked.

        :param platform: of an index's image, for messages.
        """
        name = f"{image} for {platform}" if platform else image
        try:
            manifest = decoding.decode(self.registry.manifest(self.repository, digest).body, _Manifest)
            config = decoding.decode(self.registry.content(self.repository, manifest.config.digest), _ConfigFile).config
        except AbsentError as error:
            raise ReleaseError(f"{name} is gone: the registry has no {digest}", fix=f"push it again: inv push {cell.names[0]}") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UntrustedError(f"{name}, {digest}, is no image: {printable(str(error))}", fix=f"push it again: inv push {cell.names[0]}") from error
        flavour = image if image in self.matrix.flavours else self.matrix.all_in_one
        is_so = {"cell": config.labels.get("torchstrata.cell"), "flavour": config.labels.get("torchstrata.flavour"), "user": config.user}
        expected = {"cell": cell.id, "flavour": flavour, "user": runtime.DEV if image in self.matrix.flavours else runtime.ROOT}
        if is_so != expected:
            raise ReleaseError(f"{name} is {digest}, which is another image: {printable(str(is_so))}", fix=f"push the cell again: inv push {cell.names[0]}")
        if drift := config.labels.get(runtime.DRIFT):
            raise ReleaseError(f"the OS packages of {name} are not as locked: {os_locks.in_short(os_locks.from_words(drift))}", fix=runtime.REBUILD)

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
        return self.settle(tag for entry in ledger.since(base.ledger) for tag in entry.tags)

    def note(self, channel: Channel, why: str) -> Ledger:
        """Write into the ledger that somebody has looked after a channel, and nothing had to move."""
        move = Move(action="check", channel=channel.name, cell=ALL, images={}, tags={}, why=why)
        return self.carry_out(Proposal(base=self.read(), moves=(move,)))

    def settle(self, tags: Iterable[str] | None = None) -> Ledger:
        """Move tags, all of them if ``None``, to what the ledger says, and the registry's copy to the ledger, until both agree.

        Registries have no compare-and-swap: who comes late could undo a newer move, so everybody looks at the ledger again afterwards.

        :raises ReleaseError: an image is gone; all other tags have moved.
        """
        wanted = None if tags is None else frozenset(tags)
        snapshot = self.read()
        while True:
            gone = self._point(snapshot.ledger, wanted)
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
        astray = tuple(tag for tag, digest in ledger.state.tags.items() if self.digest(tag) != digest)
        self._check_held({*(ledger.state.tags[tag] for tag in astray), *_news(ledger, copy)})
        if entries is not None:
            ledger_copy.push(self.registry, self.repository, ledger, self.guard)
        return self.settle(), astray

    def _confirmed(self, copy: Ledger | None, entries: int) -> Ledger:
        """Return the branch's ledger, which nobody need have signed, but which goes on from the copy and from what was seen."""
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
        there = [digest for digest in digests if self.digest(digest)]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(functools.partial(self.guard.verified, self.registry, self.repository), there))

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

    def digest(self, tag: str) -> str | None:
        """Return what a tag or digest names in the registry, ``None`` if there is none."""
        found = self.registry.find(self.repository, tag)
        return found.digest if found else None

    def lacking(self, cell: Cell, digest: str) -> tuple[str, ...]:
        """Return the platforms of a cell of which there is no image in the registry under a digest; all of them if that is gone itself."""
        found = self.registry.find(self.repository, digest)
        if found is None or len(cell.platforms) == 1:
            return () if found else cell.platforms
        if found.media_type == oci.INDEX:
            children = self.registry.manifest(self.repository, digest).document().children
            listed = {each.platform.name: each.digest for each in children if each.platform}
        else:
            listed = {image_index.of_config(self.registry.image_config(self.repository, digest)): digest}
        there = {platform for platform, child in listed.items() if self.registry.find(self.repository, child)}
        return tuple(platform for platform in cell.platforms if platform not in there)

    def _point(self, ledger: Ledger, wanted: frozenset[str] | None) -> list[str]:
        """Move tags to what the ledger says; return those whose image is gone."""
        todo = [(tag, digest) for tag, digest in ledger.state.tags.items() if wanted is None or tag in wanted]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            done = list(pool.map(lambda pair: self._tag(*pair), todo))
        return [tag for (tag, _), moved in zip(todo, done, strict=True) if not moved]

    def _tag(self, tag: str, digest: str) -> bool:
        try:
            found = self.registry.manifest(self.repository, digest)
        except AbsentError:
            return False
        self.registry.put_manifest(self.repository, tag, found.body, found.media_type)
        return True


def _news(ledger: Ledger, copy: Ledger | None) -> set[str]:
    """Return the images that entries after the copy moved to, and that their channels still hold."""
    added = {entry.sequence for entry in ledger.since(copy or Ledger())}
    return {digest for entry in ledger.state.current.values() if entry.sequence in added for digest in entry.images.values()}


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
