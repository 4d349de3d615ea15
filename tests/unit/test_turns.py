"""Turns of image tests: who measures time runs alone."""

from __future__ import annotations

import contextlib
import fcntl
from types import SimpleNamespace

import pytest

from tests.images.turns import Worker

ORDINARY, SERIAL = (SimpleNamespace(get_closest_marker={"serial": serial}.get) for serial in (None, "mark"))


@contextlib.contextmanager
def running(worker, item, nextitem=None):
    """Have a worker run a test."""
    protocol = worker.pytest_runtest_protocol(item, nextitem)
    next(protocol)
    yield
    with pytest.raises(StopIteration) as ended:
        protocol.send("its result")
    assert ended.value.value == "its result"


def could_run(directory, item):
    """Tell whether another process could run a test now."""
    with (directory / "turn").open("w") as turn, contextlib.suppress(BlockingIOError):
        fcntl.flock(turn, fcntl.LOCK_NB | (fcntl.LOCK_SH if item is ORDINARY else fcntl.LOCK_EX))
        return True
    return False


def test_ordinary_tests_run_together(tmp_path):
    """A test that measures time waits until they have ended."""
    with running(Worker(tmp_path), ORDINARY), running(Worker(tmp_path), ORDINARY):
        assert not could_run(tmp_path, SERIAL)
    assert could_run(tmp_path, SERIAL)


def test_a_serial_test_runs_alone(tmp_path):
    """No other begins before it has ended."""
    with running(Worker(tmp_path), SERIAL, ORDINARY):
        assert not could_run(tmp_path, ORDINARY)
    assert could_run(tmp_path, ORDINARY)


def test_serial_tests_that_follow_each_other_have_one_turn(tmp_path):
    """No other test comes between them."""
    worker = Worker(tmp_path)
    with running(worker, SERIAL, SERIAL):
        pass
    assert not could_run(tmp_path, ORDINARY)
    with running(worker, SERIAL):
        assert not could_run(tmp_path, ORDINARY)
    assert could_run(tmp_path, ORDINARY)


def test_a_test_that_ends_badly_ends_its_turn(tmp_path):
    """What pytest itself raises, such as an interrupt, keeps nobody out."""
    protocol = Worker(tmp_path).pytest_runtest_protocol(SERIAL, None)
    next(protocol)
    with pytest.raises(KeyboardInterrupt):
        protocol.throw(KeyboardInterrupt())
    assert could_run(tmp_path, ORDINARY)
