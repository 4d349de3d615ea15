"""The locks of wheels under ``locks/``: reading and checking them, offline.

``locks/<build>/<cpXY>/<flavour>.lock``; each contains its parent's, pin for pin. Those of another platform lie
beside, as in ``cp313-arm64``: the same versions, which :func:`check` holds them to, as other files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from torchstrata import files, platforms
from torchstrata.errors import LockError
from torchstrata.locks import resolver
from torchstrata.locks.lockfile import LIMIT, Lock, Pin, parse
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import ROOT, Cell, Matrix, everywhere
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

FOLDER: Final = "locks"
TORCH_FLAVOUR: Final = "base"
"""The flavour that brings torch and its companions."""
COMPILER_FLAVOUR: Final = "devel"
"""The flavour that brings the CUDA compiler."""

COMPANIONS: Final = ("torchvision", "torchaudio")
"""What follows torch, and not every cell has."""

EXTRA: Final = re.compile(r'extra == "(?P<companion>[a-z]+)"')
"""A marker that says for which cells a requirement is; the resolver never sees it."""

FIX: Final = "run: inv lock {cell}"


def path_of(cell: Cell, flavour: str) -> str:
    """Return the path of the lock, relative to the repository's root."""
    return f"{FOLDER}/{cell.build}/{tag(cell)}/{flavour}.lock"


def tag(cell: Cell) -> str:
    """Return what the locks of a cell's Python and platform lie below: ``cp313``, or ``cp313-arm64``."""
    return f"{cell.os.python_tag}{platforms.suffix(cell.platform)}"


