"""One bake of OS parts: BuildKit makes what the store lacks, for one chain of flavours on some systems.

The OS image, and flavours that are in the store, are handed to it as OCI layouts, so that nothing is built twice and
every layer lies on the very layers that the store holds. Only the top flavour of each OS is exported; labels in its
history tell whose layer is whose. Where mirrors lack what is locked, the distribution's snapshot archive is asked.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from torchstrata import process
from torchstrata.errors import LockError, OsPartError, StaleLockError, TorchstrataError
from torchstrata.host import emulator
from torchstrata.host.filesystem import disk
from torchstrata.layers import archives, bakefile, buildkit, contexts, os_image, os_layers, os_parts, snapshots
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.layers.archives import Answer, is_of_apt
from torchstrata.layers.bakefile import Exporter, Job
from torchstrata.layers.buildkit import Exported
from torchstrata.layers.os_layers import Taken
from torchstrata.layers.snapshots import Release, Settings
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OS_IMAGE, OsLock, PackageMove, Packages
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, OperatingSystem
from torchstrata.store import inventory
from torchstrata.store.codec import Codec
from torchstrata.store.layer import Layer
from torchstrata.store.part import Part
from torchstrata.store.store import Store

ARCHIVE_FIX: Final = "tell apt of a snapshot archive (docs/design.md, The snapshot archive)"

NO_HELP: Final = "its snapshot archive does not help: {why}"

T = TypeVar("T")

Baked = Mapping[OperatingSystem, dict[str, Part]]
"""Parts that were missing, by system and flavour."""


def _is_as_before(lock: OsLock, system: OperatingSystem, root: Path) -> bool:
    """Return whether the lock in the repository names the same OS image and packages."""
    with contextlib.suppress(LockError):
        now = os_locks.read(system, root)
        return (now.sections, now.image) == (lock.sections, lock.image)
    return False


def _listed(system: OperatingSystem) -> str:
    """Return the sources that mmdebstrap has for a system; none where it does not run on this machine."""
    try:
        return os_image.sources(system)
    except TorchstrataError:  # what failed before is what is to be told
        return ""


def _systems(root: Path) -> tuple[OperatingSystem, ...]:
    """Return the OSes of a repository, newest release first: their apts know most; none where there is no matrix."""
    table = root / matrix.MATRIX.name
    systems = matrix.load(table).systems.values() if table.exists() else ()
    return tuple(sorted(systems, key=lambda system: system.release, reverse=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class BakeSettings:
    """What OS parts are made with.

    :param store: where they go.
    :param on_line: gets one line for each step done.
    :param on_drift: gets what people must see: one line for each OS that is not as locked, and what happens to this
        machine; ``on_line`` if ``None``.
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

    @property
    def tell(self) -> process.LineSink:
        """Gets what people must see."""
        return self.on_drift or self.on_line


@dataclass(frozen=True, kw_only=True, slots=True)
class _Workspace:
    """What all calls of BuildKit in a bake share.

    :param work: a directory of their own.
    :param in_parallel: maps a function over what many threads can do.
    """

    work: Path
    exporter: Exporter
    in_parallel: Callable[..., Iterable[Taken]]


