"""What is new since yesterday, and what that means for each cell. It asks mirrors and registries, and builds nothing.

A cell needs work if its images would be made from other inputs today than the ledger says of the channel's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.table import Table

from torchstrata import progress
from torchstrata.building.plan import ImagePlan, OsPart, Planner
from torchstrata.errors import LockError, TorchstrataError
from torchstrata.image import runtime, source
from torchstrata.locks import lock_writer, os_locks, resolver
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import Cell, Matrix, OperatingSystem, everywhere
from torchstrata.nightly import os_updates
from torchstrata.nightly.os_updates import News
from torchstrata.registry import pool
from torchstrata.release import channels
from torchstrata.release.ledger import State
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.store.store import Store

T = TypeVar("T")
R = TypeVar("R")

NAMED: Final = 6
"""Packages that one line names."""

WORDS: Final[Mapping[str, str]] = {
    "os": "OS packages",
    "payload": "wheels",
    "settings": "environment, labels or facts",
}
"""What the parts of a cell's inputs are called for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A torch of which the index has a newer patch than facts and locks: a change for a pull request."""

    torch: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A cell that is not in the channel as it would be made today.

    :param why: in words, each reason once.
    :param inputs: digests of what its images would be made from.
    """

    cell: Cell
    why: tuple[str, ...]
    inputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a look found.

    :param silent: what could not be asked, and why; one line each.
    :param failed: OSes from registries of which nobody knows whether there are fixes, and why; one line each.
    :param left_out: cells that cannot be built, and why.
    """

    news: tuple[News, ...]
    patches: tuple[Patch, ...]
    work: tuple[Work, ...]
    left_out: Mapping[str, str]
    silent: tuple[str, ...]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look at the cells of the matrix.

    :param state: what the ledger says.
    :param root: the checkout.
    """

    matrix: Matrix
    cells: Sequence[Cell]
    store: Store
    state: State
    root: Path

    def around(self) -> Report:
        """Ask mirrors, index and registries at the same time, and return what is new.

        :raises NightlyError: the mirrors of an OS have no answer, without which nobody knows whether there are fixes.
        """
        resolver.program()
        systems = {cell.os.id: cell.os for cell in self.cells}
        with pool.threads("ask", pool.QUESTIONS) as threads:
            news = [threads.submit(mirrors.news, lock) for mirrors, lock in self._mirrors(systems)]
            patches = [threads.submit(_asked, _patch, cell) for cell in _one_of_each_torch(self.cells)]
            images = [threads.submit(_asked, self._image_news, mirrors) for mirrors in os_updates.of_images(systems, self.root)]
            made = list(threads.map(self._made_from, self.cells))
            heard = [future.result() for future in patches]
            answers: list[News | str] = [*(future.result() for future in news), *(future.result() for future in images)]
        moved = {answer.system.id: answer for answer in answers if not isinstance(answer, str) and answer}
        good = {cell: inputs for cell, inputs in zip(self.cells, made, strict=True) if not isinstance(inputs, str)}
        return Report(
            news=tuple(moved.values()),
            patches=tuple(answer for answer in heard if isinstance(answer, Patch)),
            work=tuple(work for cell, inputs in good.items() if (work := self._work(cell, inputs, moved.get(cell.os.id)))),
            left_out={cell.id: inputs for cell, inputs in zip(self.cells, made, strict=True) if isinstance(inputs, str)},
            silent=tuple(answer for answer in heard if isinstance(answer, str)),
            failed=tuple(answer for answer in answers if isinstance(answer, str)),
        )

    def _image_news(self, of: os_updates.ImageMirrors) -> News:
        return of.news(os_locks.read(of.system, self.root))

    def _mirrors(self, systems: Mapping[str, OperatingSystem]) -> Iterator[tuple[os_updates.Mirrors, OsLock]]:
        for mirrors in os_updates.folders(self.store.root, systems):
            yield mirrors, os_locks.read(mirrors.system, self.root)

    def work(self) -> tuple[Work, ...]:
        """Return the cells that need work as the locks are, without asking anybody."""
        made_from = [(cell, self._made_from(cell)) for cell in self.cells]
        return tuple(work for cell, inputs in made_from if not isinstance(inputs, str) and (work := self._work(cell, inputs, None)))

    def _made_from(self, cell: Cell) -> dict[str, str] | str:
        """Return digests of what the images of a cell would be made from, or why they cannot be made."""
        try:
            return inputs(self.matrix, cell, self.store, self.root)
        except LockError as error:
            return error.what

    def _work(self, cell: Cell, made_from: Mapping[str, str], news: News | None) -> Work | None:
        entry = self.state.current.get((channels.entry(self.matrix).name, cell.id))
        why = ["its OS image moved"] if news and news.base else []
        why += [f"{len(news.moves)} OS packages moved"] if news and news.moves else []
        if entry is None:
            why.append("it is not in the channel yet")
        elif not entry.inputs:
            why.append("it came into the channel by hand")
        else:
            moved = [WORDS.get(name, name) for name in made_from if made_from[name] != entry.inputs.get(name)]
            why += [f"{', '.join(moved)} changed since {entry.time[:10]}"] if moved else []
        return Work(cell=cell, why=tuple(why), inputs=made_from) if why else None


def grouped(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """Return cells by the reason why they are left out."""
    cells: dict[str, list[str]] = {}
    for cell, why in left_out.items():
        cells.setdefault(why, []).append(cell)
    return cells


def pending(news: Sequence[News], root: Path) -> tuple[str, ...]:
    """Return a line for each OS whose lock, though it was to be locked anew, has versions that are replaced."""
    lines = list[str]()
    for update in news:
        name, lock = update.system.id, os_locks.read(update.system, root)
        installed = _all(lock)
        old = [move for move in update.moves if move.locked and installed.get(move.package) == move.locked]
        if old:
            lines.append(f"{name}: updates are pending that its lock does not have: {os_locks.in_short(old)}")
        if update.base and lock.image == update.base.old:
            lines.append(f"{name}: its lock still has the old OS image: {update.base}")
    return tuple(lines)


def _all(lock: OsLock) -> Mapping[str, str]:
    return lock.installed(section for section in lock.sections if section != os_locks.OS_IMAGE)


def words(news: News) -> str:
    """Return what moved on an OS in one line: its image, fixes of security, other packages."""
    base = f"OS image {news.base}" if news.base else ""
    if not news.moves:
        return base
    named = str(dataclasses.replace(news, base=None)).split(", ")
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    fixes = f", {len(news.fixes)} of them for security" if news.fixes else ""
    packages = f"{len(news.moves)} OS packages{fixes}: {', '.join(named[:NAMED])}{more}"
    return f"{base}; {packages}" if base else packages


def inputs(matrix: Matrix, cell: Cell, store: Store, root: Path) -> dict[str, str]:
    """Return digests of all that the images of ``cell`` are made from on its platforms: OS parts, payload and settings.

    :raises LockError: it is not locked.
    """
    planner = Planner(matrix=matrix, store=store, codec=Codec())
    images = planner.plan(everywhere([cell]), list(matrix.flavours)).images
    items = {item.identity: item for item in chain.from_iterable(image.items for image in images)}
    return {
        "os": _digest([identity for identity, item in items.items() if isinstance(item.source, OsPart)]),
        "payload": _digest([identity for identity, item in items.items() if not isinstance(item.source, OsPart)]),
        "settings": _digest([_settings(matrix, image, root) for image in images]),
    }


def _settings(matrix: Matrix, image: ImagePlan, root: Path) -> Any:
    """Return what :meth:`torchstrata.building.assembly.Builder.assemble` puts around the parts of an image."""
    lineage = matrix.lineage(image.flavour)
    told = runtime.describe(image.cell, lineage, image.lock, source.revision(image.cell, image.lineage, root))
    files = runtime.files(told, image.lock, runtime.alternatives(matrix, image.cell), lineage) | runtime.python_start(image.cell, image.lineage)
    return [dataclasses.asdict(told), files, image.cell.named]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _asked(question: Callable[[T], R], about: T) -> R | str:
    """Return the answer, or in one line why there is none: a question for a pull request may wait until tomorrow."""
    try:
        return question(about)
    except TorchstrataError as error:
        return error.what


def _one_of_each_torch(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return a cell for each torch that is on the package index, where patches can be looked for."""
    return tuple({cell.torch: cell for cell in cells if compat.build(cell.torch, cell.wheels).default}.values())


