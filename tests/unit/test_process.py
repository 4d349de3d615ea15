"""Starting programs: output, failure, absence and interruption."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import IO

import pytest

from tests.waiting import PATIENCE
from torchstrata import process
from torchstrata.errors import CommandError
from torchstrata.matrix.matrix import ROOT


def test_run_returns_standard_output_and_passes_lines_of_standard_error() -> None:
    """Output is the result; messages go to whoever listens, line by line."""
    lines: list[str] = []
    script = "import sys; print('out'); print('one', file=sys.stderr); print('two', file=sys.stderr)"
    assert process.run(sys.executable, "-c", script, on_line=lines.append) == "out\n"
    assert lines == ["one", "two"]


def test_run_feeds_standard_input_and_environment() -> None:
    """A definition can be piped in, and variables are added to the present ones."""
    script = "import os, sys; print(sys.stdin.read() + os.environ['ADDED'] + os.environ['PATH'][:0])"
    assert process.run(sys.executable, "-c", script, stdin=b"in ", env={"ADDED": "added"}) == "in added\n"


def test_programs_of_the_system_are_found_with_the_path_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's logins of users leave sbin out, and root by `su` or by sudo may have kept such a PATH; dpkg and dockerd then miss half their programs."""
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    assert process.run("chroot", "--version").startswith("chroot")
    seen = process.run(sys.executable, "-c", "import os; print(os.environ['PATH'])").strip()
    assert seen == "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def test_path_that_has_them_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory is searched twice."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    monkeypatch.setenv("PATH", path)
    assert process.search_path() == path


BROKEN = "import sys; print('broken', file=sys.stderr); sys.exit(3)"
DYING = "import os, signal, sys; print('broken', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("script", "what", "status"),
    [
        (BROKEN, "status 3: broken", 3),
        (DYING.format("SIGSEGV"), "died of SIGSEGV: broken", -signal.SIGSEGV),
        (DYING.format("SIGKILL"), "died of SIGKILL: broken", -signal.SIGKILL),
    ],
    ids=["status", "crash", "kill"],
)
def test_failed_program_reports_its_last_line(script: str, what: str, status: int) -> None:
    """The error quotes what the program said last and carries its status; a crash and a kill have names."""
    with pytest.raises(process.Failed, match=what) as caught:
        process.run(sys.executable, "-c", script)
    assert caught.value.status == status


def test_missing_program_is_named() -> None:
    """What is not installed is named, with the cure."""
    with pytest.raises(CommandError, match="no-such-program is not installed"):
        process.run("no-such-program")


@pytest.mark.parametrize("start", [process.run, process.become])
def test_a_program_that_cannot_be_started_is_named(start, tmp_path):
    """As a script whose interpreter is not there."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandError, match=f"{script} cannot be started: No such file"):
        start(script, "word")


@pytest.mark.parametrize("number", ["0", "-1", "9" * 30, "²", "", "1 "])
def test_what_is_no_process_is_not_over(number):
    """Labels of an engine may say anything."""
    assert not process.is_over(f"{socket.gethostname()}:{number}")


def test_piped_streams_and_checks_the_status() -> None:
    """A stream is readable while the program runs, and its failure is not lost."""
    with process.piped(sys.executable, "-c", "print('streamed')") as stream:
        assert stream.read() == b"streamed\n"
    with pytest.raises(process.Failed, match="status 4"), process.piped(sys.executable, "-c", "raise SystemExit(4)") as stream:
        stream.read()


def stumble(script: str) -> None:
    """Fail over what ``script`` prints."""
    with process.piped(sys.executable, "-c", script) as stream:
        raise ValueError(stream.read())


def test_a_program_that_failed_is_told_rather_than_what_its_output_lacks() -> None:
    """Who reads output that was cut short stumbles over it; the cause is the program. Of one that did its work, the caller's error stays."""
    with pytest.raises(process.Failed, match="status 5: broken"):
        stumble("import sys; print('broken', file=sys.stderr); sys.exit(5)")
    with pytest.raises(ValueError, match="whole"):
        stumble("print('whole')")


def interrupted(script: str, pipes: list[IO[bytes]]) -> None:
    """Start ``script`` and be interrupted once a grandchild is known to run."""
    with process.piped(sys.executable, "-c", script) as stream:
        pipes.append(stream)
        assert stream.readline() == b"1\n"
        raise KeyboardInterrupt


def test_interruption_ends_the_whole_process_group() -> None:
    """What a program started is ended with it, so the pipe that a grandchild holds is closed."""
    grandchild = f"import time; print(1, flush=True); time.sleep({PATIENCE}); print('it went on')"
    pipes: list[IO[bytes]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])", pipes)
    assert pipes[0].read() == b""


DROPPED = """
import os, signal, sys, time, weakref
from torchstrata import process
process.end_as_by_ctrl_c()
def end(*_):
    os.kill(os.getpid(), signal.{name})
    time.sleep(1)
class Gone:
    __del__ = {deleted}
class Seen:
    pass
gone, seen = Gone(), Seen()
watched = weakref.ref(seen, {watched})
del gone, seen
try:
    time.sleep({patience})
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("deleted", "watched"), [("end", "print"), ("print", "end")])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interruption_that_python_drops_comes_again(name: str, deleted: str, watched: str) -> None:
    """Whoever asks once while an object is taken away is heard, and reads nothing of Python's."""
    script = DROPPED.format(name=name, deleted=deleted, watched=watched, patience=PATIENCE)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


IMPATIENT = """
import builtins, os, signal, sys, threading, time
from torchstrata import process
process.end_as_by_ctrl_c()
def work():
    threading.main_thread().join()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
class Slow:
    def __del__(self, sleep=time.sleep, seconds=10 * process.ASKED_AGAIN):
        sleep(seconds)
builtins.last = Slow()
threading.Thread(target=work).start()
sys.exit(130)
"""


def test_an_interruption_at_the_very_end_kills_nothing() -> None:
    """Python drops what comes while it waits for threads, and has no ear for an alarm afterwards."""
    done = subprocess.run([sys.executable, "-c", IMPATIENT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_other_errors_that_python_drops_are_told() -> None:
    """They are faults of ours, and nobody would see them otherwise."""
    script = "from torchstrata import process\nprocess.end_as_by_ctrl_c()\nclass Gone:\n    def __del__(self): 1 / 0\nGone()\nprint('on')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"
    assert "ZeroDivisionError" in done.stderr


def test_follow_passes_on_both_streams_and_returns_the_status() -> None:
    """Lines arrive while the program runs; a failure is the caller's to judge."""
    lines: list[str] = []
    assert process.follow(sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(5)", on_line=lines.append) == 5
    assert sorted(lines) == ["err", "out"]


def test_becoming_a_program_leaves_nothing_of_this_one() -> None:
    """What was printed before is there, the status is the program's, and no line of ours comes after."""
    script = "from torchstrata import process; print('before'); process.become('sh', '-c', 'echo \"$1\"; exit 7', 'sh', 'a b'); print('after')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (7, "before\na b\n")


def test_becoming_a_program_that_is_not_there_is_told() -> None:
    """As running one is."""
    with pytest.raises(CommandError, match="not installed"):
        process.become("no-such-program")


@pytest.mark.parametrize("work", [process.run, process.follow])
def test_a_line_that_nobody_takes_ends_the_program(work):
    """Its caller is told; the program would wait for ever for a reader of the others."""

    def refuse(line):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        work("sh", "-c", "while echo word >&2; do :; done", on_line=refuse)