@dataclass(frozen=True, kw_only=True)
class Bake:
    """One run of BuildKit over some systems.

    :param flavours: a chain, parents first.
    :param locks: what to pin, by system.
    :param no_archive: why an archive is of no help, by system.
    :param helped: what apt was told where the archive had what the OS image needs; flavours begin with it.
    """

    settings: BakeSettings
    flavours: tuple[str, ...]
    locks: Mapping[OperatingSystem, OsLock]
    no_archive: dict[OperatingSystem, str] = field(default_factory=dict)
    helped: dict[OperatingSystem, AptSettings] = field(default_factory=dict)

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

    def adopt(self, system: OperatingSystem, chains: Mapping[str, tuple[str, ...]], made: os_parts.Parts) -> Path | None:
        """Write the lock of what was made, if it moved, and let the parts serve it; return its path if it was written.

        :param chains: of each flavour that was made, parents first.
        """
        before, os_image = self.locks[system], self._os_image(system)
        installed = {flavour: self._packages(made[system.name, flavour]) for flavour in chains}
        if not before.sections:
            installed[OS_IMAGE] = self._packages(os_image) if os_image else self._held(system)
        parents = {flavour: (OS_IMAGE, *chain)[-2] for flavour, chain in chains.items() if flavour in before.opened or not before.sections}
        lock = os_locks.solved(before, installed, parents)
        if _is_as_before(lock, system, self.settings.root):
            return None
        if os_image:
            self.settings.store.remember(self._image_identity(system, lock), os_image)
        for flavour, parent in parents.items():
            part, below = made[system.name, flavour], made.get((system.name, parent))
            told = replace(part, notes=os_parts.notes(part.notes["title"], lock.moves(chains[flavour], installed[flavour]), part.layers, below))
            self.settings.store.remember(os_parts.identity_by(system, chains[flavour], lock, self.settings.codec, self.settings.root), told)
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

    def _identity(self, system: OperatingSystem, chain: Sequence[str]) -> str:
        return os_parts.identity_by(system, chain, self.locks[system], self.settings.codec, self.settings.root)

    def _image_identity(self, system: OperatingSystem, lock: OsLock) -> str:
        return os_image.identity(system, lock, contexts.apt_config(self.settings.root), self.settings.codec)

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

    def _packages(self, part: Part) -> Packages:
        content: Packages = json.loads(self.settings.store.open_blob(part.extras[os_parts.PACKAGES]).read_bytes())
        return content

    # Making it

    def _make(self, systems: Sequence[OperatingSystem]) -> None:
        if not systems:
            return
        for platform in {system.platform for system in systems}:
            emulator.ensure(platform, self.settings.tell)
        with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            list(pool.map(self._os_image, systems))
            workspace = _Workspace(work=Path(directory), exporter=buildkit.exporter(), in_parallel=pool.map)
            baked = self._baked_well(systems, workspace)
            self.check_files()
            for system, parts in baked.items():
                self._compare(system, os_parts.top(parts))
                for count, flavour in enumerate(self.flavours, 1):
                    if flavour in parts:
                        self.settings.store.remember(self._identity(system, self.flavours[:count]), parts[flavour])

    def _baked_well(self, systems: Sequence[OperatingSystem], workspace: _Workspace) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour: from its mirrors, or with its archive if that is better.

        :raises OsPartError: neither has them.
        """
        try:
            made = self._baked(systems, workspace, {system: self.helped.get(system) or AptSettings.of_host() for system in systems})
        except OsPartError as error:
            if self.helped and is_of_apt(error):  # the archive does not answer any more
                self.no_archive.update(dict.fromkeys(self.helped, NO_HELP.format(why=error.what)))
                self.helped.clear()
                return self._baked_well(systems, workspace)
            told = {system: told for system in systems if is_of_apt(error) and (told := self._archive(system, alone=True))}
            if len(told) < len(systems):
                raise
            try:
                return self._baked(systems, workspace, told)
            except OsPartError as archive_error:
                if is_of_apt(archive_error):  # it cannot be reached, or lacks the same: what today's mirror said is what can be cured
                    raise error from archive_error
                raise
        for system in systems:
            if (
                system not in self.no_archive
                and system not in self.helped
                and os_parts.drift(os_parts.top(made[system]))
                and (told_one := self._archive(system))
            ):
                made |= self._better({system: made[system]}, workspace, told_one)
        return made

    def _better(self, made: Baked, workspace: _Workspace, told: AptSettings) -> Baked:
        """Return what was made of a system, or what its archive makes of it if more of that is as locked."""
        (system,) = made
        try:
            again = self._baked([system], workspace, {system: told})
        except OsPartError as error:
            self.no_archive[system] = NO_HELP.format(why=error.what)
            return made
        return self._of_both(system, made, again, lambda found: os_parts.drift(os_parts.top(found[system])))

    def _baked(
        self,
        systems: Sequence[OperatingSystem],
        workspace: _Workspace,
        told: Mapping[OperatingSystem, AptSettings],
    ) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour.

        :param told: what apt is told.
        """
        work = Path(tempfile.mkdtemp(dir=workspace.work))
        jobs = [self._job(system, work, workspace.exporter) for system in systems]
        contexts.stage(self.settings.root, self.flavours, {job.system: (self.locks[job.system], self.flavours) for job in jobs}, work, told)
        for job in jobs if workspace.exporter == "image" else ():
            self.settings.store.leave("image", bakefile.image_name(job))
        buildkit.bake(bakefile.definition(jobs, work, work, workspace.exporter, buildkit.proxies()), self.settings.on_line)
        return {job.system: self._kept(job, self._exported(job, work, workspace.exporter), workspace.in_parallel) for job in jobs}

    def _os_image(self, system: OperatingSystem) -> Part | None:
        """Return the bootstrapped OS image, from the store or made now; None for one that comes from a registry."""
        if not system.bootstrap:
            return None
        wanted = self._image_identity(system, self.locks[system])
        with self.settings.store.lock(wanted, self.settings.cancelled):
            part = self.settings.store.find(wanted)
            if part is None or not os_parts.fits(part, None, locked=self.settings.locked):
                part = self._bootstrapped_well(system)
                if self.settings.locked:
                    self._compare(system, part)
                self.settings.store.remember(wanted, part)
        return part

    def _bootstrapped_well(self, system: OperatingSystem) -> Part:
        """Return the OS image: from its mirrors, or with the help of its archive if that is better.

        :raises OsPartError: neither has it.
        """
        try:
            made = self._bootstrapped(system, AptSettings.of_host())
        except OsPartError as error:
            if not is_of_apt(error) or not (told := self._archive(system, alone=True)):
                raise
            return self._bootstrapped(system, told)
        if not os_parts.drift(made) or not (told := self._archive(system, made)):
            return made
        try:
            again = self._bootstrapped(system, told)
        except OsPartError as error:
            self.no_archive[system] = NO_HELP.format(why=error.what)
            return made
        better = self._of_both(system, made, again, os_parts.drift)
        if better is again:
            self.helped[system] = told
        return better

    def _bootstrapped(self, system: OperatingSystem, told: AptSettings) -> Part:
        """Return the OS image as mmdebstrap makes it from what apt is told."""
        self.settings.on_line(f"{system.name}: bootstrapping {system.suite}")
        lock, config = self.locks[system], contexts.apt_config(self.settings.root)
        with os_image.Command.find(self.settings.tell).tar(system, lock, config, told) as tar:
            taken = os_layers.take(tar, self.settings.store, self.settings.codec, title=f"{system.id}: {system.suite}, minimal", epoch=lock.epoch)
        return self._part(system, OS_IMAGE, None, [taken])

    def _of_both(self, system: OperatingSystem, mirrors: T, archive: T, moves: Callable[[T], Sequence[PackageMove]]) -> T:
        """Return what was made with the archive if more of it is as locked; else what was made without."""
        before, after = len(moves(mirrors)), len(moves(archive))
        if after:
            self.no_archive[system] = "its snapshot archive has none of these either"
        return archive if after < before else mirrors

    # The archive

    def _archive(self, system: OperatingSystem, os_image: Part | None = None, *, alone: bool = False) -> AptSettings | None:
        """Return what apt is told so that it also looks into the archive of ``system``; ``None`` if there is none.

        :param os_image: whose apt is asked; the one in the store if ``None``.
        :param alone: and not at the mirrors.
        """
        lock = self.locks[system]
        if not lock.sections:  # it is made from no lock
            return None
        answer = self._answer(system, os_image)
        sources = snapshots.archive(answer.mirrors, lock, {**answer.settings, **archives.of_host()})
        if not sources:
            sources = snapshots.archive(answer.mirrors, lock, {**self._settings_of_others(system), **archives.of_host()})
        if not sources:
            self.no_archive[system] = "apt knows no snapshot archive of it"
            return None
        self.settings.on_line(f"{system.name}: asking the snapshot archive")
        return replace(AptSettings.of_host(), sources=((() if alone else tuple(source for source, _ in answer.mirrors)) + sources))

    def _answer(self, system: OperatingSystem, os_image: Part | None = None) -> Answer:
        """Return what is known of the mirrors of a system: from its own apt, else what mmdebstrap knows."""
        part = os_image or (self.settings.store.find(self._image_identity(system, self.locks[system])) if system.bootstrap else None)
        if part is None and system.bootstrap:
            return Answer(mirrors=tuple((source, Release()) for source in snapshots.sources(_listed(system))))
        with tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            work = Path(directory)
            below = self._below(system, part, work, buildkit.exporter()) if part else self._registry(system)
            return Answer.read(archives.Asked(system=system, below=below, on_line=self.settings.on_line).ask(archives.QUESTION, work))

    def _settings_of_others(self, system: OperatingSystem) -> Settings:
        """Return what the apts of other OSes in the store know: newer ones know the archives of older releases, too."""
        for other in _systems(self.settings.root):
            with contextlib.suppress(LockError):
                part = (
                    self.settings.store.find(self._image_identity(other, os_locks.read(other, self.settings.root)))
                    if other.bootstrap and other != system
                    else None
                )
                if part and (settings := self._answer(other, part).settings):
                    return settings
        return {}

    def _job(self, system: OperatingSystem, work: Path, exporter: Exporter) -> Job:
        """Return what to build on ``system``, over layers of the store where the exporter allows it."""
        plain = frozenset(flavour for flavour in self.flavours if not contexts.installs(self.settings.root, flavour))
        job = functools.partial(Job, system=system, epoch=self.locks[system].epoch, plain=plain)
        image, parts = self._os_image(system), self._stored(system)
        if exporter == "layout" and parts:
            stored = [*itertools.chain.from_iterable(part.layers for part in parts.values())]
            return job(flavours=self._missing(system), parent=list(parts)[-1], below=self._layout(system, stored, work), known=len(stored))
        if image is None:
            return job(flavours=self.flavours, parent=OS_IMAGE, below=self._registry(system), known=0)
        return job(flavours=self.flavours, parent=OS_IMAGE, below=self._below(system, image, work, exporter), known=1)

    def _registry(self, system: OperatingSystem) -> str:
        """Return an OS image of a registry as a build context."""
        return f"{bakefile.REGISTRY}{os_image.reference(system, self.locks[system])}"

    def _held(self, system: OperatingSystem) -> Packages:
        """Return what an OS image of a registry itself holds."""
        with tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            image = archives.Asked(system=system, below=self._registry(system), on_line=self.settings.on_line)
            answer = image.ask(archives.HELD, Path(directory))
            return os_locks.installed((answer / archives.STATUS).read_text(encoding="utf-8"))

    def _below(self, system: OperatingSystem, image: Part, work: Path, exporter: Exporter) -> str:
        """Return an OS image as a build context."""
        return self._layout(system, image.layers, work) if exporter == "layout" else self._tar(system, image.layers[0], work)

    def _layout(self, system: OperatingSystem, layers: Sequence[Layer], work: Path) -> str:
        return os_parts.build_context(system, layers, self.settings.store, work / f"below-{system.name}")

    def _tar(self, system: OperatingSystem, layer: Layer, work: Path) -> str:
        """Put the OS image's tar where a Dockerfile can ADD it; return the directory."""
        directory = work / f"below-{system.name}"
        directory.mkdir()
        shutil.copyfile(self.settings.store.open_blob(layer.digest, layer.size), directory / "os.tar")
        return str(directory)

    # Keeping it

    def _exported(self, job: Job, work: Path, exporter: Exporter) -> tuple[Exported, ...]:
        """Return the layers that a job made."""
        layout = work / job.top
        if exporter == "image":
            buildkit.save(bakefile.image_name(job), layout)
        return buildkit.exported(layout, job.flavours)[job.known :]

    def _kept(self, job: Job, layers: Sequence[Exported], in_parallel: Callable[..., Iterable[Taken]]) -> dict[str, Part]:
        """Put the layers of a job into the store; return the parts that were missing, by flavour."""
        os_image, stored = self._os_image(job.system), self._stored(job.system)
        taken = list(in_parallel(functools.partial(self._take, job), layers))
        parts, below = dict[str, Part](), None if job.flavours == self.flavours else next(reversed(stored.values()), None)
        for flavour in job.flavours:
            own = [made for made, layer in zip(taken, layers, strict=True) if layer.flavour == flavour]
            below = self._part(job.system, flavour, os_image if flavour == self.flavours[0] else None, own, below)
            parts[flavour] = below
        return {flavour: part for flavour, part in parts.items() if flavour not in stored}

    def _take(self, job: Job, layer: Exported) -> Taken:
        with layer.open() as tar:
            title = f"{job.system.id} {layer.flavour}: {layer.step}"[:160]
            return os_layers.take(tar, self.settings.store, self.settings.codec, title=title, epoch=job.epoch)

    def _part(self, system: OperatingSystem, flavour: str, os_image: Part | None, own: Sequence[Taken], below: Part | None = None) -> Part:
        """Return the part of ``flavour`` with what dpkg says is installed, and where that differs from the lock.

        :param os_image: counts to the part, if there is one.
        :param below: the part that it was made over.
        """
        status = next((taken.status for taken in reversed(own) if taken.status), None)
        packages = os_locks.installed(status) if status else self._inherited(system, os_image, below)
        chain = () if flavour == OS_IMAGE else self.flavours[: self.flavours.index(flavour) + 1]
        lowest = [inventory.of(os_image, self.settings.store.open_blob)] if os_image else []
        contents = inventory.merged([*lowest, *(taken.inventory for taken in own)])
        layers = (*(os_image.layers if os_image else ()), *(taken.layer for taken in own))
        return Part(
            layers=layers,
            extras={
                os_parts.PACKAGES: self.settings.store.add_blob(json.dumps(packages, sort_keys=True).encode()),
                **inventory.stored(contents, self.settings.store),
            },
            notes=os_parts.notes(f"{system.name} {flavour}", self.locks[system].moves(chain, packages), layers, below),
        )

    def _inherited(self, system: OperatingSystem, os_image: Part | None, below: Part | None) -> Packages:
        """Return what is installed where a flavour installs nothing: what its parent has, or the OS image."""
        lower = below or os_image
        return self._packages(lower) if lower else self._held(system)

    def _compare(self, system: OperatingSystem, top: Part) -> None:
        """Say in one line what neither mirrors nor the archive have, or refuse it.

        :raises StaleLockError: something differs, and only what is locked may be used.
        """
        moved = os_parts.drift(top)
        if not moved:
            return
        why = f" ({self.no_archive[system]})" if system in self.no_archive else ""
        named = os_locks.in_short(moved)
        if self.settings.locked:
            what = f"{system.name}: mirrors no longer offer what is locked: {named}{why}"
            raise StaleLockError(what, fix=f"lock today's packages with `inv lock --os {system.asked}`, or {ARCHIVE_FIX}")
        self.settings.tell(f"{system.name}: not as locked on {self.locks[system].date}: {named}{why}")
