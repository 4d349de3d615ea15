"""One bake of OS parts: BuildKit makes what the store lacks, for a flavour and its parents on some systems.

The OS image, and flavours that are in the store, are handed to it as OCI layouts, so that nothing is built twice and
every layer lies on the very layers that the store holds. Only the top flavour of each OS is exported; labels in its
history tell whose layer is whose. Where mirrors lack what is locked, the distribution's snapshot archive is asked.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torchstrata.errors import LockError, OsPartError, StoreError
from torchstrata.host import apt, emulator
from torchstrata.host.filesystem import CACHE_VARIABLE, disk
from torchstrata.layers import bakefile, buildkit, contexts, os_image_source, os_layers, os_parts
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.layers.archives import is_of_apt
from torchstrata.layers.bakefile import Exporter, Job
from torchstrata.layers.buildkit import Exported
from torchstrata.layers.os_image_source import BakeSettings, OsImageSource
from torchstrata.layers.os_layers import StoredLayer
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OS_IMAGE, OsLock
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.store.part import Part

SEPARATORS: Final = "@:,"
"""What ends a path in buildx's names of layouts and of places to export to; the home of ``ada@corp`` has one."""

Baked = Mapping[OperatingSystem, dict[str, Part]]
"""Parts that were missing, by system and flavour."""


def _is_as_before(lock: OsLock, system: OperatingSystem, root: Path) -> bool:
    """Return whether the lock in the repository names the same OS image and packages."""
    with contextlib.suppress(LockError):
        now = os_locks.read(system, root)
        return (now.sections, now.image) == (lock.sections, lock.image)
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Workspace:
    """What all calls of BuildKit in a bake share.

    :param work: a directory of their own.
    :param in_parallel: maps a function over what many threads can do.
    """

    work: Path
    exporter: Exporter
    in_parallel: Callable[..., Iterable[StoredLayer]]

    def check(self) -> None:
        """Refuse a directory that buildx would take for another one.

        :raises StoreError: it would.
        """
        marks = [mark for mark in SEPARATORS if mark in str(self.work)]
        if self.exporter == "layout" and marks:
            fix = f"set {CACHE_VARIABLE} to a directory whose path has none of {' '.join(SEPARATORS)}"
            raise StoreError(f"{self.work} is in a place whose name buildx takes apart at {' and '.join(marks)}", fix=fix)


