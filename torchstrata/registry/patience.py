"""How long and how often a registry is asked, and when that is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Self

from torchstrata import backoff
from torchstrata.progress import QUIET
from torchstrata.registry.metering import SLOWEST


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long and how often to try.

    :param tries: of one request.
    :param first: seconds before the second try, doubled for each further one, and blurred.
    :param longest: seconds between two tries at most, where the server does not say.
    :param connect: seconds for a connection.
    :param answer: seconds of waiting for an answer, beyond those that its size takes at the slowest rate.
    :param read: the same where the registry has to store something first.
    :param whole: seconds after which no further try begins; for a blob, beyond those that its size takes.
    :param greeting: the same, and seconds for a connection and for an answer, of a registry that has not answered yet:
        its name or port may be wrong, and no work is lost by saying so; a night waits for one that is restarted.
    :param quiet: seconds until somebody is told what is waited for.
    """

    tries: int = 6
    first: float = 0.5
    longest: float = 30.0
    connect: float = 20.0
    answer: float = 60.0
    read: float = 300.0
    whole: float = 1200.0
    greeting: float | None = None
    quiet: float = QUIET

    @classmethod
    def attended(cls) -> Self:
        """Return that of somebody who waits before a terminal, and has lost nothing if they have to ask again."""
        return cls(connect=10.0, answer=20.0, whole=20.0, greeting=20.0)

    @property
    def of_greeting(self) -> Self:
        """What is had with a registry that has not answered yet."""
        return replace(self, connect=self.greeting, answer=self.greeting, whole=self.greeting) if self.greeting else self

    def longest_wait(self, tries: int, answer: float) -> float:
        """Return the seconds after which a question is given up, unless the server asks to wait between the tries.

        :param answer: seconds of waiting for an answer.
        """
        pauses = sum(min(self.longest, self.first * 2.0**failures) for failures in range(tries - 1))
        return min(tries * (self.connect + answer) + pauses, self.whole + self.connect + answer)

    def pause(self, failures: int, ordered: float = 0.0) -> float:
        """Return the seconds to wait after so many failures."""
        return backoff.pause(failures, first=self.first, longest=self.longest, ordered=ordered)

    def is_over(self, started: float, size: int = 0) -> bool:
        """Return whether what began at ``started`` (monotonic) and has brought ``size`` bytes takes too long."""
        return time.monotonic() - started > self.whole + size / SLOWEST
