"""The locks under ``locks/``: reading and checking them offline, and making them.

``locks/<build>/<cpXY>/<flavour>.lock``; each contains its parent's, pin for pin.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata import files
from torchstrata.errors import LockError
from torchstrata.locks import resolver
from torchstrata.locks.lockfile import LIMIT, Lock, Pin, parse, render
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT, Cell, Matrix
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

__all__ = ["Lock", "Outcome", "Pin", "check", "own", "path_of", "read", "requirements", "write"]

FOLDER: Final = "locks"
TORCH_FLAVOUR: Final = "base"
"""The flavour that brings torch and its companions."""
COMPILER_FLAVOUR: Final = "devel"
"""The flavour that brings the CUDA compiler."""

COOLDOWN: Final = dt.timedelta(days=7)
"""Files younger than this are not locked by default: most malicious uploads are found within days."""

WORKERS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What locking did.

    :param changed: files that were written, relative to the root.
    :param unchanged: number of files that were as they should be.
    :param failed: why builds could not be locked, by short id of a cell that needs them.
    """

    changed: tuple[str, ...]
    unchanged: int
    failed: Mapping[str, LockError]


def path_of(cell: Cell, flavour: str) -> str:
    """Return the path of the lock, relative to the repository's root."""
    return f"{FOLDER}/{cell.build}/{cell.os.python_tag}/{flavour}.lock"


def requirements(cell: Cell, flavour: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return what ``flavour`` adds to its parent's requirements: pins that follow from the facts, and its ``requirements.in``."""
    path = root / "images" / flavour / "requirements.in"
    lines = _text(path, f"images/{flavour}/requirements.in").split("\n") if path.exists() else []
    written = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return (*_generated(cell, flavour), *sorted(written))


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
    fix = f"run: inv lock {cell.short}"
    if not (root / where).exists():
        raise _missing(cell, where)
    lock = parse(_text(root / where, where), where)
    _check_header(lock, where, _expected(cell, flavour, lock, root), fix)
    return lock


def _text(path: Path, where: str) -> str:
    """Return the text of a file of the checkout.

    :raises LockError: it cannot be read.
    """
    try:
        return files.text(path, LIMIT)
    except files.UnreadableError as error:
        raise LockError(error.what, fix=f"restore it: git checkout HEAD -- {where}") from error


def own(lock: Lock, parent: Lock | None) -> tuple[Pin, ...]:
    """Return the pins that ``lock`` adds to its ``parent``'s."""
    known = set(parent.pins) if parent else set()
    return tuple(pin for pin in lock.pins if pin not in known)


def _missing(cell: Cell, where: str) -> LockError:
    if compat.build(cell.torch, cell.wheels).default:
        return LockError(f"{where} is missing", fix=f"run: inv lock {cell.short}")
    return LockError(
        f"{cell.short} is not locked: its wheels are on PyTorch's own index", fix=f"lock it where pip is configured to look there: inv lock {cell.short}"
    )


def _expected(cell: Cell, flavour: str, lock: Lock, root: Path) -> Lock:
    """Return the lock as its inputs want it, with the pins that it has."""
    return Lock(
        build=cell.build,
        python=cell.os.python,
        flavour=flavour,
        platform=PLATFORM,
        requires=requirements(cell, flavour, root),
        exclude_newer=lock.exclude_newer,
        uv=lock.uv,
        pins=lock.pins,
    )


def _check_header(lock: Lock, where: str, expected: Lock, fix: str) -> None:
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
    for cell in _distinct(matrix.cells):
        paths = [path_of(cell, flavour) for flavour in matrix.flavours]
        if any((root / where).exists() for where in paths) or compat.build(cell.torch, cell.wheels).default:
            expected.update(paths)
            problems += _problems(matrix, cell, root)
    present = {str(path.relative_to(root)) for path in (root / FOLDER).glob("*/cp*/*.lock")}
    problems += [LockError(f"{where} belongs to no cell of matrix.yaml", fix="remove it") for where in sorted(present - expected)]
    return tuple(problems)


def _problems(matrix: Matrix, cell: Cell, root: Path) -> Iterator[LockError]:
    """Yield what is wrong with the locks of one cell."""
    locks: dict[str, Lock] = {}
    for name, flavour in matrix.flavours.items():
        try:
            lock = locks[name] = read(cell, name, root)
            _check_pins(lock, locks.get(flavour.parent or ""), path_of(cell, name), f"run: inv lock {cell.short}")
        except LockError as error:
            yield error


def _check_pins(lock: Lock, parent: Lock | None, where: str, fix: str) -> None:
    names = [pin.name for pin in lock.pins]
    if names != sorted(set(names)):
        raise LockError(f"{where}: its pins are not sorted, or one is there twice", fix=fix)
    lost = set(parent.pins) - set(lock.pins) if parent else ()
    for pin in lost:
        raise LockError(f"{where} does not contain {pin.name} {pin.version} of its parent", fix=fix)
    for pin in lock.pins:
        if not resolver.fits(pin.filename, lock.python, lock.platform):
            raise LockError(f"{where}: {pin.filename} does not fit Python {lock.python} on {lock.platform}", fix=fix)


def write(
    matrix: Matrix, cells: Sequence[Cell], *, exclude_newer: str | None = None, root: Path = ROOT, on_line: Callable[[str], None] = lambda _line: None
) -> Outcome:
    """Resolve and write the locks of ``cells``, every flavour of each.

    The same date and the same inputs give the same bytes.

    :param exclude_newer: day or RFC 3339 time after which files are not seen; by default a week ago, so that
        nothing is locked on the day of its upload.
    :param on_line: called with one line for each build and Python that is done.
    """
    date = cut_off(exclude_newer)
    todo = _distinct(cells)
    resolver.program()
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(functools.partial(_write_chain, matrix, exclude_newer=date, root=root, on_line=on_line), todo))
    changed = [path for result in results if not isinstance(result, LockError) for path in result]
    return Outcome(
        changed=tuple(sorted(changed)),
        unchanged=sum(len(matrix.flavours) for result in results if not isinstance(result, LockError)) - len(changed),
        failed={cell.short: result for cell, result in zip(todo, results, strict=True) if isinstance(result, LockError)},
    )


