"""The verb ``inv lock``: exact versions of wheels, OS packages, the CUDA compiler and this program's needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import msgspec.structs

from torchstrata import platforms, progress
from torchstrata.commands.options import LockOptions
from torchstrata.errors import LockError, OsPartError, RegistryError, TorchstrataError
from torchstrata.layers import os_part_builder, toolchain_lock
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.locks import lock_writer, os_locks, requirements, wheel_locks
from torchstrata.matrix import compat, matrix
from torchstrata.matrix.matrix import Matrix
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.store.store import Store


def run(options: LockOptions) -> None:
    """Write the locks that were asked for, or check all of them.

    :raises LockError: one cannot be written, or does not match its inputs.
    """
    if options.check:
        check_locks(options.cells)
    elif options.os:
        lock_systems(options.cells, PLATFORM if options.platform is None else options.platform)
    elif options.toolchain:
        lock_toolchains(options.exclude_newer)
    elif options.tool:
        lock_tool(options.exclude_newer)
    else:
        lock(options.cells, options.exclude_newer, upgrade=options.upgrade, platform=options.platform)


def lock(globs: Sequence[str], exclude_newer: str | None, *, upgrade: bool, platform: str | None = None) -> None:
    """Resolve and write the locks that are missing or stale; a short id means all OSes of its row.

    :param upgrade: resolve those that are right, too, to get newer versions.
    :param platform: only that one; all on which rows are offered if ``None``.
    :raises LockError: a cell that was asked for, or of the default index, cannot be resolved; others are written.
    """
    table = matrix.load()
    cells = [cell for cell in matrix.everywhere(matrix.select_rows(table, *globs)) if platform in {None, cell.platform}]
    if platform is not None and not cells:
        matrix.select_on(table, platform, *globs)
    outcome = lock_writer.write(table, cells, upgrade=upgrade, exclude_newer=exclude_newer, on_line=progress.say)
    apart = [] if globs else [name for name in outcome.failed if _is_elsewhere(table, name)]
    failed = [error for name, error in outcome.failed.items() if name not in apart]
    progress.say(f"{len(outcome.changed)} locks written, {outcome.unchanged} unchanged, {len(failed)} builds failed")
    for name in apart:
        progress.say(f"{name} is left out: its wheels are only on PyTorch's own index, which does not answer here; `inv lock {name}` asks again")
    if failed:
        raise failed[0]


def _is_elsewhere(table: Matrix, name: str) -> bool:
    """Return whether the wheels of a cell are only on PyTorch's own index, which a run over all cells may not reach."""
    return all(not compat.build(cell.torch, cell.wheels).default for cell in matrix.select(table, name))


def lock_systems(globs: Sequence[str], platform: str = PLATFORM) -> None:
    """Ask registries and apt about the OSes of the cells that match; write the locks of those in which something moved.

    One that cannot be locked does not keep the others from it.

    :param globs: names of OSes, ids of cells or globs on these; all OSes if there are none.
    :raises PlatformError: no platform is called so.
    :raises TorchstrataError: the first that could not be locked; all are printed.
    """
    platforms.check(platform)
    table, failed = matrix.load(), list[TorchstrataError]()
    systems = [msgspec.structs.replace(system, platform=platform) for system in matrix.select_systems(table, *globs)]
    with progress.reporter() as reporter:
        written = list[Path]()
        for together in os_part_builder.groups(systems):
            names = ", ".join(system.name for system in together)
            try:
                with reporter.step("os", names) as step:
                    builder = OsPartBuilder(store=Store.open(), codec=Codec(), on_line=step.note)
                    written += builder.relock(together, *table.lines)
            except (RegistryError, OsPartError) as error:
                reporter.say(f"{names}: not locked: {error.what}")
                failed.append(error)
        for path in written:
            reporter.say(f"{path.relative_to(matrix.ROOT)} written")
        reporter.say(f"{len(written)} of {len(systems)} OS locks moved")
    if failed:
        raise failed[0]


def lock_toolchains(exclude_newer: str | None) -> None:
    """Lock what CUDA families have besides wheels."""
    with progress.reporter() as reporter:
        for name, platform in _toolchains(matrix.load()):
            changed = toolchain_lock.write(name, lock_writer.cut_off(exclude_newer), platform=platform, on_line=reporter.say)
            reporter.say(f"{toolchain_lock.place(name, platform)} {'written' if changed else 'unchanged'}")


def _toolchains(table: Matrix) -> list[tuple[str, str]]:
    """Return the name and the platform of each lock below ``locks/toolchain`` that cells need."""
    cells = matrix.everywhere(table.cells)
    return sorted({(cell.facts.nvcc.lock, cell.platform) for cell in cells if cell.facts.nvcc and cell.facts.nvcc.lock})


def lock_tool(exclude_newer: str | None) -> None:
    """Lock what this program itself needs.

    :raises LockError: there is no set of wheels with everything that pyproject.toml names.
    """
    changed = requirements.write(lock_writer.cut_off(exclude_newer))
    progress.say(*(f"{name} {'written' if name in changed else 'unchanged'}" for name in requirements.LOCKS))


def check_locks(globs: Sequence[str] = ()) -> None:
    """Check every committed lock against its inputs, offline; one holds only where all do: else strays go unseen.

    :param globs: ids of cells, which must exist.
    :raises MatrixError: one names nothing.
    :raises LockError: the first that is wrong; all are printed.
    """
    table = matrix.load()
    matrix.select_rows(table, *globs)
    pairs = itertools.product(table.systems.values(), platforms.MACHINES)
    systems = [msgspec.structs.replace(system, platform=platform) for system, platform in pairs]
    problems = [*wheel_locks.check(table), *os_locks.check(systems), *_check_toolchains(table), *requirements.check()]
    for what in dict.fromkeys(problem.what for problem in problems):  # a line of requirements.in is in many locks
        progress.plain_console(stderr=True).print(what)
    if problems:
        raise LockError(f"{len(problems)} locks do not match their inputs", fix=_cures(problems))
    progress.say("all locks match their inputs")


def _check_toolchains(table: Matrix) -> Iterator[LockError]:
    for name, platform in _toolchains(table):
        try:
            toolchain_lock.read(name, platform=platform)
        except LockError as error:
            yield error


def _cures(problems: Sequence[LockError]) -> str:
    """Return what cures them all, as one line for a shell where commands do."""
    cures = list(dict.fromkeys(problem.fix for problem in problems))
    if not all(cure.startswith("run: ") for cure in cures):
        return "; ".join(cures)
    return f"run: {' && '.join(cure.removeprefix('run: ') for cure in cures)}"
