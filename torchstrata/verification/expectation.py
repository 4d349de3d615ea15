"""What an image must be, from the matrix, the facts and the locks; never from the image itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torchstrata.image import runtime, source
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.locks.lockfile import Lock
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix import compat, matrix
from torchstrata.matrix.flavours import Service
from torchstrata.matrix.matrix import ROOT, Cell, Matrix


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the image of a cell and a flavour must be.

    :param drift: how its OS packages differ from their lock, as it says itself.
    :param root: the checkout whose matrix and locks count.
    """

    cell: Cell
    flavour: str
    drift: tuple[PackageMove, ...] = ()
    root: Path = ROOT

    @functools.cached_property
    def table(self) -> Matrix:
        """The matrix of the checkout."""
        return matrix.load(self.root / matrix.MATRIX.name)

    @functools.cached_property
    def lineage(self) -> tuple[str, ...]:
        """The flavour's parents, then itself.

        :raises MatrixError: there is no such flavour.
        """
        return self.table.with_parents(self.flavour)

    @functools.cached_property
    def is_all_in_one(self) -> bool:
        """Whether the flavour is the one that the all-in-one image is made of."""
        return self.flavour == self.table.all_in_one

    @functools.cached_property
    def services(self) -> tuple[Service, ...]:
        """What its containers can run if nothing is asked for, parents' first."""
        return self.table.services(self.flavour)

    @functools.cached_property
    def is_beside(self) -> bool:
        """Whether the all-in-one does not contain the flavour, so that nothing of it is tested there."""
        return self.flavour not in self.table.with_parents(self.table.all_in_one)

    @property
    def facts(self) -> compat.CellFacts:
        """What is known of the cell."""
        return self.cell.facts

    @functools.cached_property
    def lock(self) -> Lock:
        """All wheels of the image.

        :raises LockError: the cell is not locked, or its lock does not match its inputs.
        """
        return wheel_locks.read(self.cell, self.flavour, self.root)

    @property
    def versions(self) -> dict[str, str]:
        """Version by normalised name of each Python package."""
        return {pin.name: pin.version for pin in self.lock.pins}

    @property
    def locked_os_packages(self) -> Mapping[str, str]:
        """Version by name of each OS package, as locked.

        :raises LockError: the OS is not locked.
        """
        return os_locks.read(self.cell.os, self.root).installed(self.lineage)

    @property
    def os_packages(self) -> Mapping[str, str]:
        """Version by name of each OS package: as locked, but for what the image says of itself.

        Whether that is honest is a test of its own (``test_truth.py``).
        """
        return os_locks.applied(self.locked_os_packages, self.drift)

    @property
    def os_python(self) -> str:
        """Full version of the OS's Python, such as ``3.13.5``.

        :raises LockError: the image is to have none.
        """
        return os_locks.python_in(self.os_packages, self.cell.os)

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels; its revision is that of the checkout."""
        return runtime.labels(self.cell, self.flavour, self.lock, source.revision(self.cell, self.lineage, self.root), self.drift)

    @property
    def applies(self) -> frozenset[str]:
        """What tests may apply to, and is so here: ``cuda``, ``vision``, ``audio``, ``audiofiles``, ``named``."""
        has = {
            "vision": "torchvision" in self.versions,
            "audio": "torchaudio" in self.versions,
            "audiofiles": bool(compat.audio(self.cell.torch, self.cell.companions)),
            "cuda": self.facts.cuda_version is not None,
            "named": self.cell.named,
        }
        return frozenset(name for name, applies in has.items() if applies)
