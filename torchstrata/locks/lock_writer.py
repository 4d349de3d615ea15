"""Writing the locks of wheels: the resolver is asked for what is missing or stale; what is right stays as it is."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from torchstrata import process
from torchstrata.errors import LockError
from torchstrata.locks import lockfile, pip_config, resolver, wheel_locks
from torchstrata.locks.lockfile import Lock, Pin, render
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT, Cell, Matrix
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

COOLDOWN: Final = dt.timedelta(days=7)
"""Files younger than this are not locked by default: most malicious uploads are found within days."""

WORKERS: Final = 4

WATCH: Final = 0.2
"""Seconds between two tries to end what runs after an interruption."""

FORBIDDEN: Final = "comes from PyTorch's own index, and pip's no-index forbids to look there"
ALLOW: Final = "take no-index out of pip's configuration, or put its wheels where find-links leads"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What locking did.

    :param changed: files that were written, relative to the root.
    :param unchanged: number of files that were as they should be.
    :param failed: why builds could not be locked, by short id of a cell that needs them; of several Pythons that of
        the first.
    """

    changed: tuple[str, ...]
    unchanged: int
    failed: Mapping[str, LockError]


def _is_right(cell: Cell, lock: Lock, parent: Lock | None, beside: Lock | None, root: Path) -> bool:
    """Return whether a lock fits its cell, its parent, and that of the default platform."""
    try:
        wheel_locks.check_inputs(cell, lock.flavour, lock, root)
        wheel_locks.check_pins(cell, lock, parent)
        wheel_locks.check_versions(cell, lock, beside)
    except LockError:
        return False
    return True


def write(  # noqa: PLR0913  # what can be asked of it
    matrix: Matrix,
    cells: Sequence[Cell],
    *,
    upgrade: bool = False,
    exclude_newer: str | None = None,
    root: Path = ROOT,
    on_line: Callable[[str], None] = lambda _line: None,
    on_wait: Callable[[str], None] | None = None,
) -> Outcome:
    """Resolve and write the locks of ``cells`` that are missing or no longer match their inputs, every flavour of each.

    A lock that is right stays as it is, byte for byte, and so does its date: what is locked beside it or above it
    sees the same files. The same date and the same inputs give the same bytes. One process at a time writes; others
    wait for it.

    :param upgrade: resolve all of them anew, at the date.
    :param exclude_newer: day or RFC 3339 time after which files are not seen, which is an upgrade to that day; by
        default a week ago, so that nothing is locked on the day of its upload.
    :param on_line: called with one line for each build and Python that is done.
    :param on_wait: called with a line if another process must be waited for; ``on_line`` if ``None``.
    """
    date, upgrade = cut_off(exclude_newer), upgrade or exclude_newer is not None
    making = _Making(matrix=matrix, root=root, date=date, upgrade=upgrade, on_line=on_line)
    todo = sorted(wheel_locks.distinct(cells), key=lambda cell: cell.platform != PLATFORM)
    first = [cell for cell in todo if cell.platform == PLATFORM]
    resolver.program()
    with lockfile.writing(root / wheel_locks.FOLDER, on_wait or on_line):  # other platforms get the versions of the default one
        results = [*_in_parallel(making, first), *_in_parallel(making, todo[len(first) :])]
    changed, failed = list[str](), dict[str, LockError]()
    for cell, result in zip(todo, results, strict=True):
        if isinstance(result, LockError):
            failed.setdefault(cell.short, result)
        else:
            changed += result
    done = sum(not isinstance(result, LockError) for result in results)
    return Outcome(changed=tuple(sorted(changed)), unchanged=done * len(matrix.flavours) - len(changed), failed=failed)


def _in_parallel(making: _Making, cells: Sequence[Cell]) -> list[list[str] | LockError]:
    """Lock several builds and Pythons at a time; an interruption ends all that runs."""
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = [pool.submit(making.write, cell) for cell in cells]
        try:
            return [outcome.result() for outcome in outcomes]
        except BaseException:
            making.stopped.set()
            under_way = [outcome for outcome in outcomes if not outcome.cancel()]  # for `wait` a cancelled one never ends
            while wait(under_way, WATCH).not_done:
                process.stop_all()
            raise


