"""Make what a plan lacks. All cores work, and what is complete stays complete.

Every missing item is a task of its own that waits for what it needs: wheels for their download, bytecode for its
sources and for the interpreter of its OS part. Downloads, conversions and the OS parts overlap.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Final, Self, TypeVar

from torchstrata import process
from torchstrata.building import engine as engines
from torchstrata.building import loading
from torchstrata.building.plan import Bytecode, Item, OsPart, Plan
from torchstrata.building.workers import PATIENCE, Workers
from torchstrata.errors import TorchstrataError
from torchstrata.host import emulator
from torchstrata.host.filesystem import disk
from torchstrata.host.leavings import Leaving
from torchstrata.layers import bytecode, os_parts, strata, toolchain, wheel_fetch
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain_lock import Toolchain
from torchstrata.locks import wheel_locks
from torchstrata.locks.lockfile import Pin
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.progress import Reporter
from torchstrata.store.codec import Codec
from torchstrata.store.part import Part
from torchstrata.store.store import Store

T = TypeVar("T")

FETCHERS: Final = 6
"""Downloads at a time; more gain nothing on one link."""

IN_FLIGHT: Final = 1_900_000_000
"""Bytes of wheels on disk at a time, so that a cell fits a small CI runner beside its layers."""


class Budget:
    """Bytes that may be on disk at a time; a request larger than all of it waits until it is alone.

    Requests are served in their order: the lowest layers come first, for which an engine waits to begin with unpacking.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def spend(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and (self._used == 0 or self._used + count <= self._limit))
            self._waiting.popleft()
            self._used += count
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= count
                self._changed.notify_all()