def _patch(cell: Cell) -> Patch | None:
    """Return the newest patch of a cell's torch that is old enough to be locked; ``None`` if that one is locked."""
    target = resolver.ResolverTarget(python=cell.os.python, platform=PLATFORM, exclude_newer=lock_writer.cut_off(None), undated=())
    (pin,) = resolver.resolve([f"torch=={cell.torch}.*"], (), target, alone=True)
    return Patch(torch=cell.torch, old=cell.version, new=pin.version) if pin.version != cell.version else None


def table(report: Report) -> Table:
    """Return what was found for people."""
    view = progress.table("what", "found", "so")
    for news in report.news:
        view.add_row(news.system.id, words(news), "its lock moves, its OS parts are built")
    for patch in report.patches:
        view.add_row(f"torch {patch.torch}", f"{patch.old} -> {patch.new}", "a pull request: facts and locks")
    for work in report.work:
        view.add_row(work.cell.id, "; ".join(work.why), "compose, verify, push")
    return view


def markdown(report: Report, cells: Sequence[str], later: int = 0) -> str:
    """Return what was found for the summary of a run.

    :param cells: those to make.
    :param later: how many of them have to wait for the next run.
    """
    lines = [f"- **{news.system.id}**: {words(news)}; its lock has moved" for news in report.news]
    lines += [f"- torch {patch.torch}: {patch.old} -> {patch.new} is out; facts and locks need a pull request" for patch in report.patches]
    lines += [f"- could not be asked: {line}" for line in (*report.silent, *report.failed)]
    lines += [f"- to make: {', '.join(cells)}" + (f"; the last {later} of them in the next run" if later else "")] if cells else ["- nothing to make"]
    return "\n".join(("### What is new", "", *lines))


def document(report: Report) -> dict[str, Any]:
    """Return what was found for programs; ``cells`` are the ids of those that need work."""
    return {
        "cells": [work.cell.id for work in report.work],
        "why": {work.cell.id: list(work.why) for work in report.work},
        "os": {news.system.id: {"moves": list(map(str, news.moves)), "security": [move.package for move in news.fixes]} for news in report.news},
        "patches": {patch.torch: [patch.old, patch.new] for patch in report.patches},
        "bases": {news.system.id: [news.base.old, news.base.new] for news in report.news if news.base},
        "left_out": dict(report.left_out),
        "silent": list(report.silent),
        "failed": list(report.failed),
    }
