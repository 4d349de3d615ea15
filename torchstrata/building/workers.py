"""Threads that a program can leave behind: Python's own pools hold it up until the last of their threads has ended."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 0.8
"""Seconds that the threads of a pool get to end by themselves after Ctrl-C."""

_Task = Callable[[], None]


class Workers:
    """A pool of daemon threads that start as work comes.

    :param count: threads at most.
    :param name: what they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._tasks: queue.SimpleQueue[tuple[Future[Any], _Task] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Let a thread do some work; return where its outcome will be."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work(*args))
            except BaseException as error:  # noqa: BLE001  # raised again where the outcome is asked for
                outcome.set_exception(error)

        self._tasks.put((outcome, run))
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return outcome

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            outcome, run = task
            if outcome.set_running_or_notify_cancel():
                run()

    def end(self, *, cancel: bool, patience: float | None = None) -> bool:
        """Wait until all work is done, and end the threads.

        :param cancel: drop what has not begun.
        :param patience: seconds to wait at most; what still runs then is left behind, and ends with the program.
        :returns: whether nothing was left behind.
        """
        while cancel and not self._tasks.empty():
            self._drop()
        for _ in self._threads:
            self._tasks.put(None)
        latest = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            thread.join(None if latest is None else max(0.0, latest - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _drop(self) -> None:
        """Cancel one piece of work that has not begun, if no thread was quicker."""
        try:
            task = self._tasks.get_nowait()
        except queue.Empty:
            return
        if task:
            outcome, _ = task
            outcome.cancel()
            outcome.set_running_or_notify_cancel()
