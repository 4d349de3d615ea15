"""What a build does first where nobody has locked what it needs: it locks that, and leaves the files to be committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata.layers import os_parts
from torchstrata.layers.os_parts import Oven
from torchstrata.locks import lockfile, os_locks, wheel_locks
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell, Matrix, OperatingSystem
from torchstrata.progress import Reporter
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

WHEELS: Final = "{cells}: nobody had locked the wheels; now they are locked: commit {paths}"
PACKAGES: Final = "{systems}: nobody had locked the OS packages; now they are locked: commit {paths}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstUse:
    """Locking before a build.

    :param store: where OS parts go: locking OS packages is building them.
    :param root: the checkout whose locks these are.
    """

    matrix: Matrix
    store: Store
    codec: Codec
    root: Path = ROOT

    def is_due(self, cells: Sequence[Cell], flavours: Sequence[str]) -> bool:
        """Return whether nobody has locked something that the flavours of ``cells`` need."""
        return any(wheel_locks.missing(cell, flavours, self.root) or self._is_new(cell.os) for cell in cells)

    def lock(self, cells: Sequence[Cell], flavours: Sequence[str], reporter: Reporter) -> None:
        """Lock what nobody has locked of the wheels and the OS packages of ``cells``; a lock that is there stays, right or stale.

        :param flavours: those that are built, with their parents.
        :raises LockError: the wheels cannot be had; says which source does not answer, or what does not fit.
        """
        self._lock_wheels([cell for cell in cells if wheel_locks.missing(cell, flavours, self.root)], flavours, reporter)
        self._lock_systems([system for system in dict.fromkeys(cell.os for cell in cells) if self._is_new(system)], reporter)

    def _lock_wheels(self, cells: Sequence[Cell], flavours: Sequence[str], reporter: Reporter) -> None:
        """Lock the wheels of whole rows, so that their locks are complete; what fails on another OS stops nobody here."""
        if not cells:
            return
        rows = ", ".join(dict.fromkeys(cell.short for cell in cells))
        asked = {(cell.short, cell.platform) for cell in cells}
        wanted = [*cells, *(cell for cell in matrix.everywhere(self.matrix.cells) if (cell.short, cell.platform) in asked)]
        with reporter.step("lock", f"wheels of {rows}") as step:
            outcome = wheel_locks.write(self.matrix, wanted, root=self.root, on_line=step.note, on_wait=reporter.say)
        for cell in cells:
            if wheel_locks.missing(cell, flavours, self.root):
                raise outcome.failed[cell.short]
        paths = " ".join(dict.fromkeys(f"{wheel_locks.FOLDER}/{cell.build}" for cell in cells))
        reporter.say(WHEELS.format(cells=rows, paths=paths))

    def _is_new(self, system: OperatingSystem) -> bool:
        return not os_locks.path(system, self.root).exists()

    def _lock_systems(self, systems: Sequence[OperatingSystem], reporter: Reporter) -> None:
        """Lock the OS packages of all flavours."""
        if not systems:
            return
        names = ", ".join(system.name for system in systems)
        with reporter.step("lock", f"OS packages of {names}") as step, lockfile.writing(self.root / wheel_locks.FOLDER, reporter.say):
            due = [system for system in systems if self._is_new(system)]  # unless somebody has locked them meanwhile
            oven, flavours = Oven(store=self.store, codec=self.codec, on_line=step.note, root=self.root), tuple(self.matrix.flavours)
            written = [path for together in os_parts.groups(due) for path in oven.relock(together, flavours)]
        if written:
            paths = " ".join(path.relative_to(self.root).as_posix() for path in written)
            reporter.say(PACKAGES.format(systems=names, paths=paths))
