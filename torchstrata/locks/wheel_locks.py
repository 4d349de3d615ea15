"""The locks under ``locks/``: reading and checking them offline, and making them.

``locks/<build>/<cpXY>/<flavour>.lock``; each contains its parent's, pin for pin. Those of another platform lie beside, as in ``cp313-arm64``:
the same versions, which :func:`check` holds them to, as other files.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from torchstrata import files, platforms, process
from torchstrata.errors import LockError
from torchstrata.locks import lockfile, pip_config, resolver
from torchstrata.locks.lockfile import LIMIT, Lock, Pin, parse, render
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT, Cell, Matrix, everywhere
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

__all__ = ["Lock", "Outcome", "Pin", "check", "check_pins", "missing", "own", "path_of", "read", "requirements", "write"]

FOLDER: Final = "locks"
TORCH_FLAVOUR: Final = "base"
"""The flavour that brings torch and its companions."""
COMPILER_FLAVOUR: Final = "devel"
"""The flavour that brings the CUDA compiler."""

COOLDOWN: Final = dt.timedelta(days=7)
"""Files younger than this are not locked by default: most malicious uploads are found within days."""

WORKERS: Final = 4

WATCH: Final = 0.2
"""Seconds between two tries to end what runs after an interruption."""

AGAIN: Final = "run: inv lock {cell}"
FORBIDDEN: Final = "comes from PyTorch's own index, and pip's no-index forbids to look there"
ALLOW: Final = "take no-index out of pip's configuration, or put its wheels where find-links leads"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What locking did.

    :param changed: files that were written, relative to the root.
    :param unchanged: number of files that were as they should be.
    :param failed: why builds could not be locked, by short id of a cell that needs them; of several Pythons that of the first.
    """

    changed: tuple[str, ...]
    unchanged: int
    failed: Mapping[str, LockError]


def path_of(cell: Cell, flavour: str) -> str:
    """Return the path of the lock, relative to the repository's root."""
    return f"{FOLDER}/{cell.build}/{_tag(cell)}/{flavour}.lock"


def _tag(cell: Cell) -> str:
    """Return what the locks of a cell's Python and platform lie below: ``cp313``, or ``cp313-arm64``."""
    return f"{cell.os.python_tag}{platforms.suffix(cell.platform)}"