class Maker:
    """Makes the missing items of a plan, in threads; a context manager that leaves no program behind.

    After Ctrl-C each of its pools gets :data:`PATIENCE` seconds: a thread that does not end by then has no say. What
    it has begun in the store is swept by the next run, as after a crash.

    :param locked: refuse OS packages of other versions than the lock's.
    """

    def __init__(self, plan: Plan, store: Store, codec: Codec, reporter: Reporter, *, locked: bool) -> None:
        self._store, self._codec, self._reporter, self._locked = store, codec, reporter, locked
        self._missing = plan.missing()
        self._found = {item.identity: item.part for item in plan.items() if item.part}
        self._made: dict[str, Future[Part]] = {}
        self._cancelled = threading.Event()
        self._begun = threading.Event()
        self._failure: BaseException | None = None
        self._budget = Budget(IN_FLIGHT)
        self._cores = threading.Semaphore(os.cpu_count() or 1)
        self._mutex = threading.Lock()
        self._interpreters: dict[str, Leaving] = {}
        self._links = uuid.uuid4().hex
        self._fetchers = Workers(FETCHERS, "fetch")
        self._tasks = Workers(len(self._missing) + 1, "make")

    def __enter__(self) -> Self:
        bake = [item for item in self._missing if isinstance(item.source, OsPart)]
        baked = self._tasks.submit(self._guard, functools.partial(self._bake, bake)) if bake else None
        for item in self._missing:
            make = functools.partial(self._one, item) if baked is None or item not in bake else functools.partial(_one_of, baked, item)
            self._made[item.identity] = self._tasks.submit(self._guard, make)
        self._begun.set()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._cancelled.set()
            process.stop_all()
        patience = None if error is None or isinstance(error, Exception) else PATIENCE  # Ctrl-C is no Exception
        ended = [workers.end(cancel=error is not None, patience=patience) for workers in (self._tasks, self._fetchers)]
        if not all(ended):
            self._reporter.say("Some work did not end when asked; the next run sweeps what it leaves.")
        elif self._missing and (self._store.scratch() / self._links).exists():
            shutil.rmtree(self._store.scratch() / self._links)
        for image in self._interpreters.values():
            image.remove()  # one that cannot be removed now is on a list for the next build

    def part(self, identity: str) -> Part:
        """Return a part of the plan, once it is there.

        :raises TorchstrataError: why it, or what it depends on, could not be made.
        """
        if identity in self._found:
            return self._found[identity]
        try:
            return self._made[identity].result()
        except CancelledError:
            raise self._failure or KeyboardInterrupt from None
        except TorchstrataError as error:  # it may have been ended because of another one
            raise self._failure or error from error.__cause__

    def _guard(self, make: Callable[[], T]) -> T:
        """Run a task once all tasks exist; when one fails, all end, and the first failure is reported."""
        self._begun.wait()
        try:
            if self._cancelled.is_set():
                raise CancelledError
            return make()
        except BaseException as error:
            if self._failure is None and not isinstance(error, CancelledError):
                self._failure = error
            if not self._cancelled.is_set():
                self._cancelled.set()
                process.stop_all()
            raise

    def _one(self, item: Item) -> Part:
        """Make one item, unless another build has made it by the time that this one may."""
        needed = self._needs(item)
        with disk(self._store.root), self._store.lock(item.identity, self._cancelled):
            part = self._store.find(item.identity)
            if part is None:
                part = self._make(item, needed)
                self._store.remember(item.identity, part)
            return part

    def _needs(self, item: Item) -> tuple[Part, ...]:
        """Wait for the parts that ``item`` is made from, and return them."""
        needed: tuple[Stratum, ...] = ()
        if isinstance(item.source, Stratum):
            needed = item.source.needs
        if isinstance(item.source, Bytecode):
            needed = item.source.sources
        return tuple(self.part(stratum.identity(self._codec)) for stratum in needed)

    def _make(self, item: Item, needed: Sequence[Part]) -> Part:
        if isinstance(item.source, Bytecode):
            return self._compile(item.title, item.source, needed)
        with self._budget.spend(item.fetch):
            files = self._fetch(item)
            with self._cores, self._reporter.step("convert", item.title):
                part = self._convert(item.source, files)
        for pin in item.pins:
            self._discard(files[pin.sha256], pin)
        return part

    def _fetch(self, item: Item) -> dict[str, Path]:
        """Return the wheels of ``item`` by their SHA-256."""
        if not item.pins:
            return {}
        with self._reporter.step("fetch", item.title, item.fetch) as step:
            fetch = functools.partial(self._wheel, on_bytes=step.advance)
            fetched = [self._fetchers.submit(fetch, pin) for pin in item.pins]
            return {pin.sha256: outcome.result() for pin, outcome in zip(item.pins, fetched, strict=True)}

    def _wheel(self, pin: Pin, on_bytes: Callable[[int], None]) -> Path:
        """Return a wheel under a name of this build's own: another build removes the common one when it has it."""
        while True:
            path = wheel_fetch.fetch(pin, self._store.downloads, on_bytes=on_bytes, cancelled=self._cancelled)
            if not path.is_relative_to(self._store.downloads):
                return path
            own = self._store.scratch() / self._links / uuid.uuid4().hex / path.name
            own.parent.mkdir(parents=True)
            with contextlib.suppress(FileNotFoundError):  # it was removed just now
                os.link(path, own)
                return own

    def _discard(self, path: Path, pin: Pin) -> None:
        """Remove a download under both its names; files of local sources stay."""
        if path.is_relative_to(self._store.root):
            path.unlink()
            wheel_fetch.discard(pin, self._store.downloads)

    def _convert(self, source: Stratum | Toolchain | Bytecode | OsPart, files: Mapping[str, Path]) -> Part:
        if isinstance(source, Stratum):
            return strata.make(source, files, self._store, self._codec, self._cancelled)
        assert isinstance(source, Toolchain)
        return toolchain.make(source, files, self._store, self._codec, self._cancelled, on_line=self._reporter.say)

    def _compile(self, title: str, source: Bytecode, sources: Sequence[Part]) -> Part:
        self.part(source.base)
        layers = itertools.chain.from_iterable(part.layers for part in sources)
        image = self._interpreter(source.system)
        with self._cores, self._reporter.step("compile", title):
            return bytecode.make(layers, image, self._store, self._codec, title)

    def _interpreter(self, system: OperatingSystem) -> str:
        """Return an image in the engine that has the system's own Python; it goes when everything is made.

        Its name is this build's own, so that another build that ends does not take it away.
        """
        with self._mutex:
            if system.name not in self._interpreters:
                engine = engines.connect()
                emulator.ensure(system.platform, self._reporter.say)
                image = os_parts.image(system, (wheel_locks.TORCH_FLAVOUR,), self._store, self._codec)
                own = replace(image, tags=(f"{image.tags[0]}-{uuid.uuid4().hex[:8]}",))
                self._interpreters[system.name] = self._store.leave("image", own.tags[0])
                loading.load(engine, [own], self._store.open_blob)
            return self._interpreters[system.name].name

    def _bake(self, items: Sequence[Item]) -> Mapping[str, Part]:
        """Have BuildKit make every missing OS part, one lineage after the other; return them by identity."""
        wanted = {item.identity: item.source for item in items if isinstance(item.source, OsPart)}
        # Of one platform it may be the base alone, whose Python compiles.
        platforms = sorted({part.system.platform for part in wanted.values()})
        baked = [self._baked([part for part in wanted.values() if part.system.platform == platform]) for platform in platforms]
        parts = dict(itertools.chain.from_iterable(baked_parts.items() for baked_parts in baked))
        return {identity: parts[part.system.name, part.lineage[-1]] for identity, part in wanted.items()}

    def _baked(self, wanted: Sequence[OsPart]) -> os_parts.Parts:
        """Return the OS parts of one platform, by names of the OS and of the flavour."""
        systems = {part.system.name: part.system for part in wanted}
        lineages = tuple(dict.fromkeys(part.lineage for part in wanted))
        names = dict.fromkeys(itertools.chain.from_iterable(lineages))
        with self._reporter.step("os", f"{', '.join(systems)}: {', '.join(names)}") as step:
            builder = OsPartBuilder(
                store=self._store, codec=self._codec, on_line=step.note, on_drift=self._reporter.say, locked=self._locked, cancelled=self._cancelled
            )
            return builder.bake(tuple(systems.values()), *lineages)


def _one_of(baked: Future[Mapping[str, Part]], item: Item) -> Part:
    return baked.result()[item.identity]
