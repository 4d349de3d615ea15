"""What a stop of services waits for: in a time of its own, so that no machine is too slow for it."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
from types import SimpleNamespace

import pytest
from container import supervisor

SERVER, KERNEL = 7, 8
NEVER = math.inf


class StandInMachine:
    """A clock that only pauses move on, and processes, by the seconds from SIGTERM to their end."""

    def __init__(self, processes):
        self.processes = processes
        self.now = 0.0
        self.told, self.killed = {}, []

    def below(self, _):
        """Return who lives."""
        return [number for number, takes in self.processes.items() if number not in self.killed and self.now < self.told.get(number, NEVER) + takes]

    def kill(self, number, how):
        """Send a signal."""
        self.killed += [number] if how == signal.SIGKILL else []
        self.told.setdefault(number, self.now)

    def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def stop(monkeypatch):
    """Stop processes, one of which is the server; return the machine afterwards."""

    def stopped(grace=supervisor.GRACE, **processes):
        machine = StandInMachine({{"server": SERVER, "kernel": KERNEL}[name]: takes for name, takes in processes.items()})
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: machine.now, sleep=machine.sleep))
        monkeypatch.setattr(supervisor, "os", SimpleNamespace(kill=machine.kill))
        monkeypatch.setattr(supervisor, "processes", machine)
        supervisor.end(1, grace, [SERVER])
        return machine

    return stopped


def test_who_ends_is_not_killed(stop):
    """A stop is over when all have ended; a kernel has most of a second to save its work."""
    machine = stop(server=0.1, kernel=0.9)
    assert machine.killed == []
    assert machine.now == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("kernel", "killed", "seconds"), [(NEVER, [SERVER, KERNEL], 1.1), (0.2, [SERVER], 0.6)])
def test_a_kernel_that_hears_nothing_is_killed(stop, kernel, killed, seconds):
    """It costs little more than a second; once all kernels have ended, what a server still does is of no use."""
    machine = stop(server=NEVER, kernel=kernel)
    assert sorted(machine.killed) == killed
    assert machine.now < seconds


@pytest.mark.parametrize("seconds", [0, 30])
def test_the_grace_can_be_set(stop, seconds):
    """By a number of seconds."""
    assert stop(grace=seconds, kernel=NEVER).now == pytest.approx(seconds, abs=0.05)


class Traced:
    """A service that lets one round of the supervisor be traced, from one look at it to the next, and SIGTERM come at one of its steps."""

    process = None

    def __init__(self, moment):
        self.moment, self.steps, self.looks = moment, 0, 0

    def tend(self, *_):
        """Begin to trace, or end; the signal comes now at the latest."""
        self.looks += 1
        sys.settrace(self.step if self.looks == 1 else None)
        if self.looks == 2 and self.steps <= self.moment:
            os.kill(os.getpid(), signal.SIGTERM)

    def step(self, *_):
        """Count a step."""
        if self.steps == self.moment:
            os.kill(os.getpid(), signal.SIGTERM)
        self.steps += 1
        return self.step


def _hangs(*_):
    raise AssertionError("it hangs")


@pytest.fixture
def usual_signals():
    """Give signals back as they were; end what hangs."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    usual = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(600)
    yield
    signal.alarm(0)
    sys.settrace(None)
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
def test_a_signal_at_any_step_is_heard(monkeypatch):
    """Whatever the supervisor is about when SIGTERM comes, it ends: a handler that waits for a lock of its own thread would never."""
    monkeypatch.setattr(supervisor, "INTERVAL", 0.0001)
    monkeypatch.setattr(supervisor, "LAST_WORD", 0)  # threads of other tests may be left
    monkeypatch.setattr(supervisor, "processes", StandInMachine({}))
    moment, log = 0, io.StringIO()
    while True:
        traced = Traced(moment)
        assert supervisor.run([traced], {}, supervisor.Log(log)) == 0
        if traced.steps <= moment:
            break
        moment += 1
    assert moment > 50, "hardly a step was traced"
    assert log.getvalue().count("stopping") == moment + 1


@pytest.mark.usefixtures("usual_signals")
def test_no_service_is_tended_once_a_signal_has_come(monkeypatch):
    """A container that is to end neither starts another service nor waits for the answer of one."""
    monkeypatch.setattr(supervisor, "LAST_WORD", 0)
    monkeypatch.setattr(supervisor, "processes", StandInMachine({}))
    tended: list[str] = []
    first = SimpleNamespace(process=None, tend=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    second = SimpleNamespace(process=None, tend=lambda *_: tended.append("second"))
    assert supervisor.run([first, second], {}, supervisor.Log(io.StringIO())) == 0
    assert not tended
