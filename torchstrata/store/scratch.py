"""What a process has not finished, on the store's file system; it goes with the process, or is swept by the next."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from torchstrata.host import temporary
from torchstrata.host.filesystem import disk, lock


class Scratch:
    """The directories of processes below ``root``, each beside a lock that its process holds.

    :param turn: lets one process at a time claim a directory or sweep.
    """

    def __init__(self, root: Path, turn: Callable[[], AbstractContextManager[None]]) -> None:
        self._root, self._turn = root, turn
        self._mutex = threading.Lock()
        self._held: tuple[FileLock, Path] | None = None

    def directory(self) -> Path:
        """Return this process's own; the first call takes away what processes that no longer live have left."""
        with self._mutex:
            if self._held is None:
                with self._turn(), disk(self._root):
                    self.sweep()
                    self._held = self._claim()
            return self._held[1]

    def sweep(self) -> int:
        """Remove, in our turn, what dead processes have left, also in an engine; return how many others live."""
        living = 0
        for path in sorted(self._root.glob("*.lock")):
            try:
                with lock(path).acquire(timeout=0):
                    if temporary.remove(path.with_suffix("")):
                        path.unlink()
            except Timeout:
                living += self._held is None or path != Path(self._held[0].lock_file)
        return living

    def _claim(self) -> tuple[FileLock, Path]:
        path = self._root / uuid.uuid4().hex
        path.mkdir(parents=True)
        held = lock(path.with_suffix(".lock"))
        held.acquire(timeout=0)
        return held, path
