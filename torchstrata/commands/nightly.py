"""``inv nightly`` and ``inv watchdog``: find what is new, do what follows from it, and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata import process, progress
from torchstrata.commands import actions, build, join, signatures
from torchstrata.commands.options import BuildOptions
from torchstrata.commands.release import opened
from torchstrata.commands.release_options import AttestOptions, JoinOptions, NightlyOptions, WatchdogOptions
from torchstrata.errors import LedgerConflictError, NightlyError, OsPartError, RegistryError, TorchstrataError, WatchdogError
from torchstrata.layers import os_part_builder
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell
from torchstrata.nightly import decisions, pushed_images, watchdog
from torchstrata.nightly.decisions import Look, Report, Work
from torchstrata.nightly.os_updates import News
from torchstrata.release import channels, ledger_branch
from torchstrata.release.ledger import Author, Ledger
from torchstrata.release.ledger_branch import Branch
from torchstrata.release.moves import Releases, utc
from torchstrata.release.proposals import Grounds, Origin
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store
from torchstrata.verification import suite as verification
from torchstrata.verification.request import VerifyOptions

TRIES: Final = 10
"""Times that a cell is taken into its channel, where other cells are at the same moment."""

LOCKS: Final = "locks/os"

Make = Callable[[Cell], None]
"""Does something to the images of a cell, such as to build, verify and push them."""


def run(options: NightlyOptions) -> None:
    """Look what is new, show it, and unless only the plan was asked for, do it.

    :raises NightlyError: something of it could not be done; all else is.
    """
    if options.plan or options.json:
        ledger = Branch.parse(options.ledger, ROOT).read().ledger
        _show(_look(options.cells, ledger).around(), as_json=options.json)
        return
    with opened(options, signs=True) as releases:
        makers: dict[str, Make] = {
            "push": lambda cell: push(cell, options),
            "verify": lambda cell: pushed_images.verify(releases, cell, options.flavour, lambda image: signatures.attest(AttestOptions(image=image))),
        }
        making = makers.get(options.step, lambda cell: make(cell, options))
        Night(releases=releases, globs=options.cells, make=making, commit=options.commit, sends=options.send).run(step=options.step)


def _look(globs: Sequence[str], ledger: Ledger) -> Look:
    table = matrix.load()
    return Look(matrix=table, cells=matrix.select(table, *globs), store=Store.open(), state=ledger.state, root=ROOT)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(decisions.document(report), indent=2) + "\n")
        return
    if report.news or report.patches or report.work:
        progress.say(decisions.table(report))
    progress.say(*(f"could not be asked: {line}" for line in (*report.silent, *report.failed)))
    progress.say(*(f"left out: {', '.join(cells)}: {why}" for why, cells in decisions.grouped(report.left_out).items()))
    progress.say("nothing has changed" if not report.work else f"{len(report.work)} cells to make")


@dataclass(frozen=True, kw_only=True)
class Night:
    """One run.

    :param make: what is done to a cell: all, or what the step says.
    :param commit: commit the OS locks that move.
    :param sends: push that commit to where the present branch is from.
    """

    releases: Releases
    globs: tuple[str, ...]
    make: Make
    commit: bool = False
    sends: bool = False

    def run(self, step: str = "all") -> None:
        """Do all that there is to do, or one step of :class:`torchstrata.commands.release_options.NightlyOptions`.

        :raises NightlyError: something could not be done; all else is.
        """
        started, failures = time.monotonic(), list[str]()
        if step in {"all", "locks"}:
            report = self._look_around()
            failures += [*report.failed, *self._move_locks(report), *self._pending(report)]
            if step == "locks":
                self._tell(report)
        if step in {"all", "cells"}:
            failures += self._cells(self._work())
        if step == "push":
            failures += _tried((work.cell.id, functools.partial(self.make, work.cell)) for work in self._work())
        if step == "verify":
            failures += _tried((cell.id, functools.partial(self.make, cell)) for cell in matrix.select(self.releases.matrix, *self.globs))
        if step == "publish":
            failures += _tried((work.cell.id, functools.partial(self._publish, work)) for work in self._work())
        if step in {"all", "promote"}:
            failures += self.promote()
        progress.say(f"done in {time.monotonic() - started:.1f} s")
        if failures:
            raise NightlyError(f"{len(failures)} things could not be done: {failures[0]}", fix="see above; what was done stays, and the next run does the rest")

    def _ledger(self) -> Ledger:
        return self.releases.read().ledger

    def _work(self) -> tuple[Work, ...]:
        return _look(self.globs, self._ledger()).work()

    def _look_around(self) -> Report:
        report = _look(self.globs, self._ledger()).around()
        _show(report, as_json=False)
        return report

    def _move_locks(self, report: Report) -> list[str]:
        """Move the locks of what is new; return the OSes for which that failed, and why."""
        failures = list[str]()
        written = move_locks(report.news, commit=self.commit, author=self.releases.author, on_failure=failures.append)
        if written and self.commit and self.sends:
            process.run("git", "-C", ROOT, "push", "--quiet", ledger_branch.REMOTE, "HEAD")
        return failures

    @staticmethod
    def _pending(report: Report) -> list[str]:
        """Name the updates that the locks should have by now, and do not."""
        pending = list(decisions.pending(report.news, ROOT))
        progress.say(*(f"failed: {line}" for line in pending))
        return pending

    def _tell(self, report: Report) -> None:
        """Tell GitHub Actions what other jobs are to do, and people what was found; note it if that is nothing."""
        table, cells = self.releases.matrix, [work.cell.id for work in self._work()]
        chosen = actions.tonight(cells, len(table.flavours))
        actions.output(cells=chosen, flavours=tuple(table.flavours), commit=process.run("git", "-C", ROOT, "rev-parse", "HEAD").strip())
        actions.summary(decisions.markdown(report, cells, len(cells) - len(chosen)))
        if not cells:
            self._note()

    def _note(self) -> None:
        self.releases.note(channels.entry(self.releases.matrix), "nothing has changed")

    def _cells(self, todo: Sequence[Work]) -> list[str]:
        """Make cells and take them into the channel."""
        if not todo:
            self._note()
        return _tried((work.cell.id, functools.partial(self._make_and_publish, work)) for work in todo)

    def _make_and_publish(self, work: Work) -> None:
        self.make(work.cell)
        self._publish(work)

    def _publish(self, work: Work) -> None:
        """Take what was pushed into the channel; again if other cells were taken at the same moment.

        :raises NightlyError: it may not be taken.
        """
        grounds = {work.cell.id: Grounds(why="; ".join(work.why), inputs=work.inputs)}
        for left in reversed(range(TRIES)):
            fresh = dataclasses.replace(self.releases)
            proposal = fresh.promotion([work.cell], channels.entry(fresh.matrix), Origin(channel=None), grounds=grounds)
            for refusal in proposal.refusals:
                raise NightlyError(refusal.why, fix=refusal.fix)
            try:
                fresh.carry_out(proposal)
            except LedgerConflictError:
                if not left:
                    raise
                continue
            return

    def promote(self) -> list[str]:
        """Let images that have soaked move on; return what was refused for another reason than time."""
        releases = self.releases
        cells, failures = matrix.select(releases.matrix, *self.globs), list[str]()
        for channel in releases.matrix.channels.values():
            held = [cell for cell in cells if channel.source and self._ledger().state.images(channel.source, cell.id)]
            if not held:
                continue
            proposal = releases.promotion(held, channel, releases.origin(channel, None))
            for refusal in proposal.refusals:
                progress.say(f"{channel.name}: {refusal.cell} stays: {refusal.why}")
                failures += [] if refusal.is_patience else [f"{refusal.cell}: {refusal.why}"]
            if proposal.moves:
                releases.carry_out(proposal)
                progress.say(f"{channel.name}: {', '.join(move.cell for move in proposal.moves)} moved")
        return failures


def _tried(todo: Iterable[tuple[str, Callable[[], None]]]) -> list[str]:
    """Do tasks, each about a cell, one after the other; return what failed. A failure stops none of the others."""
    failures = list[str]()
    for cell, do in todo:
        try:
            do()
        except TorchstrataError as error:
            failures.append(f"{cell}: {error.what}")
            progress.say(f"failed: {failures[-1]}")
    return failures


def move_locks(news: Sequence[News], *, commit: bool, author: Author, on_failure: process.LineSink) -> list[Path]:
    """Lock the OSes that moved anew, by building their parts; return the files that were written.

    :param commit: commit them, and nothing else, on the present branch.
    :param on_failure: gets one line for each OS of a registry that could not be locked, which keeps no other from it.
    """
    if not news:
        return []
    table, written = matrix.load(), list[Path]()
    with progress.reporter() as reporter, reporter.step("os", ", ".join(update.system.id for update in news)) as step:
        builder = OsPartBuilder(store=Store.open(), codec=Codec(), on_line=step.note)
        for together in os_part_builder.groups(update.system for update in news):
            try:
                written += builder.relock(together, *table.lines)
            except (RegistryError, OsPartError) as error:
                if together[0].bootstrap:
                    raise
                on_failure(f"{together[0].id}: {error.what}")
                reporter.say(f"failed: {together[0].id}: {error.what}")
    if commit and written:
        moved = {path.stem for path in written}
        words = "\n\n".join(f"{update.system.id}: {update}" for update in news if update.system.id in moved)
        names = ", ".join(path.stem for path in written)
        identity = ("-c", f"user.name={author.name}", "-c", f"user.email={author.email}")
        process.run("git", "-C", ROOT, *identity, "commit", "--quiet", "-m", f"Move the locks of {names} to what their mirrors offer\n\n{words}", "--", LOCKS)
    return written


def push(cell: Cell, options: NightlyOptions) -> None:
    """Push the images of a cell for each platform, without an engine where all parts exist; join those of several."""
    for platform in cell.platforms:
        build.build(cell.id, BuildOptions(locked=True, registry=options.registry, platform=platform, push=True, load=False))
    if len(cell.platforms) > 1:
        join.join(JoinOptions(cells=(cell.id,), registry=options.registry))


def make(cell: Cell, options: NightlyOptions) -> None:
    """Build the images of a cell for each platform, verify them in an engine, and push them with the results."""
    for platform in cell.platforms:
        build.build(cell.id, BuildOptions(locked=True, registry=options.registry, platform=platform))
        verification.run(cell.on(platform), Path(sys.executable), VerifyOptions(platform=platform))
    push(cell, options)


def watch(options: WatchdogOptions) -> None:
    """Look at all channels.

    :raises WatchdogError: something is wrong with one; all of it is printed.
    """
    with opened(options, signs=False) as releases:
        ledger = releases.read().ledger
        problems = watchdog.problems(releases.matrix, ledger.state, releases.images.digest, releases.images.lacking, utc())
    progress.say(*map(str, problems))
    if problems:
        raise WatchdogError(f"{len(problems)} things are wrong: {problems[0]}", fix="see docs/releasing.md, When the watchdog barks")
    progress.say(f"all is well: {len(ledger.state.tags)} tags, {len(ledger.entries)} entries")
