"""OS parts: the layers that ``images/<flavour>/Dockerfile`` adds on an OS. They know nothing of torch or CUDA.

One bake of BuildKit makes all that the store lacks. The OS image, and flavours that are in the store, are handed to it as OCI
layouts, so that nothing is built twice and every layer lies on the very layers that the store holds. Only the top flavour of
each OS is exported; labels in its history tell whose layer is whose.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata import process
from torchstrata.cells.matrix import ROOT, OperatingSystem
from torchstrata.content import inventory, layout, store
from torchstrata.content.archive import Loadable
from torchstrata.content.codec import Codec
from torchstrata.content.compose import Image, Runtime, Section, compose
from torchstrata.content.layers import Layer
from torchstrata.content.store import Part, Store
from torchstrata.errors import LockError, StaleLockError, StoreError
from torchstrata.locking import oslocks
from torchstrata.locking.oslocks import OS_IMAGE, OsLock, Packages
from torchstrata.ospart import bakefile, buildkit, contexts, osimage, oslayers
from torchstrata.ospart.bakefile import Exporter, Job
from torchstrata.ospart.buildkit import Exported
from torchstrata.ospart.oslayers import Taken

REPOSITORY: Final = "torchstrata-os"
"""Name, in the engine, of images that hold OS parts alone."""

PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

FORMAT: Final = 2
"""Raise it when the bytes of an OS part change for the same inputs."""

PACKAGES: Final = "packages"
"""Extra blob of a part: versions by package name, as JSON, of all packages up to its flavour."""

NAMED: Final = 6
"""Packages that one line about a stale lock names."""

Parts = Mapping[tuple[str, str], Part]
"""By id of the OS and name of the flavour."""


def identity(system: OperatingSystem, chain: Sequence[str], codec: Codec, root: Path = ROOT) -> str:
    """Return the identity of the OS part of the last flavour of ``chain`` (parents first).

    :raises LockError: the OS is not locked.
    """
    return _identity(system, chain, oslocks.read(system, root), codec, root)


def image(system: OperatingSystem, chain: Sequence[str], from_: Store, codec: Codec, root: Path = ROOT) -> Loadable:
    """Return an image of the OS parts of ``chain`` alone: the OS's Python, apt and compilers, to load into an engine and run.

    Its one tag, ``torchstrata-os:<identity>``, is what to run; an engine that has it is not sent anything.

    :raises StoreError: the store lacks a part; bake first.
    """
    parts = [from_.find(identity(system, chain[: count + 1], codec, root)) for count in range(len(chain))]
    if None in parts:
        raise StoreError(f"OS parts of {system.id} are not in the store", fix="build them first: nox -s build-<cell>")
    composed = _composed(system, [layer for part in parts if part for layer in part.layers])
    tag = f"{REPOSITORY}:{identity(system, chain, codec, root)[:12]}"
    return Loadable(config=composed.config, manifest=composed.manifest, tags=(tag,), layers=composed.layers)


def _identity(system: OperatingSystem, chain: Sequence[str], lock: OsLock, codec: Codec, root: Path) -> str:
    return store.identity(
        kind="os part",
        os_part=FORMAT,
        image=osimage.reference(system) or osimage.identity(system, lock, contexts.apt_config(root), codec),
        compilers=system.compilers,
        files=[contexts.tree(root, name) for name in (contexts.APT, *chain)],
        lock=lock.digest(chain),
        codec=codec.identity,
    )


def _is_as_before(lock: OsLock, system: OperatingSystem, root: Path) -> bool:
    """Return whether the lock in the repository names the same packages."""
    with contextlib.suppress(LockError):
        return oslocks.read(system, root).sections == lock.sections
    return False


def build_context(system: OperatingSystem, layers: Sequence[Layer], from_: Store, directory: Path) -> str:
    """Write an OCI layout of ``layers`` of the store into ``directory``; return it as a build context of BuildKit."""
    composed = _composed(system, layers)
    loadable = Loadable(config=composed.config, manifest=composed.manifest, tags=(f"{REPOSITORY}:{system.id}",), layers=composed.layers)
    layout.write(directory, [loadable], from_)
    return f"oci-layout://{directory}@{composed.digest}"


def _composed(system: OperatingSystem, layers: Iterable[Layer]) -> Image:
    """Return a plain image of ``layers``: no user, no environment."""
    runtime = Runtime(env={}, labels={}, user="", entrypoint=(), command=("/bin/bash",), workdir="/", ports=(), created="1980-01-02T00:00:00Z")
    return compose(system.id, [Section(origin="os", label=system.id, layers=tuple(layers))], runtime)


@dataclass(frozen=True, kw_only=True, slots=True)
class Oven:
    """What OS parts are made with.

    :param store: where they go.
    :param on_line: gets one line for each step done.
    :param on_drift: gets one line for each OS that is not as locked; ``on_line`` if ``None``.
    :param locked: refuse what differs from the locks.
    :param root: the repository.
    :param cancelled: set it to stop waiting for another build that makes the same parts.
    """

    store: Store
    codec: Codec
    on_line: process.LineSink
    on_drift: process.LineSink | None = None
    locked: bool = False
    root: Path = ROOT
    cancelled: threading.Event | None = None

    def bake(self, systems: Iterable[OperatingSystem], flavours: Sequence[str]) -> Parts:
        """Return the OS parts of ``flavours`` on each of ``systems``; make those that the store lacks.

        A part holds the layers that its flavour adds; that of the first flavour also holds the OS image. Where the mirror has
        dropped a locked version, today's is used, which one line tells and the part notes (``drift``).

        :param flavours: a chain, parents first.
        :raises StaleLockError: ``locked``, and something differs.
        :raises OsPartError: a step failed.
        :raises BuildxError: docker has no buildx.
        """
        return _Baking(oven=self, flavours=tuple(flavours), locks={system: oslocks.read(system, self.root) for system in systems}).parts()

    def relock(self, systems: Iterable[OperatingSystem], flavours: Sequence[str]) -> list[Path]:
        """Lock the OS packages of ``systems`` anew, by building ``flavours`` with what mirrors offer today; return the files written.

        What was built serves the new locks. A lock whose packages have not moved is left as it is.
        """
        today = dt.datetime.now(dt.UTC).date().isoformat()
        baking = _Baking(oven=self, flavours=tuple(flavours), locks={system: oslocks.unlocked(system, today, self.root) for system in systems})
        made = baking.parts()
        return [written for system in baking.locks if (written := baking.adopt(system, made))]


@dataclass(frozen=True, kw_only=True)
class _Baking:
    """One run over some systems.

    :param flavours: a chain, parents first.
    :param locks: what to pin, by system.
    """

    oven: Oven
    flavours: tuple[str, ...]
    locks: Mapping[OperatingSystem, OsLock]

    def parts(self) -> Parts:
        """Return the parts of all flavours on all systems; make those that the store lacks."""
        with contextlib.ExitStack() as held:
            for wanted in sorted(self._identity(system, self.flavours) for system in self.locks if self._missing(system)):
                held.enter_context(self.oven.store.lock(wanted, self.oven.cancelled))
            self._make([system for system in self.locks if self._missing(system)])
        return {(system.id, flavour): part for system in self.locks for flavour, part in self._found(system).items()}

    def adopt(self, system: OperatingSystem, made: Parts) -> Path | None:
        """Write the lock of what was made, if it moved, and let the parts serve it; return its path if it was written."""
        os_image = self._os_image(system)
        installed = {OS_IMAGE: self._packages(os_image) if os_image else {}}
        installed |= {flavour: self._packages(made[system.id, flavour]) for flavour in self.flavours}
        lock = oslocks.solved(self.locks[system], installed)
        if _is_as_before(lock, system, self.oven.root):
            return None
        if os_image:
            self.oven.store.remember(self._image_identity(system, lock), os_image)
        for count, flavour in enumerate(self.flavours, 1):
            self.oven.store.remember(_identity(system, self.flavours[:count], lock, self.oven.codec, self.oven.root), made[system.id, flavour])
        return oslocks.write(lock, system, self.oven.root)

    # What is there

    def _identity(self, system: OperatingSystem, chain: Sequence[str]) -> str:
        return _identity(system, chain, self.locks[system], self.oven.codec, self.oven.root)

    def _image_identity(self, system: OperatingSystem, lock: OsLock) -> str:
        return osimage.identity(system, lock, contexts.apt_config(self.oven.root), self.oven.codec)

    def _found(self, system: OperatingSystem) -> dict[str, Part]:
        """Return the parts in the store from the bottom up to the first that is missing."""
        found: dict[str, Part] = {}
        for count, flavour in enumerate(self.flavours, 1):
            part = self.oven.store.find(self._identity(system, self.flavours[:count]))
            if part is None or (self.oven.locked and "drift" in part.notes):
                break
            found[flavour] = part
        return found

    def _missing(self, system: OperatingSystem) -> tuple[str, ...]:
        return self.flavours[len(self._found(system)) :]

    def _packages(self, part: Part) -> Packages:
        content: Packages = json.loads(self.oven.store.open_blob(part.extras[PACKAGES]).read_bytes())
        return content

    # Making it

    def _make(self, systems: Sequence[OperatingSystem]) -> None:
        if not systems:
            return
        exporter = buildkit.exporter()
        with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory(dir=self.oven.store.scratch()) as directory:
            list(pool.map(self._os_image, systems))
            work = Path(directory)
            jobs = [self._job(system, work, exporter) for system in systems]
            pins = {job.system: (self.locks[job.system], self.flavours) for job in jobs}
            contexts.stage(self.oven.root, self.flavours, pins, work)
            proxies = {name: os.environ[name] for name in PROXIES if name in os.environ}
            buildkit.bake(bakefile.definition(jobs, work, work, exporter, proxies), self.oven.on_line)
            for job in jobs:
                self._keep(job, self._exported(job, work, exporter), pool.map)

    def _os_image(self, system: OperatingSystem) -> Part | None:
        """Return the bootstrapped OS image, from the store or made now; None for one that comes from a registry."""
        if osimage.reference(system):
            return None
        lock = self.locks[system]
        wanted = self._image_identity(system, lock)
        with self.oven.store.lock(wanted, self.oven.cancelled):
            part = self.oven.store.find(wanted)
            if part is None:
                self.oven.on_line(f"{system.id}: bootstrapping {system.suite}")
                command = osimage.Command.find(self.oven.on_line)
                with command.tar(system, lock, contexts.apt_config(self.oven.root), self.oven.store.scratch()) as tar:
                    taken = oslayers.take(tar, self.oven.store, self.oven.codec, title=f"{system.id}: {system.suite}, minimal", epoch=lock.epoch)
                part = self._part(system, OS_IMAGE, None, [taken])
                self.oven.store.remember(wanted, part)
        return part

    def _job(self, system: OperatingSystem, work: Path, exporter: Exporter) -> Job:
        """Return what to build on ``system``, over layers of the store where the exporter allows it."""
        job = functools.partial(Job, system=system, epoch=self.locks[system].epoch)
        image, parts = self._os_image(system), self._found(system)
        if exporter == "layout" and parts:
            stored = [layer for part in parts.values() for layer in part.layers]
            return job(flavours=self._missing(system), parent=list(parts)[-1], below=self._layout(system, stored, work), known=len(stored))
        if image is None:
            return job(flavours=self.flavours, parent=OS_IMAGE, below=f"docker-image://{osimage.reference(system)}", known=0)
        below = self._layout(system, image.layers, work) if exporter == "layout" else self._archive(system, image.layers[0], work)
        return job(flavours=self.flavours, parent=OS_IMAGE, below=below, known=1)

    def _layout(self, system: OperatingSystem, layers: Sequence[Layer], work: Path) -> str:
        return build_context(system, layers, self.oven.store, work / f"below-{system.id}")

    def _archive(self, system: OperatingSystem, layer: Layer, work: Path) -> str:
        """Put the OS image's tar where a Dockerfile can ADD it; return the directory."""
        directory = work / f"below-{system.id}"
        directory.mkdir()
        shutil.copyfile(self.oven.store.open_blob(layer.digest, layer.size), directory / "os.tar")
        return str(directory)

    # Keeping it

    def _exported(self, job: Job, work: Path, exporter: Exporter) -> tuple[Exported, ...]:
        """Return the layers that a job made."""
        layout = work / job.top
        if exporter == "image":
            buildkit.save(bakefile.image_name(job), layout)
        return buildkit.exported(layout, job.flavours)[job.known :]

    def _keep(self, job: Job, layers: Sequence[Exported], in_parallel: Callable[..., Iterable[Taken]]) -> None:
        """Put the layers of a job into the store, and remember the parts that were missing."""
        below, missing = self._os_image(job.system), self._missing(job.system)
        taken = list(in_parallel(functools.partial(self._take, job), layers))
        parts = {}
        for flavour in job.flavours:
            own = [made for made, layer in zip(taken, layers, strict=True) if layer.flavour == flavour]
            parts[flavour] = self._part(job.system, flavour, below if flavour == self.flavours[0] else None, own)
        self._compare(job.system, parts[job.flavours[-1]])
        for count, flavour in enumerate(self.flavours, 1):
            if flavour in missing:
                self.oven.store.remember(self._identity(job.system, self.flavours[:count]), parts[flavour])

    def _take(self, job: Job, layer: Exported) -> Taken:
        with layer.open() as tar:
            return oslayers.take(tar, self.oven.store, self.oven.codec, title=f"{job.system.id} {layer.flavour}: {layer.step}"[:160], epoch=job.epoch)

    def _part(self, system: OperatingSystem, flavour: str, below: Part | None, own: Sequence[Taken]) -> Part:
        """Return the part of ``flavour`` with what dpkg says is installed, and where that differs from the lock."""
        status = next(taken.status for taken in reversed(own) if taken.status)
        chain = () if flavour == OS_IMAGE else self.flavours[: self.flavours.index(flavour) + 1]
        packages, lock = oslocks.installed(status), self.locks[system]
        moves = oslocks.moves(lock.installed(chain), packages) if lock.sections else ()
        drift = {"drift": ", ".join(map(str, moves))} if moves else {}
        lower = [below] if below else []
        held = inventory.merged([*(inventory.of(part, self.oven.store.open_blob) for part in lower), *(taken.inventory for taken in own)])
        return Part(
            layers=(*(layer for part in lower for layer in part.layers), *(taken.layer for taken in own)),
            extras={PACKAGES: self.oven.store.add_blob(json.dumps(packages, sort_keys=True).encode()), **inventory.kept(held, self.oven.store)},
            notes={"title": f"{system.id} {flavour}", **drift},
        )

    def _compare(self, system: OperatingSystem, top: Part) -> None:
        """Say in one line what the mirror no longer has, or refuse it.

        :raises StaleLockError: something differs, and only what is locked may be used.
        """
        if "drift" not in top.notes:
            return
        moved = top.notes["drift"].split(", ")
        named = ", ".join(moved[:NAMED]) + (f" and {len(moved) - NAMED} more" if len(moved) > NAMED else "")
        if self.oven.locked:
            raise StaleLockError(f"{system.id}: mirrors no longer offer what is locked: {named}", fix="lock today's packages with `inv lock --os`")
        (self.oven.on_drift or self.oven.on_line)(f"{system.id}: not as locked on {self.locks[system].date}: {named}")