def requirements(cell: Cell, flavour: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return what ``flavour`` adds to its parent's requirements: pins that follow from the facts, and its ``requirements.in``.

    :raises LockError: a line there is no requirement as PEP 508 has it.
    """
    where = f"images/{flavour}/requirements.in"
    path = root / where
    lines = _text(path, where).split("\n") if path.exists() else []
    written = [_requirement(line.strip(), where) for line in lines if line.strip() and not line.startswith("#")]
    return (*_generated(cell, flavour), *sorted(written))


def _requirement(line: str, where: str) -> str:
    """Return a line as it is, if it is a requirement; the resolver gets it as one of a project, where pip's options mean nothing."""
    try:
        Requirement(line)
    except InvalidRequirement as error:
        raise LockError(f"{where}: not a requirement: {printable(line, 60)}", fix="write NAME, or NAME and versions, such as numpy<3") from error
    return line


def _generated(cell: Cell, flavour: str) -> tuple[str, ...]:
    if flavour == TORCH_FLAVOUR:
        local = "" if compat.build(cell.torch, cell.wheels).default else f"+{cell.wheels}"
        return (*(f"{pin}{local}" for pin in (f"torch=={cell.version}", *cell.companions)), *compat.audio(cell.torch, cell.companions))
    if flavour == COMPILER_FLAVOUR and cell.facts.nvcc:
        return cell.facts.nvcc.requirements
    return ()


def read(cell: Cell, flavour: str, root: Path = ROOT) -> Lock:
    """Return the committed lock of ``cell`` and ``flavour``.

    :raises LockError: it is missing, damaged, or no longer matches its inputs; says which input moved.
    """
    where = path_of(cell, flavour)
    if not (root / where).exists():
        is_upstream = compat.index(cell.torch, cell.wheels) is not None
        what = f"{cell.short} is not locked: its wheels are on PyTorch's own index" if is_upstream else f"{where} is missing"
        raise LockError(what, fix=AGAIN.format(cell=cell.short))
    text = _text(root / where, where)
    try:
        lock = parse(text, where)
    except LockError as error:
        raise LockError(error.what, fix=AGAIN.format(cell=cell.short)) from error
    _check_header(cell, lock, _expected(cell, flavour, lock, root))
    return lock


def missing(cell: Cell, flavours: Iterable[str], root: Path = ROOT) -> bool:
    """Return whether nobody has locked some of the flavours yet."""
    return any(not (root / path_of(cell, flavour)).exists() for flavour in flavours)


def _text(path: Path, where: str) -> str:
    """Return the text of a file of the checkout.

    :raises LockError: it cannot be read.
    """
    try:
        return files.text(path, LIMIT)
    except files.UnreadableError as error:
        raise LockError(error.what, fix=f"run: git checkout HEAD -- {where}") from error


def own(lock: Lock, parent: Lock | None) -> tuple[Pin, ...]:
    """Return the pins that ``lock`` adds to its ``parent``'s."""
    known = set(parent.pins) if parent else set()
    return tuple(pin for pin in lock.pins if pin not in known)


def _expected(cell: Cell, flavour: str, lock: Lock, root: Path) -> Lock:
    """Return the lock as its inputs want it, with the pins that it has."""
    return Lock(
        build=cell.build,
        python=cell.os.python,
        flavour=flavour,
        platform=cell.platform,
        requires=requirements(cell, flavour, root),
        exclude_newer=lock.exclude_newer,
        uv=lock.uv,
        pins=lock.pins,
    )


def _check_header(cell: Cell, lock: Lock, expected: Lock) -> None:
    where, fix = path_of(cell, expected.flavour), AGAIN.format(cell=cell.short)
    for name in ("build", "python", "flavour", "platform"):
        have, want = getattr(lock, name), getattr(expected, name)
        if have != want:
            raise LockError(f"{where} is the lock of {name} {have}, not {want}", fix=fix)
    if lock.requires != expected.requires:
        raise LockError(f"{where} no longer matches its inputs: {_difference(lock.requires, expected.requires)}", fix=fix)


def _difference(have: Iterable[str], want: Iterable[str]) -> str:
    """Return in words how the requirements moved."""
    locked, wanted = set(have), set(want)
    new, gone = sorted(wanted - locked), sorted(locked - wanted)
    return "; ".join(f"{word} {', '.join(names)}" for word, names in (("now asks for", new), ("no longer asks for", gone)) if names) or "their order"


def check(matrix: Matrix, root: Path = ROOT) -> tuple[LockError, ...]:
    """Return everything that is wrong with the committed locks; offline.

    A build from PyTorch's own index that nobody has locked yet is not wrong.
    """
    problems: list[LockError] = []
    expected: set[str] = set()
    for cell in _distinct(everywhere(matrix.cells)):
        paths = [path_of(cell, flavour) for flavour in matrix.flavours]
        if any((root / where).exists() for where in paths) or compat.build(cell.torch, cell.wheels).default:
            expected.update(paths)
            problems += _problems(matrix, cell, root)
    return (*problems, *_strays(expected, root))


def _strays(expected: set[str], root: Path) -> Iterator[LockError]:
    """Yield locks that no cell of the matrix has."""
    present = {str(path.relative_to(root)) for path in (root / FOLDER).glob("*/cp*/*.lock")}
    for where in sorted(present - expected):
        beside = where.rpartition("/")[0]
        is_whole = not any(path.startswith(f"{beside}/") for path in expected)
        yield LockError(f"{where} belongs to no cell of matrix.yaml", fix=f"run: rm -r {beside}" if is_whole else f"run: rm {where}")


def _problems(matrix: Matrix, cell: Cell, root: Path) -> Iterator[LockError]:
    """Yield what is wrong with the locks of one cell."""
    locks: dict[str, Lock] = {}
    beside = _beside(matrix, cell, root)
    for name, flavour in matrix.flavours.items():
        try:
            lock = locks[name] = read(cell, name, root)
            check_pins(cell, lock, locks.get(flavour.parent or ""))
            check_versions(cell, lock, beside.get(name))
        except LockError as error:
            yield error


def _is_right(cell: Cell, lock: Lock, parent: Lock | None, beside: Lock | None, root: Path) -> bool:
    """Return whether a lock fits its cell, its parent, and that of the default platform."""
    try:
        _check_header(cell, lock, _expected(cell, lock.flavour, lock, root))
        check_pins(cell, lock, parent)
        check_versions(cell, lock, beside)
    except LockError:
        return False
    return True


def check_pins(cell: Cell, lock: Lock, parent: Lock | None) -> None:
    """Check the wheels of a lock.

    :raises LockError: one does not fit its Python, is there twice, or one of the parent's is missing, as after a kill between the two.
    """
    where, fix = path_of(cell, lock.flavour), AGAIN.format(cell=cell.short)
    names = [pin.name for pin in lock.pins]
    if names != sorted(set(names)):
        raise LockError(f"{where}: its pins are not sorted, or one is there twice", fix=fix)
    for pin in sorted(set(parent.pins) - set(lock.pins), key=lambda pin: pin.name) if parent else ():
        raise LockError(f"{where} does not contain {pin.name} {pin.version} of its parent", fix=fix)
    for pin in lock.pins:
        if not resolver.fits(pin.filename, lock.python, lock.platform):
            raise LockError(f"{where}: {pin.filename} does not fit Python {lock.python} on {lock.platform}", fix=fix)


def check_versions(cell: Cell, lock: Lock, beside: Lock | None) -> None:
    """Check that the wheels of a lock have the versions that they have on the default platform; some are for one platform only.

    :param beside: the lock of the same flavour there, if the cell is on another.
    :raises LockError: one has another version.
    """
    known = {pin.name: pin.version for pin in beside.pins} if beside else {}
    for pin in lock.pins:
        if pin.version != known.get(pin.name, pin.version):
            what = f"{path_of(cell, lock.flavour)} has {pin.name} {pin.version}, and on {PLATFORM} it is {known[pin.name]}"
            raise LockError(what, fix=AGAIN.format(cell=cell.short))


def _beside(matrix: Matrix, cell: Cell, root: Path) -> dict[str, Lock]:
    """Return the locks of the default platform, by flavour, for a cell on another."""
    return {} if cell.platform == PLATFORM else _readable(matrix, cell.on(PLATFORM), root)


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

    A lock that is right stays as it is, byte for byte, and so does its date: what is locked beside it or above it sees the same files.
    The same date and the same inputs give the same bytes. One process at a time writes; others wait for it.

    :param upgrade: resolve all of them anew, at the date.
    :param exclude_newer: day or RFC 3339 time after which files are not seen, which is an upgrade to that day; by default a week
        ago, so that nothing is locked on the day of its upload.
    :param on_line: called with one line for each build and Python that is done.
    :param on_wait: called with a line if another process must be waited for; ``on_line`` if ``None``.
    """
    making = _Making(matrix=matrix, root=root, date=cut_off(exclude_newer), upgrade=upgrade or exclude_newer is not None, on_line=on_line)
    todo = sorted(_distinct(cells), key=lambda cell: cell.platform != PLATFORM)
    first = [cell for cell in todo if cell.platform == PLATFORM]
    resolver.program()
    with lockfile.writing(root / FOLDER, on_wait or on_line):  # other platforms get the versions of the default one
        results = [*_in_parallel(making, first), *_in_parallel(making, todo[len(first) :])]
    changed = [path for result in results if not isinstance(result, LockError) for path in result]
    failed: dict[str, LockError] = {}
    for cell, result in zip(todo, results, strict=True):
        if isinstance(result, LockError):
            failed.setdefault(cell.short, result)
    return Outcome(
        changed=tuple(sorted(changed)),
        unchanged=sum(len(matrix.flavours) for result in results if not isinstance(result, LockError)) - len(changed),
        failed=failed,
    )


def _in_parallel(making: _Making, cells: Sequence[Cell]) -> list[list[str] | LockError]:
    """Lock several builds and Pythons at a time; an interruption ends all that runs."""
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = [pool.submit(making.write, cell) for cell in cells]
        try:
            return [outcome.result() for outcome in outcomes]
        except BaseException:
            making.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            while wait(outcomes, WATCH).not_done:
                process.stop_all()
            raise


def _distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return one cell for each build, Python and platform."""
    return tuple({(cell.build, cell.os.python, cell.platform): cell for cell in reversed(tuple(cells))}.values())[::-1]


def cut_off(asked: str | None) -> str:
    """Return the time, to the second and in UTC, after which files are not seen.

    :raises LockError: it is no time.
    """
    try:
        today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0)
        moment = today - COOLDOWN if asked is None else dt.datetime.fromisoformat(asked)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise LockError(f"{printable(asked or '', 60)!r} is no time", fix="write a day or a time, such as 2026-11-24") from error


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
        what = f"{cell.build} {_tag(cell)}"
        try:
            locks = self._locks(cell)
        except LockError as error:
            if not self.stopped.is_set():
                self.on_line(f"{what}: {error.what}")
            return error
        changed = [where for where, text in self._texts(cell, locks) if lockfile.replaced(self.root / where, text)]
        self.on_line(f"{what}: {', '.join(f'{name} {len(lock.pins)}' for name, lock in locks.items())} wheels, {len(changed)} files changed")
        return changed

    def _texts(self, cell: Cell, locks: Mapping[str, Lock]) -> Iterator[tuple[str, str]]:
        """Yield paths and texts, parents first: after a kill those that were written are a beginning that the next run goes on from."""
        for name, lock in locks.items():
            yield path_of(cell, name), render(lock)

    def _locks(self, cell: Cell) -> dict[str, Lock]:
        """Return the locks of all flavours; each keeps its parent's pins and date."""
        before = {} if self.upgrade else _readable(self.matrix, cell, self.root)
        beside = _beside(self.matrix, cell, self.root)
        date = self.date if self.upgrade else _date(cell, before, self.root) or self.date
        locks: dict[str, Lock] = {}
        for name, flavour in self.matrix.flavours.items():
            parent = locks.get(flavour.parent or "")
            committed = before.get(name)
            is_right = committed is not None and committed.flavour == name and _is_right(cell, committed, parent, beside.get(name), self.root)
            locks[name] = committed if committed and is_right else self._lock(cell, name, parent, date, beside.get(name))
        return locks

    def _lock(self, cell: Cell, flavour: str, parent: Lock | None, date: str, beside: Lock | None) -> Lock:
        """Resolve one flavour over its parent, with the versions of the default platform."""
        if beside is None and cell.platform != PLATFORM:
            raise LockError(f"{path_of(cell.on(PLATFORM), flavour)} is missing, whose versions {cell.platform} gets", fix=AGAIN.format(cell=cell.short))
        given = beside or parent
        seen = given.exclude_newer if given else date
        requires = requirements(cell, flavour, self.root)
        pins = parent.pins if parent and not requires else self._pins(cell, flavour, parent, seen, beside)
        lock = Lock(
            build=cell.build,
            python=cell.os.python,
            flavour=flavour,
            platform=cell.platform,
            requires=requires,
            exclude_newer=seen,
            uv=resolver.version(),
            pins=pins,
        )
        check_pins(cell, lock, parent)
        check_versions(cell, lock, beside)
        return lock

    def _pins(self, cell: Cell, flavour: str, parent: Lock | None, date: str, beside: Lock | None) -> tuple[Pin, ...]:
        """Return the parent's own pins, whatever file of that version is to be had today, and what else the flavour needs."""
        if parent is None:
            return self._resolve(cell, flavour, beside.pins if beside else self._toolkit(cell, date), date)
        kept = {(pin.name, pin.version): pin for pin in parent.pins}
        wanted = beside.pins if beside else parent.pins
        return tuple(kept.get((pin.name, pin.version), pin) for pin in self._resolve(cell, flavour, wanted, date))

    def _toolkit(self, cell: Cell, date: str) -> tuple[Pin, ...]:
        """Return what the flavour without a parent must keep so that the compiler fits it.

        torch 2.15 needs CUDA header wheels without saying which version; the compiler's wheels want theirs.
        """
        return self._resolve(cell, COMPILER_FLAVOUR, (), date) if requirements(cell, COMPILER_FLAVOUR, self.root) else ()

    def _resolve(self, cell: Cell, flavour: str, kept: Sequence[Pin], date: str) -> tuple[Pin, ...]:
        """Return what a flavour and its parents need.

        :raises LockError: there is no such set of wheels, or who has them cannot be asked; names what cures it.
        """
        wanted = [line for link in self.matrix.chain(flavour) for line in requirements(cell, link, self.root)]
        if self.stopped.is_set():
            raise LockError("interrupted", fix=AGAIN.format(cell=cell.short))
        try:
            return _looked_up(cell, wanted, kept, date)
        except resolver.UnreachableError as error:
            raise LockError(f"{cell.short} cannot be locked: {error.what}", fix=f"{error.fix}, then {AGAIN.format(cell=cell.short)}") from error
        except LockError as error:
            if date == self.date or not error.what.startswith(resolver.UNSOLVABLE):
                raise
            newer = f"inv lock {cell.short} --upgrade"
            raise LockError(f"{error.what} (as of {date[:10]}, the day of its locks)", fix=f"take newer wheels: {newer}; or {error.fix}") from error


