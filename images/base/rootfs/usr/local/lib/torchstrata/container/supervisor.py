"""Keep services running: start, prefix their output, restart with backoff, explain memory kills, end within seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

from container import extension, limits, notices, processes, settings

INTERVAL: Final = 0.1
"""Seconds between two looks at the services."""

LONGEST_PAUSE: Final = 60.0
GOOD_RUN: Final = 60.0
"""Seconds after which a service counts as healthy, so that its next failure starts the pauses anew."""

GRACE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL; with the engine's own work a stop stays under 2 s."""

LAST_WORD: Final = 0.3
"""Seconds that servers have once nothing else runs, and that each thread has to pass on its last lines."""

LONGEST_LINE: Final = 16 << 10
"""Bytes of one line of a service; a longer one is written in pieces, so that no service can fill the memory of its log."""

SHORTEST_SECRET: Final = 6
"""Anything shorter is in every word of the log."""


class Log:
    """Standard output, shared by everybody line by line; secrets are blotted out."""

    def __init__(self, stream: IO[str] = sys.stdout, secrets: Sequence[str] = ()) -> None:
        self._stream = stream
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        self._lock = threading.Lock()

    def say(self, line: str, source: str = "torchstrata") -> None:
        """Write one line of ``source`` without secrets."""
        for secret in self._secrets:
            line = line.replace(secret, "***")
        self.announce(line, source)

    def announce(self, line: str, source: str = "torchstrata") -> None:
        """Write one line of ``source`` as it is, secrets included, but printable: what a stranger has sent neither moves the cursor nor begins a line."""
        line = notices.printable(line)
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(f"{source}: {line}\n" if source == "torchstrata" else f"{source} | {line}\n")
            self._stream.flush()


class Supervised:
    """One service: its process, when it may start again, whether it has answered yet.

    :param command: returns how it is started, each time that it is.
    :param answers: returns whether it is up.
    :param welcome: returns what the log says when it first answers, secrets included.
    :param quiet: lines of its output with these words help nobody.
    """

    def __init__(
        self, name: str, command: Callable[[], Sequence[str]], answers: Callable[[], bool], welcome: Callable[[], Sequence[str]], *, quiet: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._quiet = quiet
        self._command = command
        self._answers = answers
        self._welcome = welcome
        self.process: subprocess.Popen[bytes] | None = None
        self._pause = 1.0
        self._not_before = 0.0
        self._since = 0.0
        self._greeted = False

    def tend(self, environment: Mapping[str, str], log: Log) -> None:
        """Do what is due: start it, notice its end, or greet when it first answers."""
        if self.process is None:
            if time.monotonic() >= self._not_before:
                self._start(environment, log)
        elif self.process.poll() is not None:
            self._ended(self.process.returncode, log)
        elif not self._greeted and self._answers():
            self._greeted = True
            self._greet(log)

    def _greet(self, log: Log) -> None:
        try:
            for line in self._welcome():
                log.announce(line)
        except extension.ModuleError as error:
            log.say(f"{self.name}: {error}")

    def _start(self, environment: Mapping[str, str], log: Log) -> None:
        """Start the process and the thread that passes on its output; what cannot start counts as ended."""
        self._since = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self._command(), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            self._ended(error.errno or 1, log)
            return
        except (extension.ModuleError, ValueError) as error:  # of a module: it fails, or a word has what no argument may have
            log.say(f"{self.name}: {error}")
            self._ended(1, log)
            return
        try:
            threading.Thread(target=_relay, args=(self.process.stdout, self.name, log, self._quiet), daemon=True).start()
        except RuntimeError:
            log.say(" - ".join(notices.NO_THREAD))
            self.process.kill()
            self._ended(self.process.wait(), log)

    def _ended(self, status: int, log: Log) -> None:
        """Say how it has ended, and let it start again after a pause that doubles with each failure."""
        self.process = None
        if time.monotonic() - self._since >= GOOD_RUN:
            self._pause = 1.0
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        log.say(f"{self.name} {how}; it starts again in {self._pause:g} s")
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def run(services: Sequence[Supervised], environment: Mapping[str, str], log: Log) -> int:
    """Keep ``services`` running until SIGTERM or SIGINT, then end everything; return 0."""
    stops: list[int] = []  # no event: its lock may be what the handler interrupts, and then it would wait for itself
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stops.append(number))
    kills = limits.memory().kills
    while not stops:
        for service in services:
            if not stops:  # to ask one that is silent takes seconds
                service.tend(environment, log)
        kills = _explain(kills, log)
        time.sleep(INTERVAL)
    log.say("stopping")
    own = [service.process.pid for service in services if service.process]
    grace = settings.stop_grace("TORCHSTRATA_STOP_GRACE", environment.get("TORCHSTRATA_STOP_GRACE", ""))
    end(os.getppid(), GRACE if grace is None else grace, own)
    _let_last_lines_through()
    return 0


def _let_last_lines_through() -> None:
    """Wait for the threads that pass lines on: Python aborts where one still writes when it ends."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(LAST_WORD)


def end(init: int, grace: float, own: Sequence[int] = ()) -> None:
    """Send SIGTERM to everything that runs under ``init``, kernels included, and after ``grace`` seconds SIGKILL.

    :param own: servers, which get no more than :data:`LAST_WORD` once nothing else runs: Jupyter waits long for kernels that have ended.
    """
    deadline = time.monotonic() + grace
    _signal(processes.below(init), signal.SIGTERM)
    while (running := processes.below(init)) and time.monotonic() < deadline:
        if set(running) <= set(own):
            deadline, own = min(deadline, time.monotonic() + LAST_WORD), ()
        time.sleep(0.02)
    _signal(processes.below(init), signal.SIGKILL)


def explanation(memory: limits.Memory) -> str:
    """Return what to tell somebody whose kernel has vanished."""
    limit, peak = limits.in_words(memory.limit), limits.in_words(memory.peak)
    return (
        f"out of memory: a process was killed at the container's limit of {limit} (peak {peak}); if a notebook's kernel has just restarted,"
        " this is why - use smaller batches, or raise --memory"
    )


def _explain(known: int, log: Log) -> int:
    """Say where the kernel has killed since ``known`` kills; return how many there are by now."""
    memory = limits.memory()
    if memory.kills > known:
        log.say(explanation(memory))
    return memory.kills


def _signal(targets: Sequence[int], number: signal.Signals) -> None:
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)


def _relay(stream: IO[bytes] | None, name: str, log: Log, quiet: Sequence[str] = ()) -> None:
    """Pass on what a service prints, line by line."""
    for raw in iter(lambda: stream.readline(LONGEST_LINE), b"") if stream else ():
        line = raw.decode(errors="replace").rstrip()
        if line and not any(noise in line for noise in quiet):
            log.say(line, name)
