"""The one place that starts other programs."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn

from torchstrata.errors import CommandError

KEPT_LINES: Final = 40
"""Lines of a failed program's output that an error can quote."""

GRACE: Final = 5.0
"""Seconds that programs have to tidy up after they were asked to end; most need none."""

SYSTEM_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where programs of the system lie. Debian's logins of ordinary users do not look there, and a root by ``su`` or sudo may have kept their PATH."""

ASKED_AGAIN: Final = 0.05
"""Seconds until an interruption that Python has dropped comes again."""

LineSink = Callable[[str], None]

_running: set[subprocess.Popen[bytes]] = set()
"""Programs under way in any thread."""


class Failed(CommandError):
    """A program ended with a status other than 0, or by a signal (a negative status); carries the end of its output."""

    def __init__(self, args: tuple[str, ...], status: int, tail: str) -> None:
        last = tail.strip().splitlines()[-1:] or ["(no output)"]
        how = f"failed with status {status}" if status >= 0 else f"died of {_signal(-status)}"
        super().__init__(f"{Path(args[0]).name} {how}: {last[0]}", fix=f"run it by hand to see more: {shlex.join(args)[:200]}")
        self.status = status
        self.tail = tail


class Overdue(Failed):
    """A program was ended because it took too long, as one does that waits for a server that never answers."""

    def __init__(self, args: tuple[str, ...], status: int, seconds: float) -> None:
        super().__init__(args, status, "")
        self.what = f"{Path(args[0]).name} has not ended within {seconds:g} s"


def _signal(number: int) -> str:
    """Return what a signal is called; some have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_as_by_ctrl_c(handler: Callable[[int, FrameType | None], object] = signal.default_int_handler) -> None:
    """Treat a request to end this program, or the end of its terminal, as Ctrl-C, so that what it started ends, too.

    Programs run in sessions of their own: the signal reaches this one alone. What ignores such a signal (``nohup``)
    still does.

    :param handler: answers, and ends the program by an exception.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handler)
    sys.unraisablehook = _ask_again
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # Python answers no signal afterwards, and an alarm would kill it


def _ask_again(lost: sys.UnraisableHookArgs) -> None:
    """Let an interruption come again, by an alarm: Python drops what is raised while it takes an object away (``__del__``, weak references)."""
    handlers = [handler for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(handler := signal.getsignal(number))]
    if handlers and issubclass(lost.exc_type, (KeyboardInterrupt, SystemExit)):
        signal.signal(signal.SIGALRM, handlers[0])
        signal.setitimer(signal.ITIMER_REAL, ASKED_AGAIN)
    else:
        sys.__unraisablehook__(lost)


def name() -> str:
    """Return what tells this process from others, now and later, also on other hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_over(named: str) -> bool:
    """Return whether the process of that :func:`name` was of this host and has ended."""
    host, _, number = named.rpartition(":")
    if host != socket.gethostname() or not re.fullmatch("[1-9][0-9]{0,8}", number):
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def search_path() -> str:
    """Return ``PATH``, and behind it the directories of the system's programs that it lacks."""
    given = os.environ.get("PATH", os.defpath)
    return os.pathsep.join((given, *(path for path in SYSTEM_PATHS if path not in given.split(os.pathsep))))


def where(program: str) -> str | None:
    """Return the path of ``program``, which may lie where ordinary users do not look; None if it is not installed."""
    return shutil.which(program, path=search_path())


def find(program: str, *, fix: str = "") -> str:
    """Return the path of ``program``; raise :class:`CommandError` naming the cure if it is not installed."""
    path = where(program)
    if path is None:
        raise CommandError(f"{program} is not installed", fix=fix or f"install {program} and try again")
    return path


def run(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: bytes | None = None,
    on_line: LineSink | None = None,
    seconds: float = math.inf,
) -> str:
    """Run a program to its end and return its standard output.

    :param env: variables to add to the present environment; those that are ``None`` are taken out.
    :param stdin: bytes to feed to it.
    :param on_line: called with every line of standard error while it runs; the last lines are kept for the error.
    :param seconds: after which it is ended, with all that it has started.
    :raises CommandError: the program is not installed, or cannot be started.
    :raises Overdue: it took longer than ``seconds``.
    :raises Failed: it ended with a status other than 0.
    """
    with _started(args, cwd=cwd, env=env, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE) as (process, threads):
        tail: deque[str] = deque(maxlen=KEPT_LINES)
        threads.start(_pump, process.stderr, tail, on_line)
        if stdin is not None:
            threads.start(_feed, process.stdin, stdin)
        assert process.stdout is not None
        with _ended_after(process, seconds) as is_overdue:
            output = process.stdout.read()
            threads.finish()
            process.wait()
        if is_overdue.is_set():
            raise Overdue(tuple(map(str, args)), process.returncode, seconds)
        if process.returncode != 0:
            raise Failed(tuple(map(str, args)), process.returncode, "".join(tail) or output.decode(errors="replace"))
        return output.decode(errors="replace")