def requirements(cell: Cell, flavour: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return what ``flavour`` adds to its parent's requirements: pins from the facts, and its ``requirements.in``.

    A line there whose marker is ``extra == "torchvision"`` is for cells with that companion of torch.

    :raises LockError: a line there is no requirement as PEP 508 has it, or its extra names no companion.
    """
    where = f"images/{flavour}/requirements.in"
    path = root / where
    lines = _text(path, where).split("\n") if path.exists() else []
    written = [_requirement(line.strip(), where) for line in lines if line.strip() and not line.startswith("#")]
    present = {Requirement(pin).name for pin in cell.companions}
    return (*_generated(cell, flavour), *sorted(line for line, companion in written if not companion or companion in present))


def _requirement(line: str, where: str) -> tuple[str, str]:
    """Return a requirement without its extra, and the companion that this names, empty where it has none.

    The resolver gets it as one of a project, where pip's options mean nothing.
    """
    try:
        requirement = Requirement(line)
        if requirement.url:
            raise InvalidRequirement("builds look for wheels by name and version")
    except InvalidRequirement as error:
        raise LockError(f"{where}: not a requirement: {printable(line, 60)}", fix="write NAME, or NAME and versions, such as numpy<3") from error
    marker = str(requirement.marker or "")
    if "extra" not in marker:
        return line, ""
    companion = EXTRA.fullmatch(marker)
    if not companion or companion["companion"] not in COMPANIONS:
        fix = f'write extra == "NAME" and no other marker; NAME is one of {", ".join(COMPANIONS)}'
        raise LockError(f"{where}: not for cells with a companion of torch: {printable(line, 60)}", fix=fix)
    requirement.marker = None
    return str(requirement), companion["companion"]


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
        is_upstream = compat.index(cell.torch, cell.wheels) is not None and missing(cell, (TORCH_FLAVOUR,), root)  # torch alone is there
        what = f"{cell.short} is not locked: its wheels are on PyTorch's own index" if is_upstream else f"{where} is missing"
        raise LockError(what, fix=FIX.format(cell=cell.short))
    try:
        lock = parse(_text(root / where, where), where)
    except LockError as error:
        raise LockError(error.what, fix=FIX.format(cell=cell.short)) from error
    check_inputs(cell, flavour, lock, root)
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


def check_inputs(cell: Cell, flavour: str, lock: Lock, root: Path) -> None:
    """Check that a lock is made from what its cell and flavour ask for now.

    :raises LockError: it is not; says which input moved.
    """
    where, fix = path_of(cell, flavour), FIX.format(cell=cell.short)
    header = {"build": cell.build, "python": cell.os.python, "flavour": flavour, "platform": cell.platform}
    for field, wanted in header.items():
        if getattr(lock, field) != wanted:
            raise LockError(f"{where} is the lock of {field} {getattr(lock, field)}, not {wanted}", fix=fix)
    required = requirements(cell, flavour, root)
    if lock.requires != required:
        raise LockError(f"{where} no longer matches its inputs: {_difference(lock.requires, required)}", fix=fix)


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
    for cell in distinct(everywhere(matrix.cells)):
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
        cure = f"run: rm -r {shlex.quote(beside)}" if is_whole else f"run: rm {shlex.quote(where)}"
        yield LockError(f"{where} belongs to no cell of matrix.yaml", fix=cure)


def _problems(matrix: Matrix, cell: Cell, root: Path) -> Iterator[LockError]:
    """Yield what is wrong with the locks of one cell."""
    locks: dict[str, Lock] = {}
    beside = on_default_platform(matrix, cell, root)
    for name, flavour in matrix.flavours.items():
        try:
            lock = locks[name] = read(cell, name, root)
            check_pins(cell, lock, locks.get(flavour.parent or ""))
            check_versions(cell, lock, beside.get(name))
        except LockError as error:
            yield error


def check_pins(cell: Cell, lock: Lock, parent: Lock | None) -> None:
    """Check the wheels of a lock.

    :raises LockError: one does not fit its Python, is there twice, or one of the parent's is missing.
    """
    where, fix = path_of(cell, lock.flavour), FIX.format(cell=cell.short)
    names = [pin.name for pin in lock.pins]
    if names != sorted(set(names)):
        raise LockError(f"{where}: its pins are not sorted, or one is there twice", fix=fix)
    for pin in sorted(set(parent.pins) - set(lock.pins), key=lambda pin: pin.name) if parent else ():
        raise LockError(f"{where} does not contain {pin.name} {pin.version} of its parent", fix=fix)
    for pin in lock.pins:
        if not resolver.fits(pin.filename, lock.python, lock.platform):
            raise LockError(f"{where}: {pin.filename} does not fit Python {lock.python} on {lock.platform}", fix=fix)


def check_versions(cell: Cell, lock: Lock, beside: Lock | None) -> None:
    """Check that wheels have the versions of the default platform; some are for one platform only.

    :param beside: the lock of the same flavour there, if the cell is on another.
    :raises LockError: one has another version.
    """
    known = {pin.name: pin.version for pin in beside.pins} if beside else {}
    for pin in lock.pins:
        if pin.version != known.get(pin.name, pin.version):
            what = f"{path_of(cell, lock.flavour)} has {pin.name} {pin.version}, and on {PLATFORM} it is {known[pin.name]}"
            raise LockError(what, fix=FIX.format(cell=cell.short))


def on_default_platform(matrix: Matrix, cell: Cell, root: Path) -> dict[str, Lock]:
    """Return the locks of the default platform, by flavour, for a cell on another."""
    return {} if cell.platform == PLATFORM else readable(matrix, cell.on(PLATFORM), root)


def distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return one cell for each build, Python and platform."""
    return tuple({(cell.build, cell.os.python, cell.platform): cell for cell in reversed(tuple(cells))}.values())[::-1]


def readable(matrix: Matrix, cell: Cell, root: Path) -> dict[str, Lock]:
    """Return the committed locks of a build and Python that are locks, by flavour, right or not."""
    return {name: lock for name in matrix.flavours if (lock := parsed(root, path_of(cell, name)))}


def parsed(root: Path, where: str) -> Lock | None:
    """Return the lock in a file of the checkout; ``None`` if there is none that can be read."""
    try:
        return parse(_text(root / where, where), where)
    except LockError:
        return None
