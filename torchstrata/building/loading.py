"""One load of images into an engine, which can begin while the upper layers are still being made.

An engine first takes an archive in and then unpacks it, each with one core. So layers go up in steps, each a nameless
image of all layers so far with only the new blobs, and two steps are under way at a time: while one is unpacked the
next is sent, and its end is held back until the one below is done. Measured on 2 busy cores with 2 GB (4 GB
unpacked), steps against one archive: classic store 28-31 s against 42-45 s; containerd store between 28 s against 33
s and, with nine times more work waiting than cores, 56 s against 45 s. There the gain is that the load begins while
layers are still being made.

What the engine has is never assumed, only concluded from the images that it lists. If the conclusion was wrong
(somebody removed an image meanwhile, or has the same layers compressed differently), the check after the load finds
out, and the images are sent once more, complete. Only then do they get their names.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal, Self

from torchstrata.building.engine import Engine, OnBytes, Refused
from torchstrata.image.loadable import Loadable, chain_ids, prefix
from torchstrata.progress import ignore
from torchstrata.store.layer import PLATFORM, Layer, OpenBlob

STEP: Final = 64_000_000
"""Compressed bytes that are worth a step of their own."""

UNDER_WAY: Final = 2
"""Steps at a time: one that is sent and one that is unpacked."""


class _StoppedError(Exception):
    """Ends the threads of a load that was given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What a load did.

    :param way: ``nothing`` had to be sent, or the ``lean`` archive was enough, or the ``full`` one was needed.
    :param sent: bytes sent.
    """

    way: Literal["nothing", "lean", "full"]
    sent: int


def load(engine: Engine, images: Sequence[Loadable], open_blob: OpenBlob) -> LoadReport:
    """Load images and name them, sending only the layers that the engine lacks.

    :param open_blob: gives the file of a blob.
    :raises DiskFullError: the engine has no space left.
    :raises EngineError: it refused the images, or died.
    """
    absent = [image for image in images if engine.id_of(image) not in engine.whole()]
    with Loading(engine, open_blob, platform=next((image.platform for image in images), PLATFORM)) as loading:
        loading.add(*max((image.layers for image in absent), key=len, default=()))
        return loading.finish(images)


class Loading:
    """Feed it layers bottom to top with :meth:`add` as they become ready, then :meth:`finish` it; a context manager.

    Left without :meth:`finish`, it ends at once; what the engine has unpacked by then serves the next load.

    :param on_bytes: called with the number of bytes sent, from several threads; what it raises ends the load.
    """

    def __init__(self, engine: Engine, open_blob: OpenBlob, on_bytes: OnBytes = ignore, platform: str = PLATFORM) -> None:
        self._engine, self._open_blob, self._on_bytes, self._platform = engine, open_blob, on_bytes, platform
        self._held = engine.held()
        self._chain: list[Layer] = []
        self._waiting: list[Layer] = []
        self._steps: list[Future[None]] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()

    def add(self, *layers: Layer) -> None:
        """Take the next layers upward, and begin to send them; returns at once, errors come from :meth:`finish`."""
        for layer in layers:
            self._chain.append(layer)
            if chain_ids(below.diff_id for below in self._chain)[-1] not in self._held:
                self._waiting.append(layer)
            if sum(waiting.size for waiting in self._waiting) >= STEP:
                self._step()

    def finish(self, images: Sequence[Loadable]) -> LoadReport:
        """Load and name ``images``, whose lowest layers were given to :meth:`add`; errors as for :func:`load`."""
        way: Literal["nothing", "lean", "full"]
        try:
            for step in self._steps:
                step.result()
            way = "lean" if self._complete(images, everything=False) or self._steps else "nothing"
        except Refused:
            self._complete(images, everything=True)
            way = "full"
        for image in images:
            self._engine.unpack(image)
            self._engine.name(image)
        self._engine.sweep(images)
        return LoadReport(way=way, sent=self._sent)

    def _complete(self, images: Sequence[Loadable], *, everything: bool) -> bool:
        """Send the images that the engine lacks, with all layers or those that it lacks; return whether any were."""
        here = self._engine.whole()
        absent = [image for image in images if self._engine.id_of(image) not in here]
        if absent:
            self._engine.send(absent, self._missing(absent, everything=everything), self._open_blob, self._count, ignore)
        for image in absent:
            self._engine.check(image)
        return bool(absent)

    def _missing(self, images: Sequence[Loadable], *, everything: bool) -> list[Layer]:
        held = frozenset() if everything else self._engine.held()
        pairs = itertools.chain.from_iterable(zip(image.layers, chain_ids(image.diff_ids), strict=True) for image in images)
        return [layer for layer, chain in pairs if chain not in held]

    def _step(self) -> None:
        """Begin to send the waiting layers, on top of the steps before."""
        done: Future[None] = Future()
        args = (done, prefix(self._chain, self._platform), tuple(self._waiting), tuple(self._steps[-UNDER_WAY:]))
        self._steps.append(done)
        self._waiting.clear()
        threading.Thread(target=self._run, args=args, daemon=True).start()

    def _run(self, done: Future[None], image: Loadable, layers: Sequence[Layer], before: Sequence[Future[None]]) -> None:
        """Send a step when the one before the last is done, and let the engine unpack it when the last one is."""
        try:
            for step in before[: 1 - UNDER_WAY]:
                step.result()
            self._engine.send([image], layers, self._open_blob, self._count, lambda: [step.result() for step in before])
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001  # handed to whoever waits for this step
            done.set_exception(error)

    def _count(self, count: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        with self._lock:
            self._sent += count
        self._on_bytes(count)