def cut_off(asked: str | None) -> str:
    """Return the time, to the second and in UTC, after which files are not seen.

    :raises LockError: it is no time, or still to come: images take it for that of their making.
    """
    now = dt.datetime.now(dt.UTC)
    try:
        moment = now.replace(hour=0, minute=0, second=0) - COOLDOWN if asked is None else dt.datetime.fromisoformat(asked)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise LockError(f"{printable(asked or '', 60)!r} is no time", fix="write a day or a time, such as 2026-11-24") from error
    if moment > now:
        raise LockError(f"{moment:%Y-%m-%d} is still to come", fix="write a day that has been; --upgrade without one takes what there was a week ago")
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class _Making:
    """One run of the resolver over some builds and Pythons.

    :param date: RFC 3339 time after which files are not seen where no lock has a date of its own.
    :param upgrade: no lock counts as made.
    :param stopped: is set once the run was interrupted.
    """

    matrix: Matrix
    root: Path
    date: str
    upgrade: bool
    on_line: Callable[[str], None]
    stopped: threading.Event = field(default_factory=threading.Event)

    def write(self, cell: Cell) -> list[str] | LockError:
        """Lock every flavour of one build and Python; return the files that changed, or why it cannot be done."""
        target = f"{cell.build} {wheel_locks.tag(cell)}"
        try:
            locks = self._locks(cell)
        except LockError as error:
            if not self.stopped.is_set():
                self.on_line(f"{target}: {error.what}")
            return error
        changed = [where for where, text in self._texts(cell, locks) if lockfile.replaced(self.root / where, text)]
        counts = ", ".join(f"{name} {len(lock.pins)}" for name, lock in locks.items())
        self.on_line(f"{target}: {counts} wheels, {len(changed)} files changed")
        return changed

    def _texts(self, cell: Cell, locks: Mapping[str, Lock]) -> Iterator[tuple[str, str]]:
        """Yield paths and texts, parents first: after a kill the next run goes on from those that were written."""
        for name, lock in locks.items():
            yield wheel_locks.path_of(cell, name), render(lock)

    def _locks(self, cell: Cell) -> dict[str, Lock]:
        """Return the locks of all flavours; each keeps its parent's pins and date."""
        before = {} if self.upgrade else wheel_locks.readable(self.matrix, cell, self.root)
        beside = wheel_locks.on_default_platform(self.matrix, cell, self.root)
        date = self.date if self.upgrade else _date(cell, before, self.root) or self.date
        locks: dict[str, Lock] = {}
        for name, flavour in self.matrix.flavours.items():
            parent = locks.get(flavour.parent or "")
            committed, default = before.get(name), beside.get(name)
            if committed and committed.flavour == name and _is_right(cell, committed, parent, default, self.root):
                locks[name] = committed
            else:
                locks[name] = self._lock(cell, name, parent, date, default)
        return locks

    def _lock(self, cell: Cell, flavour: str, parent: Lock | None, date: str, beside: Lock | None) -> Lock:
        """Resolve one flavour over its parent, with the versions of the default platform."""
        if beside is None and cell.platform != PLATFORM:
            raise LockError(
                f"{wheel_locks.path_of(cell.on(PLATFORM), flavour)} is missing, whose versions {cell.platform} gets",
                fix=wheel_locks.FIX.format(cell=cell.short),
            )
        base = beside or parent
        cut_off_date = base.exclude_newer if base else date
        requires = wheel_locks.requirements(cell, flavour, self.root)
        pins = parent.pins if parent and not requires else self._pins(cell, flavour, parent, cut_off_date, beside)
        lock = Lock(
            build=cell.build,
            python=cell.os.python,
            flavour=flavour,
            platform=cell.platform,
            requires=requires,
            exclude_newer=cut_off_date,
            uv=resolver.version(),
            pins=pins,
        )
        wheel_locks.check_pins(cell, lock, parent)
        wheel_locks.check_versions(cell, lock, beside)
        return lock

    def _pins(self, cell: Cell, flavour: str, parent: Lock | None, date: str, beside: Lock | None) -> tuple[Pin, ...]:
        """Return the parent's own pins, whatever file of that version is offered today, and what else is needed."""
        if parent is None:
            return self._resolve(cell, flavour, beside.pins if beside else self._toolkit(cell, date), date)
        locked = {(pin.name, pin.version): pin for pin in parent.pins}
        wanted = beside.pins if beside else parent.pins
        return tuple(locked.get((pin.name, pin.version), pin) for pin in self._resolve(cell, flavour, wanted, date))

    def _toolkit(self, cell: Cell, date: str) -> tuple[Pin, ...]:
        """Return what the flavour without a parent must keep so that the compiler fits it, where a flavour brings one.

        torch 2.15 needs CUDA header wheels without saying which version; the compiler's wheels want theirs.
        """
        compiler = wheel_locks.COMPILER_FLAVOUR
        is_wanted = compiler in self.matrix.flavours and wheel_locks.requirements(cell, compiler, self.root)
        return self._resolve(cell, compiler, (), date) if is_wanted else ()

    def _resolve(self, cell: Cell, flavour: str, constraints: Sequence[Pin], date: str) -> tuple[Pin, ...]:
        """Return what a flavour and its parents need.

        :raises LockError: there is no such set of wheels, or who has them cannot be asked; names what cures it.
        """
        added = (wheel_locks.requirements(cell, link, self.root) for link in self.matrix.with_parents(flavour))
        wanted = [*itertools.chain.from_iterable(added)]
        if self.stopped.is_set():
            raise LockError("interrupted", fix=wheel_locks.FIX.format(cell=cell.short))
        try:
            return _looked_up(cell, wanted, constraints, date)
        except resolver.UnreachableError as error:
            raise LockError(f"{cell.short} cannot be locked: {error.what}", fix=f"{error.fix}, then {wheel_locks.FIX.format(cell=cell.short)}") from error
        except LockError as error:
            if not error.what.startswith(resolver.UNSOLVABLE):
                raise
            if pip_config.read().no_index:
                raise LockError(f"{error.what} (pip's no-index forbids to look into indexes)", fix=f"{ALLOW}; or {error.fix}") from error
            if date == self.date:
                raise
            newer = f"inv lock {cell.short} --upgrade"
            raise LockError(f"{error.what} (as of {date[:10]}, the day of its locks)", fix=f"take newer wheels: {newer}; or {error.fix}") from error


