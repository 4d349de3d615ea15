"""Turns of tests: those that measure time run alone, where several processes share the tests."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from pathlib import Path

import pytest


class Worker:
    """In a process that runs tests: waits for the turn of each test.

    Serial tests that follow each other have one turn together: all workers wait for it once, not for each of them.

    :param directory: that all workers of a run share.
    """

    def __init__(self, directory: Path) -> None:
        self._turn, self._gate = ((directory / name).open("w") for name in ("turn", "gate"))
        self._alone = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        """Run a test in its turn."""
        if not self._alone:
            self._take(alone=_is_serial(item))
        try:
            return (yield)
        finally:
            self._alone = _is_serial(item) and _is_serial(nextitem)
            if not self._alone:
                fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _take(self, *, alone: bool) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)  # so that those who run together cannot keep out one who waits for all of them
        fcntl.flock(self._turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)


def _is_serial(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("serial") is not None
