"""Waiting for events.

The bound tells what hangs from what is slow and measures nothing: a test that needs its machine to be quick fails beside
others. How fast things are is for ``bench/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE: Final = 300.0
"""Seconds until what has not happened counts as never happening."""

Found = TypeVar("Found")


def until(  # noqa: PLR0913  # all but two have defaults
    condition: Callable[[], Found],
    what: str,
    *,
    alive: Callable[[], object] = lambda: True,
    state: Callable[[], object] = lambda: "",
    within: float = PATIENCE,
    pause: float = 0.5,
) -> Found:
    """Ask, more and more rarely, until ``condition`` returns something true; return that.

    :param what: is waited for, in words.
    :param alive: whether it can still happen.
    :param state: what to show if it does not: a log, what was seen last.
    :param within: seconds.
    :param pause: seconds between two questions at most.
    :raises AssertionError: it did not happen; says what was waited for, why that ended, and the state.
    """
    deadline, wait = time.monotonic() + within, 0.01
    while not (found := condition()):
        lives = bool(alive())
        if not lives and (found := condition()):  # it has happened, and then what it happened to has ended
            return found
        assert lives, f"{what}: cannot happen any more\n{state()}"
        assert time.monotonic() < deadline, f"{what}: not within {within:g} s\n{state()}"
        time.sleep(wait)
        wait = min(wait * 1.25, pause)
    return found