@dataclass(frozen=True, kw_only=True)
class Bake:
    """One run of BuildKit over some systems.

    :param flavours: one and its parents, parents first.
    :param locks: what to pin, by system.
    """

    settings: BakeSettings
    flavours: tuple[str, ...]
    locks: Mapping[OperatingSystem, OsLock]

    @functools.cached_property
    def images(self) -> OsImageSource:
        """Where the OS images come from that it begins with."""
        return OsImageSource(settings=self.settings, locks=self.locks)

    def parts(self) -> os_parts.Parts:
        """Return the parts of all flavours on all systems; make those that the store lacks."""
        with disk(self.settings.store.root), contextlib.ExitStack() as held:
            self.check_files()
            for wanted in sorted(self._identity(system, self.flavours) for system in self.locks if self._missing(system)):
                held.enter_context(self.settings.store.lock(wanted, self.settings.cancelled))
            self._make([system for system in self.locks if self._missing(system)])
        parts: dict[tuple[str, str], Part] = {}
        for system in self.locks:
            parts |= {(system.name, flavour): part for flavour, part in self._stored(system).items()}
        return parts

    def adopt(self, system: OperatingSystem, lineages: Mapping[str, tuple[str, ...]], made: os_parts.Parts) -> Path | None:
        """Write the lock of what was made, if it moved, and let the parts serve it; return its path if it was written.

        :param lineages: of each flavour that was made, parents first.
        """
        before, os_image = self.locks[system], self.images.image(system)
        installed = {}
        if not before.sections:
            installed[OS_IMAGE] = self.images.packages(os_image) if os_image else self.images.held(system)
        installed |= {flavour: self.images.packages(made[system.name, flavour]) for flavour in lineages}
        due = before.opened if before.sections else lineages.keys()
        parents = {flavour: (OS_IMAGE, *lineage)[-2] for flavour, lineage in lineages.items() if flavour in due}
        lock = os_locks.solved(before, installed, parents)
        if _is_as_before(lock, system, self.settings.root):
            return None
        if os_image:
            self.settings.store.remember(self.images.identity(system, lock), os_image)
        for flavour, parent in parents.items():
            part, below = made[system.name, flavour], made.get((system.name, parent))
            moves = lock.moves(lineages[flavour], installed[flavour])
            noted = replace(part, notes=os_parts.notes(part.notes["title"], moves, part.layers, below))
            identity = os_parts.identity_by(system, lineages[flavour], lock, self.settings.codec, self.settings.root)
            self.settings.store.remember(identity, noted)
        return os_locks.write(lock, system, self.settings.root)

    @functools.cached_property
    def _files(self) -> dict[str, object]:
        """What the flavours are made from, as it was when this was first asked."""
        return self._files_now()

    def _files_now(self) -> dict[str, object]:
        return {name: contexts.tree(self.settings.root, name) for name in (contexts.APT, *self.flavours)}

    def check_files(self) -> None:
        """Refuse to go on where somebody has edited what parts are made from: they would be kept for the new files.

        :raises OsPartError: it is not as when this was first asked.
        """
        now = self._files_now()
        changed = [f"images/{name}" for name, files in self._files.items() if files != now[name]]
        if changed:
            raise OsPartError(f"{', '.join(changed)} changed while OS parts were made from it", fix="run it again; nothing of this run is kept")

    # What is there

    def _identity(self, system: OperatingSystem, lineage: Sequence[str]) -> str:
        return os_parts.identity_by(system, lineage, self.locks[system], self.settings.codec, self.settings.root)

    def _stored(self, system: OperatingSystem) -> dict[str, Part]:
        """Return the parts in the store from the bottom up to the first that is missing."""
        parts: dict[str, Part] = {}
        for count, flavour in enumerate(self.flavours, 1):
            part = self.settings.store.find(self._identity(system, self.flavours[:count]))
            if part is None or not os_parts.fits(part, next(reversed(parts.values()), None), locked=self.settings.locked):
                break
            parts[flavour] = part
        return parts

    def _missing(self, system: OperatingSystem) -> tuple[str, ...]:
        return self.flavours[len(self._stored(system)) :]

    # Making it

    def _make(self, systems: Sequence[OperatingSystem]) -> None:
        if not systems:
            return
        for platform in {system.platform for system in systems}:
            emulator.ensure(platform, self.settings.tell)
        with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            workspace = _Workspace(work=Path(directory), exporter=buildkit.exporter(), in_parallel=pool.map)
            workspace.check()
            list(pool.map(self.images.image, systems))
            baked = self._baked_well(systems, workspace)
            self.check_files()
            for system, parts in baked.items():
                self.images.compare(system, os_parts.top(parts))
                for count, flavour in enumerate(self.flavours, 1):
                    if flavour in parts:
                        self.settings.store.remember(self._identity(system, self.flavours[:count]), parts[flavour])

    def _baked_well(self, systems: Sequence[OperatingSystem], workspace: _Workspace) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour: from its mirrors, or with its archive if that is better.

        :raises OsPartError: neither has them.
        """
        try:
            settings = {system: self.images.helped.get(system) or AptSettings.of_host() for system in systems}
            made = self._baked(systems, workspace, settings)
        except OsPartError as error:
            if self.images.helped and is_of_apt(error):  # the archive does not answer any more
                self.images.no_archive.update(dict.fromkeys(self.images.helped, os_image_source.NO_HELP.format(why=error.what)))
                self.images.helped.clear()
                return self._baked_well(systems, workspace)
            archived = {system: told for system in systems if is_of_apt(error) and (told := self.images.archive(system, alone=True))}
            if len(archived) < len(systems):
                raise
            try:
                return self._baked(systems, workspace, archived)
            except OsPartError as archive_error:
                if is_of_apt(archive_error):  # it cannot be reached, or lacks the same: what today's mirror said is what can be cured
                    raise error from archive_error
                raise
        asked = self.images.no_archive.keys() | self.images.helped.keys()
        for system in systems:
            if system not in asked and os_parts.drift(os_parts.top(made[system])) and (archive := self.images.archive(system)):
                made |= self._better({system: made[system]}, workspace, archive)
        return made

    def _better(self, made: Baked, workspace: _Workspace, told: AptSettings) -> Baked:
        """Return what was made of a system, or what its archive makes of it if more of that is as locked."""
        (system,) = made
        try:
            again = self._baked([system], workspace, {system: told})
        except OsPartError as error:
            self.images.no_archive[system] = os_image_source.NO_HELP.format(why=error.what)
            return made
        return self.images.better_of(system, made, again, lambda baked: os_parts.drift(os_parts.top(baked[system])))

    def _baked(
        self, systems: Sequence[OperatingSystem], workspace: _Workspace, told: Mapping[OperatingSystem, AptSettings]
    ) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour.

        :param told: settings of apt, by system.
        """
        work = Path(tempfile.mkdtemp(dir=workspace.work))
        jobs = [self._job(system, work, workspace.exporter) for system in systems]
        pins = {system: (self.locks[system], self.flavours) for system in systems}
        contexts.stage(self.settings.root, self.flavours, pins, work, told)
        for job in jobs if workspace.exporter == "image" else ():
            self.settings.store.leave("image", bakefile.image_name(job))
        buildkit.bake(bakefile.definition(jobs, work, work, workspace.exporter, apt.own_proxies()), self.settings.on_line)
        return {job.system: self._kept(job, self._exported(job, work, workspace.exporter), workspace.in_parallel) for job in jobs}

    def _job(self, system: OperatingSystem, work: Path, exporter: Exporter) -> Job:
        """Return what to build on ``system``, over layers of the store where the exporter allows it."""
        plain = frozenset(flavour for flavour in self.flavours if not contexts.installs(self.settings.root, flavour))
        job = functools.partial(Job, system=system, epoch=self.locks[system].epoch, plain=plain)
        image, parts = self.images.image(system), self._stored(system)
        if exporter == "layout" and parts:
            stored = [*itertools.chain.from_iterable(part.layers for part in parts.values())]
            below = self.images.layout(system, stored, work)
            return job(flavours=self._missing(system), parent=list(parts)[-1], below=below, known=len(stored))
        if image is None:
            return job(flavours=self.flavours, parent=OS_IMAGE, below=self.images.registry(system), known=0)
        return job(flavours=self.flavours, parent=OS_IMAGE, below=self.images.below(system, image, work, exporter), known=1)

    # Keeping it

    def _exported(self, job: Job, work: Path, exporter: Exporter) -> tuple[Exported, ...]:
        layout = work / job.top
        if exporter == "image":
            buildkit.save(bakefile.image_name(job), layout)
        return buildkit.exported(layout, job.flavours)[job.known :]

    def _kept(self, job: Job, layers: Sequence[Exported], in_parallel: Callable[..., Iterable[StoredLayer]]) -> dict[str, Part]:
        """Put the layers of a job into the store; return the parts that were missing, by flavour."""
        os_image, stored = self.images.image(job.system), self._stored(job.system)
        taken = list(in_parallel(functools.partial(self._take, job), layers))
        parts, below = dict[str, Part](), None if job.flavours == self.flavours else next(reversed(stored.values()), None)
        for flavour in job.flavours:
            own = [made for made, layer in zip(taken, layers, strict=True) if layer.flavour == flavour]
            lineage = self.flavours[: self.flavours.index(flavour) + 1]
            below = parts[flavour] = self.images.part(job.system, lineage, None if lineage[1:] else os_image, own, below)
        return {flavour: part for flavour, part in parts.items() if flavour not in stored}

    def _take(self, job: Job, layer: Exported) -> StoredLayer:
        with layer.open() as tar:
            title = f"{job.system.id} {layer.flavour}: {layer.step}"[:160]
            return os_layers.take(tar, self.settings.store, self.settings.codec, title=title, epoch=job.epoch)
