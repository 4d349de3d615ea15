"""What a build does first where nobody has locked what it needs: it locks that; a person commits the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from torchstrata.layers import contexts, os_part_builder
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.locks import lock_writer, lockfile, os_locks, wheel_locks
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell, Matrix, OperatingSystem
from torchstrata.process import LineSink
from torchstrata.progress import Reporter
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

WHEELS: Final = "{cells}: nobody had locked the wheels; now they are locked: commit {paths}"
PACKAGES: Final = "{systems}: nobody had locked the OS packages{of}; now they are locked: commit {paths}"


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
        return any(wheel_locks.missing(cell, flavours, self.root) or self._lacks(cell.os, flavours) for cell in cells)

    def lock(self, cells: Sequence[Cell], flavours: Sequence[str], reporter: Reporter) -> None:
        """Lock what nobody has locked of the wheels and OS packages of ``cells``; a lock that exists stays as it is.

        :param flavours: those that are built, with their parents.
        :raises LockError: wheels cannot be locked; says which source does not answer, or what does not fit.
        """
        self._lock_wheels([cell for cell in cells if wheel_locks.missing(cell, flavours, self.root)], flavours, reporter)
        systems = tuple(dict.fromkeys(cell.os for cell in cells))
        self._lock_systems([system for system in systems if self._is_new(system)], reporter)
        self._lock_flavours([system for system in systems if self._lacks(system, flavours)], flavours, reporter)

    def _lock_wheels(self, cells: Sequence[Cell], flavours: Sequence[str], reporter: Reporter) -> None:
        """Lock the wheels of whole rows, so that their locks are complete; a failure on another OS is no error here."""
        if not cells:
            return
        rows = ", ".join(dict.fromkeys(cell.short for cell in cells))
        asked = {(cell.short, cell.platform) for cell in cells}
        wanted = [*cells, *(cell for cell in matrix.everywhere(self.matrix.cells) if (cell.short, cell.platform) in asked)]
        with reporter.step("lock", f"wheels of {rows}") as step:
            outcome = lock_writer.write(self.matrix, wanted, root=self.root, on_line=step.note, on_wait=reporter.say)
        for cell in cells:
            if wheel_locks.missing(cell, flavours, self.root):
                raise outcome.failed[cell.short]
        paths = " ".join(dict.fromkeys(f"{wheel_locks.FOLDER}/{cell.build}" for cell in cells))
        reporter.say(WHEELS.format(cells=rows, paths=paths))

    def _is_new(self, system: OperatingSystem) -> bool:
        return not os_locks.path(system, self.root).exists()

    def _lacks(self, system: OperatingSystem, flavours: Sequence[str]) -> bool:
        """Return whether nobody has locked the OS packages of some flavours."""
        return self._is_new(system) or bool(self._unlocked(system, flavours))

    def _unlocked(self, system: OperatingSystem, flavours: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in os_locks.read(system, self.root).lacks(flavours) if contexts.installs(self.root, name))

    def _lock_systems(self, systems: Sequence[OperatingSystem], reporter: Reporter) -> None:
        if not systems:
            return
        names = ", ".join(system.name for system in systems)
        with reporter.step("lock", f"OS packages of {names}") as step, lockfile.writing(self.root / wheel_locks.FOLDER, reporter.say):
            due = [system for system in systems if self._is_new(system)]  # unless somebody has locked them meanwhile
            builder = self._builder(step.note)
            written = [*chain.from_iterable(builder.relock(group, *self.matrix.lines) for group in os_part_builder.groups(due))]
        self._tell(names, "", written, reporter)

    def _lock_flavours(self, systems: Sequence[OperatingSystem], flavours: Sequence[str], reporter: Reporter) -> None:
        """Lock the OS packages of flavours that the locks of systems do not have; those of others stay."""
        if not systems:
            return
        names, lineages = ", ".join(system.name for system in systems), tuple(map(self.matrix.with_parents, flavours))
        with reporter.step("lock", f"OS packages of {names}") as step, lockfile.writing(self.root / wheel_locks.FOLDER, reporter.say):
            new = dict.fromkeys(chain.from_iterable(self._unlocked(system, flavours) for system in systems))
            builder = self._builder(step.note)
            written = [*chain.from_iterable(builder.extend(group, *lineages) for group in os_part_builder.groups(systems))]
        self._tell(names, f" of {', '.join(new)}", written, reporter)

    def _builder(self, on_line: LineSink) -> OsPartBuilder:
        return OsPartBuilder(store=self.store, codec=self.codec, on_line=on_line, root=self.root)

    def _tell(self, systems: str, of: str, written: Sequence[Path], reporter: Reporter) -> None:
        if written:
            paths = " ".join(path.relative_to(self.root).as_posix() for path in written)
            reporter.say(PACKAGES.format(systems=systems, of=of, paths=paths))