def _date(cell: Cell, before: Mapping[str, Lock], root: Path) -> str | None:
    """Return the date of the locks that a build has: on this Python, else on others, which shall share its layers."""
    beside = sorted(path.relative_to(root).as_posix() for path in (root / wheel_locks.FOLDER / cell.build).glob("cp*/*.lock"))
    locks = [*before.values(), *(lock for where in beside if (lock := wheel_locks.parsed(root, where)))]
    return locks[0].exclude_newer if locks else None


def _looked_up(cell: Cell, wanted: Sequence[str], constraints: Sequence[Pin], date: str) -> tuple[Pin, ...]:
    """Resolve where pip is configured to look; take torch or its family from PyTorch's own index if it is not there."""
    index = compat.index(cell.torch, cell.wheels)
    undated = compat.facts().upstream.packages if index else ()
    target = resolver.ResolverTarget(python=cell.os.python, platform=cell.platform, exclude_newer=date, undated=undated)
    try:
        return resolver.resolve(wanted, constraints, target)
    except LockError as error:
        if index is None or not _lacks_family(error):
            raise
        if pip_config.read().no_index:
            raise LockError(f"{cell.short} {FORBIDDEN}", fix=f"{ALLOW}, then {wheel_locks.FIX.format(cell=cell.short)}") from error
    upstream = resolver.NamedIndex(index=index, packages=compat.facts().upstream.packages)
    return resolver.resolve(wanted, constraints, target, upstream=upstream)


def _lacks_family(error: LockError) -> bool:
    """Return whether the resolver has not found torch or one of its family, in its words."""
    family = "|".join(map(re.escape, compat.facts().upstream.packages))
    return bool(re.search(rf"no version of (?:{family})==|\b(?:{family}) was not found", error.what))
