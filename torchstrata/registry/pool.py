"""Work of one kind in threads, which ends at the first failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

T = TypeVar("T")

AT_A_TIME: Final = 4
"""Blobs; more gain nothing on one link, and each has a buffer."""


def outcomes(tasks: Iterable[Callable[[], T]], name: str, stop: Callable[[], object] = lambda: None, *, at_a_time: int = AT_A_TIME) -> list[T]:
    """Run tasks in threads, and return what they return, in their order.

    :param name: of the threads.
    :param stop: called after the first failure, to end running tasks; no other task starts, and the failure is raised.
    """
    with ThreadPoolExecutor(at_a_time, name) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for done in as_completed(futures):
                done.result()
        except BaseException:
            stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]
