"""What a person sees while work goes on: one live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table

from torchstrata.text import printable, printable_lines

PLAIN_INTERVAL: Final = 15.0
"""Seconds between two lines about the same long step where there is no terminal."""

QUIET: Final = 3.0
"""Seconds that people wait before they are told for what."""

MB: Final = 1_000_000


def ignore(*_: object) -> None:
    """Do nothing with a count of bytes, or a line, that nobody wants to see."""


def size(count: int) -> str:
    """Return a number of bytes as people read it: ``3.2 GB``, ``41 MB``, ``12 kB`` (powers of ten)."""
    for unit, name in ((1_000_000_000, "GB"), (MB, "MB"), (1_000, "kB")):
        if count >= unit:
            value = count / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"  # noqa: PLR2004  # two digits are enough to read
    return f"{count} B"


def aside(line: str) -> None:
    """Print a line on standard error: standard output may be a file that somebody wants. A live view stays below it."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it: no reason to stop
        sys.stderr.write(f"{printable(line, len(line))}\n")
        sys.stderr.flush()


@contextmanager
def overdue(line: str, after: float | None = None, say: Callable[[str], object] = aside) -> Iterator[None]:
    """Say a line if the block takes longer, since somebody may wait and not know for what.

    :param after: seconds; :data:`QUIET` if ``None``.
    """
    timer = threading.Timer(QUIET if after is None else after, say, (line,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a thread that wakes up while the interpreter ends can crash it (CPython before 3.14)


class SafeConsole(Console):
    """A console on which text from outside is only text: neither does a terminal obey it, nor is it markup of rich, nor a name of a picture (``:key:``)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something, with the characters that cannot be shown replaced."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled; rich would end the program with 1 and without a word."""
        raise  # noqa: PLE0704  # rich calls this where it has caught it


class Step(Protocol):
    """One piece of work in progress."""

    def advance(self, count: int) -> None:
        """Add ``count`` bytes to what is done."""

    def note(self, text: str) -> None:
        """Show a few words about what is going on inside the step."""


class Reporter(ABC):
    """Where progress goes; safe to use from many threads, as consoles of rich are."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Print one line that stays; a live view goes on below it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print a table or other rich value that stays."""
        self.console.print(what)

    @abstractmethod
    def step(self, verb: str, name: str, total: int | None = None) -> AbstractContextManager[Step]:
        """Open a step: ``verb`` is ``fetch``, ``convert``, ``os``, ``bytecode`` or ``load``; ``total`` is in bytes."""


class PlainReporter(Reporter):
    """Lines for logs: one when a step starts to take long, one when it has ended."""

    @contextmanager
    def step(self, verb: str, name: str, total: int | None = None) -> Iterator[Step]:
        """Run a step and print its time when it ends well."""
        step = _PlainStep(self, verb, name, total)
        yield step
        of = f", {size(total)}" if total else ""
        self.say(f"{verb:9} {name}: {time.monotonic() - step.started:.1f} s{of}")


class _PlainStep:
    def __init__(self, reporter: PlainReporter, verb: str, name: str, total: int | None) -> None:
        self.started = self._said = time.monotonic()
        self._reporter, self._verb, self._name, self._total, self._done = reporter, verb, name, total, 0

    def advance(self, count: int) -> None:
        self._done += count
        if self._total and self._due():
            self._reporter.say(f"{self._verb:9} {self._name}: {100 * self._done // self._total} %")

    def note(self, text: str) -> None:
        if self._due():
            self._reporter.say(f"{self._verb:9} {self._name}: {text}")

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._said >= PLAIN_INTERVAL
        self._said = now if due else self._said
        return due


class LiveReporter(Reporter):
    """A live view with a bar for each step that is under way; a step leaves one line when it has ended."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = Progress(
            TextColumn("[cyan]{task.fields[verb]:9}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("[dim]{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    @contextmanager
    def step(self, verb: str, name: str, total: int | None = None) -> Iterator[Step]:
        """Show a bar while the step runs."""
        started = time.monotonic()
        task = self._bars.add_task(escape(name), total=total, verb=verb, amount=size(total) if total else "")
        try:
            yield _LiveStep(self._bars, task)
        finally:
            self._bars.remove_task(task)
        of = f"  {size(total)}" if total else ""
        self.console.print(f"[green]{verb:9}[/] {escape(name)}[dim]{of}  {time.monotonic() - started:.1f} s[/]", markup=True)


class _LiveStep:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int) -> None:
        self._bars.advance(self._task, count)

    def note(self, text: str) -> None:
        self._bars.update(self._task, amount=text[:60])


def table(*headers: str, **options: Any) -> Table:
    """Return a table without rows, in the form that all of ours have."""
    return Table(*headers, header_style="bold", box=None, pad_edge=False, **options)


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console for standard output, or error, that folds no line, nor tables at 80 columns where there is no terminal."""
    console = SafeConsole(stderr=stderr, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


def say(*what: RenderableType) -> None:
    """Print lines, each whole, and tables on standard output."""
    if what:
        plain_console().print(*what, sep="\n")


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Yield a live reporter on a terminal and a plain one elsewhere (a pipe, or CI by its ``CI`` variable)."""
    console = plain_console()
    if console.is_terminal and not os.environ.get("CI"):
        with LiveReporter(SafeConsole()) as live:
            yield live
    else:
        yield PlainReporter(console)
