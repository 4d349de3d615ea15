"""Signals that ask a container to end: kept while PID 1 becomes another program, so that none is lost.

The kernel drops a signal for PID 1 that has neither a handler nor is blocked (kill(2)), and a program that is being
replaced has no handler. Blocked signals wait and outlive execve(2), so they are blocked from the first line of the entrypoint
(``env --block-signal``) wherever no handler of ours is in place.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
UNBLOCK: Final = ("/usr/bin/env", "--default-signal=TERM,INT", "--")
"""What starts a command with these signals as it expects them: the init hands down what is blocked."""


def heed() -> None:
    """From now on end on these signals with 128 + number, as shells do; those that wait already count."""
    for number in ENDING:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def defer() -> None:
    """Let these signals wait for the program that this process becomes; end now where one has come already."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    for number in ENDING:
        if number in signal.sigpending():
            _end(number, None)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