def follow(*args: str | os.PathLike[str], cwd: Path | None = None, env: Mapping[str, str] | None = None, on_line: LineSink) -> int:
    """Run a program to its end and return its status, whatever that is.

    :param env: variables to add to the present environment.
    :param on_line: called with every line of its output and of its errors, from two threads.
    :raises CommandError: the program is not installed, or cannot be started.
    """
    with _started(args, cwd=cwd, env=env, stdin=subprocess.DEVNULL) as (process, threads):
        for stream in (process.stdout, process.stderr):
            threads.start(_pump, stream, deque[str](maxlen=0), on_line)
        threads.finish()
        return process.wait()


def become(*args: str | os.PathLike[str]) -> NoReturn:
    """Become a program that has the terminal, such as ``ssh``; nothing of this one goes on.

    :raises CommandError: the program is not installed, or cannot be started.
    """
    argv = [find(str(args[0])), *map(str, args[1:])]
    sys.stdout.flush()
    sys.stderr.flush()
    with _starting(argv):
        os.execv(argv[0], argv)  # noqa: S606  # no shell


@contextlib.contextmanager
def _starting(argv: Sequence[str]) -> Iterator[None]:
    """Say what the system refuses: a script whose interpreter is not there, too many words."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be started: {error.strerror}", fix=f"run it by hand to see more: {shlex.join(argv)[:200]}") from error


@contextlib.contextmanager
def piped(*args: str | os.PathLike[str], stdin: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Start a program and yield its standard output as a stream; check its status at the end.

    :raises Failed: it ended with a status other than 0, also where the caller stumbled over output that it cut short.
    """
    with _started(args, stdin=stdin or subprocess.DEVNULL) as (process, threads):
        tail: deque[str] = deque(maxlen=KEPT_LINES)
        threads.start(_pump, process.stderr, tail, None)
        assert process.stdout is not None
        try:
            yield process.stdout
        except Exception as error:
            if _failed(process):
                threads.join()
                raise Failed(tuple(map(str, args)), process.returncode, "".join(tail)) from error
            raise
        process.stdout.close()
        threads.join()
        if process.wait() != 0:
            raise Failed(tuple(map(str, args)), process.returncode, "".join(tail))


@contextlib.contextmanager
def _ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """End a program that still runs after so many seconds of the block; yield the event that says so."""
    is_overdue = threading.Event()

    def end() -> None:
        is_overdue.set()
        _end(process)

    clock = threading.Timer(seconds, end) if math.isfinite(seconds) else None
    if clock:
        clock.daemon = True
        clock.start()
    try:
        yield is_overdue
    finally:
        if clock:
            clock.cancel()


def _failed(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a program, which may be about to end, has ended with a status other than 0."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(1) != 0
    return False


class _StreamThreads:
    """The threads that serve the streams of a program."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []

    def start(self, work: Callable[..., None], *args: object) -> None:
        """Start ``work`` in a thread."""
        self._threads.append(threading.Thread(target=self._try, args=(work, *args), daemon=True))
        self._threads[-1].start()

    def _try(self, work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
            self._errors.append(error)

    def finish(self) -> None:
        """Wait until the streams have ended; raise what kept a line from being passed on."""
        self.join()
        if self._errors:
            raise self._errors[0]

    def join(self, seconds: float | None = None) -> None:
        """Wait until the streams have ended; not longer than that for each."""
        for thread in self._threads:
            with contextlib.suppress(RuntimeError):  # interrupted before it began
                thread.join(seconds)


@contextlib.contextmanager
def _started(
    args: tuple[str | os.PathLike[str], ...],
    *,
    stdin: IO[bytes] | int,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], _StreamThreads]]:
    """Start ``args`` in a process group of its own, and end the whole group if the caller is interrupted.

    Its threads end with it: an interpreter that ends while a daemon thread wakes up can crash (CPython before 3.14).
    """
    argv = [find(str(args[0])), *map(str, args[1:])]
    asked = {**os.environ, "PATH": search_path(), **(env or {})}
    variables = {name: value for name, value in asked.items() if value is not None}
    with _starting(argv):
        process = subprocess.Popen(argv, cwd=cwd, env=variables, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    _running.add(process)
    threads = _StreamThreads()
    try:
        yield process, threads
    except BaseException:
        _end(process)
        threads.join(GRACE)
        raise
    finally:
        _running.discard(process)


def stop_all() -> None:
    """End every program that runs in any thread; its caller sees :class:`Failed`."""
    _end(*_running)


def _end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask process groups to stop, all at once, and make those that have not after :data:`GRACE`."""
    for process in processes:
        _kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process.pid, signal.SIGKILL)
            process.wait()


def _kill(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, by sudo if it was started by sudo."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
    except PermissionError:
        subprocess.run([find("sudo"), "-n", "kill", f"-{number.value}", "--", f"-{group}"], capture_output=True, check=False)


def _pump(stream: IO[bytes] | None, tail: deque[str], on_line: LineSink | None) -> None:
    """Keep the last lines of ``stream`` and pass each on; close it, so that its writer does not wait for a reader that fails."""
    assert stream is not None
    with stream:
        for raw in stream:
            line = raw.decode(errors="replace")
            tail.append(line)
            if on_line is not None:
                on_line(line.rstrip("\n"))


def _feed(stream: IO[bytes] | None, data: bytes | None) -> None:
    """Write ``data`` and close; a reader that has gone away is reported by its status, not here."""
    assert stream is not None
    with contextlib.suppress(BrokenPipeError), stream:
        stream.write(data or b"")
