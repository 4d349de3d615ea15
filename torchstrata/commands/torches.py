"""``inv add-torch`` and ``inv drop-torch``: a torch in facts, ``matrix.yaml`` and README, from what indexes publish."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from torchstrata import files, progress
from torchstrata.commands.options import AddTorchOptions, DropTorchOptions
from torchstrata.errors import MatrixError
from torchstrata.host.filesystem import disk
from torchstrata.layers import torch_facts
from torchstrata.layers.torch_facts import Told
from torchstrata.locks import lockfile, wheel_locks
from torchstrata.matrix import compat, entries, matrix
from torchstrata.matrix.compat import TorchRelease
from torchstrata.matrix.matrix import Matrix
from torchstrata.text import printable
from torchstrata.verification import size_budget

FACTS: Final = compat.FACTS.relative_to(matrix.ROOT)
ROWS: Final = Path(matrix.MATRIX.name)
README: Final = Path("README.md")

HIDDEN: Final = ".dropped-"
"""Begins the name of a directory of locks until all else has been dropped."""

COMPARED: Final = ("version", "released", "git", "pythons", "glibc", "triton", "torchvision", "torchaudio", "cuda_toolkit")
COMPARED_OF_BUILD: Final = ("cuda", "architectures", "cudnn", "nccl", "pythons")
"""Facts that people and :mod:`torchstrata.layers.torch_facts` read from the same places."""

Texts = Mapping[Path, str]
"""Files of the checkout, and what they have."""


def add(options: AddTorchOptions, root: Path = matrix.ROOT) -> None:
    """Add a torch, or another build of one; without ``yes`` only show what would change.

    :raises MatrixError: there is no such torch or build, the matrix has it on other OSes, or something must be told.
    :raises FetchError: an index does not answer.
    :raises IntegrityError: an index has a wheel that is not what its name says.
    """
    told, before = _told(options), _texts(root)
    with compat.supposing(compat.of(before[FACTS].encode())):
        variant = options.cuda or _default(options.torch)
        there = variant is not None and _is_there(matrix.of(before[ROWS], root), options, variant)
        after, variant = (before, variant) if there else _added(before, options, told, root)
    with compat.supposing(compat.of(after[FACTS].encode())):
        after = {**after, README: entries.with_table(after[README], matrix.of(after[ROWS], root))}
    short = f"{options.torch}-{variant}"
    if after == before:
        progress.say(f"{short} is there already: nothing to do")
    elif _done(root, before, after, (), yes=options.yes):
        progress.say(f"{short} is added. `inv lock {short}`, or the first `nox -s build-{short}`, locks its wheels; then try it: docs/adding.md")


def drop(options: DropTorchOptions, root: Path = matrix.ROOT) -> None:
    """Take out all rows of a torch, their locks, what their images weigh, and the facts that :func:`add` has brought; or only show that.

    :raises MatrixError: it has no row, or others need it.
    """
    before = _texts(root)
    facts = compat.of(before[FACTS].encode())
    with compat.supposing(facts):
        table = matrix.of(before[ROWS], root)
        mine = [cell for cell in table.cells if cell.torch == options.torch]
        builds = {cell.build for cell in mine} - {cell.build for cell in table.cells if cell.torch != options.torch}
    sized = size_budget.without(table, {cell.weighed for cell in matrix.everywhere(mine)}, root)
    if not mine:
        near = difflib.get_close_matches(options.torch, {cell.torch for cell in table.cells}, cutoff=0.0)
        raise MatrixError(f"matrix.yaml has no row of torch {options.torch}", fix=f"nearest: {', '.join(near)}")
    is_read = facts.torch[options.torch].read is not None
    after = {
        FACTS: entries.without_facts(before[FACTS], options.torch) if is_read else before[FACTS],
        ROWS: entries.without_rows(before[ROWS], options.torch),
        README: entries.without_lines(before[README], {cell.short for cell in mine}),
    }
    with compat.supposing(compat.of(after[FACTS].encode())):
        matrix.of(after[ROWS], root)
    folders = [folder for build in sorted(builds) if (folder := root / wheel_locks.FOLDER / build).is_dir()]
    before = {**before, **{path: text for path, (text, _) in sized.items()}}
    after = {**after, **{path: text for path, (_, text) in sized.items()}}
    if _done(root, before, after, folders, yes=options.yes):
        progress.say(f"torch {options.torch} is dropped{'' if is_read else '; its facts stay, since people have established them'}")


def _told(options: AddTorchOptions) -> Told:
    """Return the facts that were told.

    :raises MatrixError: words mean nothing.
    """
    if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", options.torch):
        raise MatrixError(f"{printable(options.torch, 60)} is no minor version of torch", fix="write major and minor version, such as 2.9")
    if options.cuda and not re.fullmatch(r"cpu|cu[0-9]{3}", options.cuda):
        raise MatrixError(f"{printable(options.cuda, 60)} is no build of torch", fix="write its CUDA without the dot, such as cu128, or cpu")
    architectures = tuple((options.architectures or "").replace(",", " ").split())
    if wrong := [architecture for architecture in architectures if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", architecture)]:
        raise MatrixError(f"{printable(wrong[0], 60)} is no architecture", fix='write compute capabilities, such as --architectures "7.5 8.0 9.0"')
    if bool(architectures) != bool(options.source):
        raise MatrixError("architectures are told with their source", fix='write --architectures "7.5 8.0 9.0" --source "RELEASE.md of torch 2.16"')
    return Told(architectures=architectures, source=options.source, released=_day(options.released))


def _day(text: str | None) -> str | None:
    try:
        return dt.date.fromisoformat(text).isoformat() if text else None
    except ValueError as error:
        raise MatrixError(f"{printable(text or '', 60)} is no day", fix="write it as 2026-10-28") from error


def _default(torch: str) -> str | None:
    """Return the build that the default index carries, if the facts know the torch."""
    release = compat.facts().torch.get(torch)
    return next((name for name, build in release.builds.items() if build.default), None) if release else None


def _is_there(table: Matrix, options: AddTorchOptions, variant: str) -> bool:
    """Return whether the matrix has a build.

    :raises MatrixError: on other OSes than those that were asked for.
    """
    short = f"{options.torch}-{variant}"
    systems = [cell.os.id for cell in table.cells if cell.short == short]
    if systems and options.os and list(options.os) != systems:
        raise MatrixError(f"matrix.yaml has {short} already, on {', '.join(systems)}", fix="change the `os` of its row there")
    return bool(systems)


def _added(before: Texts, options: AddTorchOptions, told: Told, root: Path) -> tuple[Texts, str]:
    """Return the facts and the matrix with a torch, and its build."""
    known = compat.facts().torch.get(options.torch)
    if known and options.cuda:
        _check_build(known, options)
    release = torch_facts.look(options.torch, None if known else options.cuda, told)
    if known:
        _compare(known, release)
    facts = before[FACTS] if known else entries.with_facts(before[FACTS], options.torch, release)
    variant = options.cuda or next(name for name, build in (known or release).builds.items() if build.default)
    with compat.supposing(compat.of(facts.encode())):
        table = matrix.of(before[ROWS], root)
        if _is_there(table, options, variant):  # somebody has written the row, and lacks the facts
            return {**before, FACTS: facts}, variant
        systems = options.os or _fitting(table, options.torch, variant)
        is_first = all(cell.torch != options.torch for cell in table.cells)
        rows = entries.with_row(before[ROWS], options.torch, variant, systems, default=is_first)
        matrix.of(rows, root)
    return {**before, FACTS: facts, ROWS: rows}, variant


def _check_build(known: TorchRelease, options: AddTorchOptions) -> None:
    """Refuse a build that the facts do not know; those that the command has brought know one at a time.

    :raises MatrixError: always then.
    """
    try:
        compat.build(options.torch, str(options.cuda))
    except MatrixError as error:
        if known.read is None:
            raise
        anew = f"inv drop-torch {options.torch} --yes && inv add-torch {options.torch} --cuda {options.cuda} --yes"
        raise MatrixError(error.what, fix=f"{error.fix}, or look for it: {anew}") from error


def _compare(known: TorchRelease, read: TorchRelease) -> None:
    """Say where facts that people have established are not what indexes say today; they stay."""
    default = next(iter(name for name, build in read.builds.items() if build.default))
    pairs = [(name, getattr(known, name), getattr(read, name)) for name in COMPARED]
    pairs += [(f"{default} {name}", getattr(known.builds.get(default), name, None), getattr(read.builds[default], name)) for name in COMPARED_OF_BUILD]
    for name, ours, theirs in pairs:
        if ours != theirs:
            progress.say(f"facts of torch {known.version}: {name} is {_shown(ours)}, and indexes say {_shown(theirs)}; what the facts say stays")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fitting(table: Matrix, torch: str, variant: str) -> list[str]:
    """Return the OSes that somebody has verified and that have a Python and a glibc for which there are wheels."""
    release = compat.torch(torch)
    pythons = compat.build(torch, variant).pythons or release.pythons
    able = [system for system in table.systems.values() if system.python in pythons and compat.at_least(system.glibc, release.glibc)]
    verified = [system.id for system in able if system.verified]
    if not verified:
        raise MatrixError(f"torch {torch} has wheels for Python {', '.join(pythons)}, and no verified OS has one", fix="name one with --os, or add one")
    return verified


def _texts(root: Path, paths: Iterable[Path] = (FACTS, ROWS, README)) -> Texts:
    try:
        return {path: files.text(root / path, compat.LIMIT) for path in paths}
    except files.UnreadableError as error:
        raise MatrixError(error.what, fix=error.fix) from error


def _done(root: Path, before: Texts, after: Texts, folders: Sequence[Path], *, yes: bool) -> bool:
    """Show what changes, and if ``yes`` write it, all or nothing; return whether it was written."""
    for path, text in after.items():
        lines = difflib.unified_diff(before[path].splitlines(), text.splitlines(), f"a/{path}", f"b/{path}", lineterm="")
        progress.say(*lines)
    progress.say(*(f"{folder.relative_to(root)}/ goes" for folder in folders))
    if not yes:
        progress.say("nothing is written without --yes")
        return False
    with lockfile.writing(root / wheel_locks.FOLDER, progress.say):
        if _texts(root, before) != before:
            raise MatrixError(f"somebody has changed one of {', '.join(map(str, before))} meanwhile", fix="run it again")
        _write(root, before, after, folders)
    return True


def _write(root: Path, before: Texts, after: Texts, folders: Sequence[Path]) -> None:
    """Write all files and remove directories; what fails leaves everything as it was."""
    for left in (root / wheel_locks.FOLDER).glob(f"{HIDDEN}*"):  # by a run that was killed
        _remove(left)
    hidden = [(folder, folder.with_name(f"{HIDDEN}{folder.name}")) for folder in folders]
    try:
        for path, text in after.items():
            lockfile.replaced(root / path, text)
        for folder, aside in hidden:
            with disk(folder, lockfile.OTHER_CHECKOUT):
                folder.rename(aside)
    except BaseException:
        for path, text in before.items():
            lockfile.replaced(root / path, text)
        for folder, aside in hidden:
            if aside.exists():
                aside.rename(folder)
        raise
    for _, aside in hidden:
        _remove(aside)


def _remove(folder: Path) -> None:
    with disk(folder, lockfile.OTHER_CHECKOUT):
        shutil.rmtree(folder)
