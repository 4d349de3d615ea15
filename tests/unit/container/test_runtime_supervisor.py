"""What a stop of services waits for: in a time of its own, so that no machine is too slow for it."""

from __future__ import annotations

import math
import signal
from types import SimpleNamespace

import pytest
from container import supervisor

SERVER, KERNEL = 7, 8
NEVER = math.inf


class Machine:
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
        machine = Machine({{"server": SERVER, "kernel": KERNEL}[name]: takes for name, takes in processes.items()})
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
