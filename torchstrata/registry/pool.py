"""Work of one kind in threads: it ends at the first failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

from torchstrata.registry import http_session

T = TypeVar("T")
R = TypeVar("R")

AT_A_TIME: Final = 4
"""Blobs, which have a buffer each, signatures, which take a core, or tags; more gain nothing on one link."""

QUESTIONS: Final = 8
"""Questions at a time; nearly all of their time is spent waiting."""


@contextlib.contextmanager
def threads(name: str, at_a_time: int = AT_A_TIME) -> Iterator[ThreadPoolExecutor]:
    """Give threads that end soon at Ctrl-C, though a registry is silent: nobody wants its answers any more."""
    with ThreadPoolExecutor(at_a_time, name) as pool:
        try:
            yield pool
        except Exception:
            raise
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            http_session.cancel_all()
            raise


def answers(ask: Callable[[T], R], about: Iterable[T]) -> dict[T, R]:
    """Ask about each thing, several at a time, and return the answers by thing."""
    things = tuple(dict.fromkeys(about))
    with threads("ask", QUESTIONS) as pool:
        return dict(zip(things, pool.map(ask, things), strict=True))


def outcomes(tasks: Iterable[Callable[[], T]], name: str, stop: Callable[[], object] = lambda: None, *, at_a_time: int = AT_A_TIME) -> list[T]:
    """Run tasks in threads, and return what they return, in their order.

    :param name: of the threads.
    :param stop: called after the first failure, to end running tasks; no other task starts, and the failure is raised.
    """
    with threads(name, at_a_time) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for done in as_completed(futures):
                done.result()
        except BaseException:
            stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]