def _distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return one cell for each build and Python."""
    return tuple({(cell.build, cell.os.python): cell for cell in reversed(tuple(cells))}.values())[::-1]


def cut_off(asked: str | None) -> str:
    """Return the time, to the second and in UTC, after which files are not seen.

    :raises LockError: it is no time.
    """
    try:
        moment = dt.datetime.fromisoformat(asked) if asked else dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0) - COOLDOWN
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError) as error:
        raise LockError(f"{printable(asked or '', 60)!r} is no time", fix="write a day or a time, such as 2026-11-24") from error


def _write_chain(matrix: Matrix, cell: Cell, *, exclude_newer: str, root: Path, on_line: Callable[[str], None]) -> list[str] | LockError:
    """Lock every flavour of one build and Python; return the files that changed, or why it cannot be done."""
    try:
        locks = _resolve_chain(matrix, cell, exclude_newer, root)
    except LockError as error:
        on_line(f"{cell.build} {cell.os.python_tag}: {error.what}")
        return error
    texts = {path_of(cell, name): render(lock) for name, lock in locks.items()}
    changed = [where for where, text in texts.items() if not (root / where).exists() or (root / where).read_text() != text]
    for where in changed:
        (root / where).parent.mkdir(parents=True, exist_ok=True)
        (root / where).write_text(texts[where])
    on_line(f"{cell.build} {cell.os.python_tag}: {', '.join(f'{name} {len(lock.pins)}' for name, lock in locks.items())} wheels, {len(changed)} files changed")
    return changed


def _resolve_chain(matrix: Matrix, cell: Cell, exclude_newer: str, root: Path) -> dict[str, Lock]:
    """Return the locks of all flavours; each keeps its parent's pins."""
    locks: dict[str, Lock] = {}
    for name, flavour in matrix.flavours.items():
        parent = locks.get(flavour.parent or "")
        requires = requirements(cell, name, root)
        if parent and not requires:
            pins = parent.pins
        else:
            kept = parent.pins if parent else _toolkit(matrix, cell, exclude_newer, root)
            pins = _resolve(cell, _all_requirements(matrix, cell, name, root), kept, exclude_newer)
        lock = Lock(
            build=cell.build,
            python=cell.os.python,
            flavour=name,
            platform=PLATFORM,
            requires=requires,
            exclude_newer=exclude_newer,
            uv=resolver.version(),
            pins=pins,
        )
        _check_pins(lock, parent, path_of(cell, name), f"report it, with the output of: inv lock {cell.short}")
        locks[name] = lock
    return locks


def _toolkit(matrix: Matrix, cell: Cell, exclude_newer: str, root: Path) -> tuple[Pin, ...]:
    """Return what the flavour without a parent must keep so that the compiler fits it.

    torch 2.15 needs CUDA header wheels without saying which version; the compiler's wheels want theirs.
    """
    if not requirements(cell, COMPILER_FLAVOUR, root):
        return ()
    return _resolve(cell, _all_requirements(matrix, cell, COMPILER_FLAVOUR, root), (), exclude_newer)


def _all_requirements(matrix: Matrix, cell: Cell, flavour: str, root: Path) -> tuple[str, ...]:
    return tuple(line for link in matrix.chain(flavour) for line in requirements(cell, link, root))


def _resolve(cell: Cell, wanted: Sequence[str], kept: Sequence[Pin], exclude_newer: str) -> tuple[Pin, ...]:
    is_default = compat.build(cell.torch, cell.wheels).default
    undated = () if is_default else ("torch", "triton", *(companion.partition("==")[0] for companion in cell.companions))
    target = resolver.ResolverTarget(python=cell.os.python, platform=PLATFORM, exclude_newer=exclude_newer, undated=undated)
    try:
        return resolver.resolve(wanted, kept, target)
    except LockError as error:
        if is_default or f"no version of torch=={cell.version}+" not in error.what:
            raise
        raise LockError(
            f"{cell.short} comes from PyTorch's own index, where pip is not configured to look",
            fix=f"lock it where that index is reachable and in pip's extra-index-url: inv lock {cell.short}",
        ) from error