def _readable(matrix: Matrix, cell: Cell, root: Path) -> dict[str, Lock]:
    """Return the committed locks of a build and Python that are locks, by flavour, right or not."""
    return {name: lock for name in matrix.flavours if (lock := _parsed(root, path_of(cell, name)))}


def _parsed(root: Path, where: str) -> Lock | None:
    try:
        return parse(_text(root / where, where), where)
    except LockError:
        return None


def _date(cell: Cell, before: Mapping[str, Lock], root: Path) -> str | None:
    """Return the date of the locks that a build has already: on this Python, else on others, which shall get the same layers of it."""
    beside = sorted(path.relative_to(root).as_posix() for path in (root / FOLDER / cell.build).glob("cp*/*.lock"))
    found = [*before.values(), *(lock for where in beside if (lock := _parsed(root, where)))]
    return found[0].exclude_newer if found else None


def _looked_up(cell: Cell, wanted: Sequence[str], kept: Sequence[Pin], date: str) -> tuple[Pin, ...]:
    """Resolve where pip is configured to look, and if torch or its family is not there, take these from PyTorch's own index."""
    index = compat.index(cell.torch, cell.wheels)
    undated = compat.facts().upstream.packages if index else ()
    target = resolver.ResolverTarget(python=cell.os.python, platform=cell.platform, exclude_newer=date, undated=undated)
    try:
        return resolver.resolve(wanted, kept, target)
    except LockError as error:
        if index is None or not _lacks_family(error):
            raise
        if pip_config.read().no_index:
            raise LockError(f"{cell.short} {FORBIDDEN}", fix=f"{ALLOW}, then {AGAIN.format(cell=cell.short)}") from error
    upstream = resolver.NamedIndex(index=index, packages=compat.facts().upstream.packages)
    return resolver.resolve(wanted, kept, target, upstream=upstream)


def _lacks_family(error: LockError) -> bool:
    """Return whether the resolver has not found torch or one of its family, in its words."""
    family = "|".join(map(re.escape, compat.facts().upstream.packages))
    return bool(re.search(rf"no version of (?:{family})==|\b(?:{family}) was not found", error.what))
