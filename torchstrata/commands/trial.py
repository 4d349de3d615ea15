"""``inv try-os``: lock, build and verify a cell of each OS that nobody has verified; note it in ``matrix.yaml``."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Final

from torchstrata import progress
from torchstrata.commands import build, lock
from torchstrata.commands.options import BuildOptions, TryOsOptions
from torchstrata.errors import MatrixError, TorchstrataError
from torchstrata.locks import lockfile
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix, OperatingSystem
from torchstrata.verification import suite as verification
from torchstrata.verification.request import VerifyOptions

BUILD: Final = BuildOptions(locked=True)
VERIFY: Final = VerifyOptions()


def run(options: TryOsOptions) -> None:
    """Try the OSes that match and are not verified; one that fails does not keep others from being tried.

    :raises TorchstrataError: the first that failed; all are printed.
    """
    table, failed = matrix.load(), list[TorchstrataError]()
    chosen = matrix.select_systems(table, *options.cells)
    if all(system.verified for system in chosen):
        progress.say(f"nothing to try: {', '.join(system.id for system in chosen)} {'is' if len(chosen) == 1 else 'are'} verified")
    for system in (system for system in chosen if not system.verified):
        try:
            _try(table, system, only_lock=options.only_lock)
        except TorchstrataError as error:
            progress.say(f"failed: {system.id}: {error.what}")
            failed.append(error)
    if failed:
        raise failed[0]


def _try(table: Matrix, system: OperatingSystem, *, only_lock: bool) -> None:
    lock.lock_systems([system.id])
    if only_lock:
        return
    cell = smallest(table, system)
    build.build(cell.id, BUILD)
    verification.run(cell, Path(sys.executable), VERIFY)
    mark(system, matrix.MATRIX)
    progress.say(f"{system.id}: verified with {cell.id}; commit matrix.yaml and locks/os/{system.id}.lock")


def smallest(table: Matrix, system: OperatingSystem) -> Cell:
    """Return the cell of an OS whose images weigh the least; those that nobody has weighed come last."""
    return min((cell for cell in table.cells if cell.os == system), key=lambda cell: table.budget(table.all_in_one, cell.short) or math.inf)


def mark(system: OperatingSystem, path: Path) -> None:
    """Write ``verified: true`` for an OS into ``matrix.yaml``, and change nothing else.

    :raises MatrixError: it is not written there in braces, as the others are.
    :raises StoreError: the file cannot be written.
    """
    text = path.read_text(encoding="utf-8")
    marked, count = re.subn(rf"(^  {re.escape(system.id)}:\s*\{{[^}}]*?verified: )false", r"\1true", text, count=1, flags=re.MULTILINE)
    if not count:
        raise MatrixError(f"{path.name} has no `verified: false` of {system.id} in braces", fix=f"write verified: true for {system.id} by hand")
    lockfile.replaced(path, marked)
