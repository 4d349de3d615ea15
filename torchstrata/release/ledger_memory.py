"""How far this user has seen a ledger: after entry 41, one that ends earlier or has another entry there is refused.

A signature cannot tell an older copy from the present one, nor can a user who has seen neither, as on a new machine.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from torchstrata import decoding, files
from torchstrata.errors import LedgerError
from torchstrata.host import home
from torchstrata.host.filesystem import lock, whole
from torchstrata.release.ledger import Ledger, fingerprint

LIMIT: Final = 10_000
"""Bytes of the file."""

ELSEWHERE: Final = "set XDG_STATE_HOME to a directory that you may write"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger that was believed.

    :param ledger: registry and repository of its copy.
    :param entries: how many it had.
    :param line: SHA-256 of the last one, in hex.
    """

    ledger: str
    entries: Annotated[int, msgspec.Meta(ge=1)]
    line: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What this user remembers of one ledger.

    :param name: registry and repository of its copy.
    :param path: the file; ``None`` for a user without a home, who remembers nothing.
    """

    name: str
    path: Path | None

    @classmethod
    def of(cls, host: str, repository: str) -> Self:
        """Return the memory of the ledger in a repository, below the user's state directory (``XDG_STATE_HOME``)."""
        name, folder = f"{host}/{repository}", home.state("torchstrata")
        file = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        return cls(name=name, path=folder / "ledgers" / file if folder else None)

    def recall(self) -> Seen | None:
        """Return the longest ledger that was believed.

        :raises LedgerError: the file is damaged, or this user may not look for it.
        """
        if self.path is None or not _is_there(self.path):
            return None
        try:
            return decoding.decode(files.read(self.path, LIMIT), Seen)
        except (msgspec.MsgspecError, files.UnreadableError) as error:
            raise LedgerError(
                f"what was remembered of the ledger cannot be read: {self.path}", fix=f"remove it, if you know why: rm {shlex.quote(str(self.path))}"
            ) from error

    def check(self, ledger: Ledger, seen: Seen | None) -> None:
        """Refuse a ledger that is not the one that was seen, with entries added.

        :raises LedgerError: it is shorter, or another one.
        """
        if seen is None or (len(ledger.lines) >= seen.entries and fingerprint(ledger.lines[seen.entries - 1]) == seen.line):
            return
        what = f"entry {seen.entries} is another one now" if len(ledger.lines) >= seen.entries else f"it has {len(ledger.lines)} now"
        raise LedgerError(
            f"the ledger of {self.name} had {seen.entries} entries when you saw it last, and {what}: it was put back or rewritten",
            fix=f"find out by whom; if that was right, forget what you saw: rm {shlex.quote(str(self.path))}",
        )

    def keep(self, ledger: Ledger) -> None:
        """Remember a ledger that is believed, if it is longer than what is remembered.

        :raises LedgerError: the directory cannot be written.
        """
        if self.path is None or not ledger.lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with lock(self.path.with_name(f"{self.path.name}.lock")):
                before = self.recall()
                if before is None or before.entries < len(ledger.lines):
                    self._write(self.path, ledger)
        except OSError as error:
            raise LedgerError(f"{error.filename or self.path} cannot be written: {error.strerror}", fix=ELSEWHERE) from error

    def _write(self, path: Path, ledger: Ledger) -> None:
        """Write the file whole or not at all."""
        seen = Seen(ledger=self.name, entries=len(ledger.lines), line=fingerprint(ledger.lines[-1]))
        with whole(path) as file:
            file.write(msgspec.json.encode(seen) + b"\n")


def _is_there(path: Path) -> bool:
    """Return whether there is anything, be it a link to nothing.

    :raises LedgerError: that may not be known: a ledger that was put back would be believed.
    """
    try:
        path.lstat()
    except PermissionError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}", fix=ELSEWHERE) from error
    except OSError:
        return False
    return True
