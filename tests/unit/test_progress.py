"""Progress: sizes that people read, and plain lines where there is no terminal."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.waiting import PATIENCE
from torchstrata import progress


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12_000, "12 kB"), (1_500_000, "1.5 MB"), (41_000_000, "41 MB"), (3_200_000_000, "3.2 GB"), (14_000_000_000, "14 GB")],
)
def test_size_is_short(count: int, text: str) -> None:
    """Two digits and a unit are enough to compare."""
    assert progress.size(count) == text


def test_plain_reporter_prints_one_line_per_finished_step() -> None:
    """Logs get a line with verb, name, time and size."""
    out = io.StringIO()
    with progress.PlainReporter(Console(file=out, width=120)).step("fetch", "torch", 888_000_000) as step:
        step.advance(888_000_000)
    assert out.getvalue().startswith("fetch     torch: ")
    assert out.getvalue().endswith(" s, 888 MB\n")


def test_plain_reporter_does_not_report_a_failed_step_as_done() -> None:
    """The error says what failed; no line claims that it ended."""
    out = io.StringIO()
    with pytest.raises(OSError, match="gone"), progress.PlainReporter(Console(file=out)).step("fetch", "torch"):
        raise OSError("gone")
    assert not out.getvalue()


def test_reporter_is_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """No control characters reach a log."""
    with progress.reporter() as reporter:
        reporter.say("a [line] with brackets")
    assert capsys.readouterr().out == "a [line] with brackets\n"


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On either output: programs read them, brackets are no markup, and nothing is folded."""
    line = f"lock of uvicorn[standard] [/x] /data:lock:ro: {'word ' * 60}end"
    progress.plain_console().print(line)
    progress.plain_console(stderr=True).print(line)
    assert capsys.readouterr() == (f"{line}\n", f"{line}\n")


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[H5 images in 2.0 s", "a\rb", "\u202edone", "[/x] [red]fine[/red] [link=file:///etc]x[/link]", "\x9b2J", "\x07"])
@pytest.mark.parametrize("is_cell", [True, False])
def test_text_from_outside_is_only_text(text: str, is_cell: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Whatever a registry calls its things: no terminal obeys it, and it is no markup."""
    out = io.StringIO()
    console = progress.SafeConsole(file=out, width=200, force_terminal=True, color_system=None)
    if is_cell:
        view = Table("name", box=None)
        view.add_row(text)
        console.print(view)
    else:
        console.print(text)
    assert all(line.isprintable() for line in out.getvalue().split("\n"))
    assert "[red]fine[/red]" in out.getvalue() or "[red]" not in text


def test_somebody_who_waits_is_told_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, while it still takes its time: standard output may be a file that they want."""
    said = threading.Event()

    def say(line: str) -> None:
        progress.aside(line)
        said.set()

    with progress.overdue("waiting for\x1b[2J it", 0.0, say):
        assert said.wait(PATIENCE)
    assert capsys.readouterr() == ("", "waiting for?[2J it\n")


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it leave a thread behind that would."""
    before = threading.active_count()
    with progress.overdue("waiting", PATIENCE):
        pass
    assert capsys.readouterr() == ("", "")
    assert threading.active_count() == before


def test_nobody_reads_what_is_waited_for() -> None:
    """A full disk behind standard error is no reason to stop."""
    program = "import sys; from torchstrata import progress; progress.aside('waiting'); sys.stdout.write('goes on')"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert ended.stdout == "goes on"
