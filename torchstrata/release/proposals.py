"""What would move between channels, and why something may not, as values for :mod:`torchstrata.release.moves`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from torchstrata.errors import ReleaseError, UntrustedError
from torchstrata.matrix.matrix import Cell, Channel
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.release.ledger import Move
from torchstrata.release.ledger_branch import Snapshot


class NotYetError(ReleaseError):
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
        return cls(cell=cell.id, why=error.what, fix=error.fix, is_patience=isinstance(error, NotYetError), kind=kind)


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
        tags = self.base.ledger.state.tags
        for move in self.moves:
            for tag, image in move.tags.items():
                if tags.get(tag) != move.images[image]:
                    yield move, tag, tags.get(tag), move.images[image]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where images come from.

    :param channel: a channel; or ``None`` for what was pushed.
    :param push: the last one that counts.
    """

    channel: Channel | None
    push: PushNumber | None = None

    def __str__(self) -> str:
        return self.channel.name if self.channel else str(self.push or "what was pushed last")


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """Why images move, and digests of what they were made from, as the ledger tells it."""

    why: str
    inputs: Mapping[str, str] = field(default_factory=dict)
