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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from torchstrata import process
from torchstrata.errors import LockError, OsPartError, StaleLockError, StoreError, TorchstrataError
from torchstrata.host import emulator
from torchstrata.host.filesystem import disk
from torchstrata.image import layout
from torchstrata.image.compose import Image, Runtime, Section, compose
from torchstrata.image.loadable import Loadable
from torchstrata.layers import archives, bakefile, buildkit, contexts, image_tags, os_image, os_layers, snapshots
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
from torchstrata.store import inventory, store
from torchstrata.store.codec import Codec
from torchstrata.store.layer import Layer
from torchstrata.store.part import Part
from torchstrata.store.store import Store

ARCHIVE_FIX: Final = "tell apt of a snapshot archive (docs/design.md, The snapshot archive)"

NO_HELP: Final = "its snapshot archive does not help: {why}"

REPOSITORY: Final = "torchstrata-os"
"""Name, in the engine, of images that hold OS parts alone."""

FORMAT: Final = 3
"""Raise it when the bytes of an OS part change for the same inputs."""

PACKAGES: Final = "packages"
"""Extra blob of a part: versions by package name, as JSON, of all packages up to its flavour."""

DRIFT: Final = "drift"
"""Note of a part whose packages are not all as locked: how they differ, in words."""

OVER: Final = "over"
"""Note of such a part, and of one that lies over such a part: diff ID of the layer that it was made over, since it fits no other."""

T = TypeVar("T")

Parts = Mapping[tuple[str, str], Part]
"""By names of the OS and of the flavour."""


def identity(system: OperatingSystem, chain: Sequence[str], codec: Codec, root: Path = ROOT) -> str:
    """Return the identity of the OS part of the last flavour of ``chain`` (parents first).

    :raises LockError: the OS is not locked.
    """
    return _identity(system, chain, os_locks.read(system, root), codec, root)


def drift(part: Part) -> tuple[PackageMove, ...]:
    """Return where the packages of a part, up to its flavour, are not as locked."""
    return os_locks.from_words(part.notes.get(DRIFT, ""))


def fits(part: Part, below: Part | None, *, locked: bool) -> bool:
    """Return whether a part can be used over the one below it.

    :param below: ``None`` for the part of the first flavour.
    :param locked: only what is as locked.
    """
    if locked and DRIFT in part.notes:
        return False
    if below is None:
        return True
    if OVER in part.notes:
        return part.notes[OVER] == _top_layer(below)
    return DRIFT not in below.notes or DRIFT in part.notes  # which earlier versions have made, without that note


def image(system: OperatingSystem, chain: Sequence[str], from_: Store, codec: Codec, root: Path = ROOT) -> Loadable:
    """Return an image of the OS parts of ``chain`` alone: the OS's Python, apt and compilers, to load into an engine and run.

    Its one tag, ``torchstrata-os:<identity>``, is what to run; an engine that has it is not sent anything.

    :raises StoreError: the store lacks a part; bake first.
    """
    parts = [from_.find(identity(system, chain[: count + 1], codec, root)) for count in range(len(chain))]
    if None in parts:
        raise StoreError(f"OS parts of {system.name} are not in the store", fix="build them first: nox -s build-<cell>")
    composed = _composed(system, [layer for part in parts if part for layer in part.layers])
    tag = f"{REPOSITORY}:{identity(system, chain, codec, root)[:12]}"
    return Loadable(config=composed.config, manifest=composed.manifest, tags=(tag,), layers=composed.layers, platform=system.platform)


def _identity(system: OperatingSystem, chain: Sequence[str], lock: OsLock, codec: Codec, root: Path) -> str:
    return store.identity(
        kind="os part",
        os_part=FORMAT,
        platform=system.platform,
        image=os_image.reference(system, lock) or os_image.identity(system, lock, contexts.apt_config(root), codec),
        compilers=system.compilers,
        **({"lacks": system.lacks} if system.lacks else {}),
        files=[contexts.tree(root, name) for name in (contexts.APT, *chain)],
        lock=lock.digest(chain),
        codec=codec.identity,
    )


def _is_as_before(lock: OsLock, system: OperatingSystem, root: Path) -> bool:
    """Return whether the lock in the repository names the same OS image and packages."""
    with contextlib.suppress(LockError):
        now = os_locks.read(system, root)
        return (now.sections, now.image) == (lock.sections, lock.image)
    return False


def build_context(system: OperatingSystem, layers: Sequence[Layer], from_: Store, directory: Path) -> str:
    """Write an OCI layout of ``layers`` of the store into ``directory``; return it as a build context of BuildKit."""
    composed = _composed(system, layers)
    tags, parts = (f"{REPOSITORY}:{system.name}",), {"config": composed.config, "manifest": composed.manifest}
    loadable = Loadable(**parts, tags=tags, layers=composed.layers, platform=system.platform)
    layout.write(directory, [loadable], from_, share=True)
    return f"oci-layout://{directory}@{composed.digest}"


def _composed(system: OperatingSystem, layers: Iterable[Layer]) -> Image:
    """Return a plain image of ``layers``: no user, no environment."""
    runtime = Runtime(env={}, labels={}, user="", entrypoint=(), command=("/bin/bash",), workdir="/", ports=(), created="1980-01-02T00:00:00Z")
    return compose(system.id, [Section(origin="os", label=system.id, layers=tuple(layers))], runtime, system.platform)


def _listed(system: OperatingSystem) -> str:
    """Return the sources that mmdebstrap has for a system; none where it does not run on this machine."""
    try:
        return os_image.sources(system)
    except TorchstrataError:  # what failed before is what is to be told
        return ""


def _longest(chains: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return the chains that no other one begins with."""
    return tuple(chain for chain in dict.fromkeys(chains) if not any(other != chain and other[: len(chain)] == chain for other in chains))


def _top_layer(part: Part) -> str:
    """Return the diff ID of the uppermost layer of a part and what it lies on; one without layers of its own notes it."""
    return part.layers[-1].diff_id if part.layers else part.notes[OVER]


def _notes(title: str, moves: Sequence[PackageMove], layers: Sequence[Layer], below: Part | None) -> dict[str, str]:
    """Return what a part notes: where it is not as locked, and what it fits alone.

    :param layers: its own.
    """
    drifted = {DRIFT: os_locks.in_words(moves)} if moves else {}
    bound = below is not None and (moves or DRIFT in below.notes or not layers)
    return {"title": title, **drifted, **({OVER: _top_layer(below)} if below and bound else {})}


def _top(parts: Mapping[str, Part]) -> Part:
    """Return the part of the last flavour."""
    return list(parts.values())[-1]


def _systems(root: Path) -> tuple[OperatingSystem, ...]:
    """Return the OSes of a repository, newest release first: their apts know the most; none where there is no matrix."""
    table = root / matrix.MATRIX.name
    found = matrix.load(table).systems.values() if table.exists() else ()
    return tuple(sorted(found, key=lambda system: system.release, reverse=True))


def groups(systems: Iterable[OperatingSystem]) -> list[list[OperatingSystem]]:
    """Return which OSes are locked together: those of packages, and each of a registry alone, so that one that is gone keeps no other from it."""
    chosen = list(systems)
    own = [system for system in chosen if system.bootstrap]
    return [*([own] if own else []), *([system] for system in chosen if not system.bootstrap)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Oven:
    """What OS parts are made with.

    :param store: where they go.
    :param on_line: gets one line for each step done.
    :param on_drift: gets what people must see: one line for each OS that is not as locked, and what happens to this machine;
        ``on_line`` if ``None``.
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

    def bake(self, systems: Iterable[OperatingSystem], *chains: Sequence[str]) -> Parts:
        """Return the OS parts of all flavours of ``chains`` on each of ``systems``; make those that the store lacks.

        A part holds the layers that its flavour adds; that of the first flavour also holds the OS image. Where the mirror has
        dropped a locked version, the distribution's snapshot archive is asked for it. Where that has no answer either, today's is
        used, which one line tells and the part notes (``drift``).

        :param chains: flavours, parents first; what several of them begin with is made once.
        :raises StaleLockError: ``locked``, and something differs.
        :raises OsPartError: a step failed.
        :raises BuildxError: docker has no buildx.
        :raises EmulatorError: an OS is of another platform, whose programs cannot run here.
        """
        return self._made(self._bakings({system: os_locks.read(system, self.root) for system in systems}, chains))

    def relock(self, systems: Iterable[OperatingSystem], *chains: Sequence[str]) -> list[Path]:
        """Lock the OS packages of ``systems`` anew, by building ``chains`` with what mirrors offer today; return the files written.

        Of an OS from a registry, what its tag names today is locked with them. What was built serves the new locks. A lock of which
        nothing has moved is left as it is.

        :raises RegistryError: the registry does not have what the tag of an OS is to name, or does not answer.
        """
        now, chosen = dt.datetime.now(dt.UTC), tuple(systems)
        if any(system.image for system in chosen):
            buildkit.exporter()  # to say that buildx or the engine lacks, rather than that a registry does not answer
        images = {system: image_tags.pinned(system.image, system.platform) for system in chosen if system.image}
        return self._locked_anew({system: os_locks.unlocked(system, now, self.root, image=images.get(system, "")) for system in chosen}, chains)

    def extend(self, systems: Iterable[OperatingSystem], *chains: Sequence[str]) -> list[Path]:
        """Lock what flavours of ``chains`` add that the locks of ``systems`` say nothing of; return the files written.

        All that is locked stays: the packages of other flavours, and so their layers.
        """
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        known = {system: os_locks.read(system, self.root) for system in systems}
        adding = {link for chain in chains for link in chain if contexts.installs(self.root, link)}
        lacking = {system: frozenset(lock.lacks(adding)) for system, lock in known.items()}
        return self._locked_anew({system: replace(lock, opened=lacking[system], opened_at=now) for system, lock in known.items() if lacking[system]}, chains)

    def _locked_anew(self, locks: Mapping[OperatingSystem, OsLock], chains: Sequence[Sequence[str]]) -> list[Path]:
        bakings = self._bakings(locks, chains)
        made = self._made(bakings)
        for baking in bakings:
            baking.check_files()
        links = {flavour: tuple(chain[: count + 1]) for chain in chains for count, flavour in enumerate(chain)}
        return [written for system in locks if (written := bakings[0].adopt(system, links, made))]

    def _bakings(self, locks: Mapping[OperatingSystem, OsLock], chains: Sequence[Sequence[str]]) -> tuple[_Baking, ...]:
        return tuple(_Baking(oven=self, flavours=chain, locks=locks) for chain in _longest(tuple(map(tuple, chains))))

    @staticmethod
    def _made(bakings: Sequence[_Baking]) -> Parts:
        """Return the parts of all chains, one chain after the other, since each finds what it shares with those before in the store."""
        return {key: part for baking in bakings for key, part in baking.parts().items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    """What all bakes of a run share.

    :param work: a directory of their own.
    :param in_parallel: maps a function over what many threads can do.
    """

    work: Path
    exporter: Exporter
    in_parallel: Callable[..., Iterable[Taken]]


@dataclass(frozen=True, kw_only=True)
class _Baking:
    """One run over some systems.

    :param flavours: a chain, parents first.
    :param locks: what to pin, by system.
    :param no_archive: why an archive is of no help, by system.
    :param helped: what apt was told where the archive had what the OS image needs; flavours begin with it.
    """

    oven: Oven
    flavours: tuple[str, ...]
    locks: Mapping[OperatingSystem, OsLock]
    no_archive: dict[OperatingSystem, str] = field(default_factory=dict)
    helped: dict[OperatingSystem, AptSettings] = field(default_factory=dict)

    def parts(self) -> Parts:
        """Return the parts of all flavours on all systems; make those that the store lacks."""
        with disk(self.oven.store.root), contextlib.ExitStack() as held:
            self.check_files()
            for wanted in sorted(self._identity(system, self.flavours) for system in self.locks if self._missing(system)):
                held.enter_context(self.oven.store.lock(wanted, self.oven.cancelled))
            self._make([system for system in self.locks if self._missing(system)])
        return {(system.name, flavour): part for system in self.locks for flavour, part in self._found(system).items()}

    def adopt(self, system: OperatingSystem, chains: Mapping[str, tuple[str, ...]], made: Parts) -> Path | None:
        """Write the lock of what was made, if it moved, and let the parts serve it; return its path if it was written.

        :param chains: of each flavour that was made, parents first.
        """
        before, os_image = self.locks[system], self._os_image(system)
        installed = {flavour: self._packages(made[system.name, flavour]) for flavour in chains}
        if not before.sections:
            installed[OS_IMAGE] = self._packages(os_image) if os_image else self._held(system)
        parents = {flavour: (OS_IMAGE, *chain)[-2] for flavour, chain in chains.items() if flavour in before.opened or not before.sections}
        lock = os_locks.solved(before, installed, parents)
        if _is_as_before(lock, system, self.oven.root):
            return None
        if os_image:
            self.oven.store.remember(self._image_identity(system, lock), os_image)
        for flavour, parent in parents.items():
            part, below = made[system.name, flavour], made.get((system.name, parent))
            told = replace(part, notes=_notes(part.notes["title"], lock.moves(chains[flavour], installed[flavour]), part.layers, below))
            self.oven.store.remember(_identity(system, chains[flavour], lock, self.oven.codec, self.oven.root), told)
        return os_locks.write(lock, system, self.oven.root)

    @functools.cached_property
    def _files(self) -> dict[str, object]:
        """What the flavours are made from, as it was when this was first asked."""
        return self._files_now()

    def _files_now(self) -> dict[str, object]:
        return {name: contexts.tree(self.oven.root, name) for name in (contexts.APT, *self.flavours)}

    def check_files(self) -> None:
        """Refuse to go on where somebody has edited what parts are being made from: they would be kept for what is there now.

        :raises OsPartError: it is not as when this was first asked.
        """
        now = self._files_now()
        changed = [f"images/{name}" for name, files in self._files.items() if files != now[name]]
        if changed:
            raise OsPartError(f"{', '.join(changed)} changed while OS parts were made from it", fix="run it again; nothing of this run is kept")

    # What is there

    def _identity(self, system: OperatingSystem, chain: Sequence[str]) -> str:
        return _identity(system, chain, self.locks[system], self.oven.codec, self.oven.root)

    def _image_identity(self, system: OperatingSystem, lock: OsLock) -> str:
        return os_image.identity(system, lock, contexts.apt_config(self.oven.root), self.oven.codec)

    def _found(self, system: OperatingSystem) -> dict[str, Part]:
        """Return the parts in the store from the bottom up to the first that is missing."""
        found: dict[str, Part] = {}
        for count, flavour in enumerate(self.flavours, 1):
            part = self.oven.store.find(self._identity(system, self.flavours[:count]))
            if part is None or not fits(part, next(reversed(found.values()), None), locked=self.oven.locked):
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
        for platform in {system.platform for system in systems}:
            emulator.ensure(platform, self.oven.on_drift or self.oven.on_line)
        with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory(dir=self.oven.store.scratch()) as directory:
            list(pool.map(self._os_image, systems))
            bench = _Bench(work=Path(directory), exporter=buildkit.exporter(), in_parallel=pool.map)
            baked = self._baked_well(systems, bench)
            self.check_files()
            for system, found in baked.items():
                self._compare(system, _top(found))
                for count, flavour in enumerate(self.flavours, 1):
                    if flavour in found:
                        self.oven.store.remember(self._identity(system, self.flavours[:count]), found[flavour])

    def _baked_well(self, systems: Sequence[OperatingSystem], bench: _Bench) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour: from its mirrors, or with the help of its archive if that is better.

        :raises OsPartError: neither has them.
        """
        try:
            made = self._baked(systems, bench, {system: self.helped.get(system) or AptSettings.of_host() for system in systems})
        except OsPartError as error:
            if self.helped and is_of_apt(error):  # the archive does not answer any more
                self.no_archive.update(dict.fromkeys(self.helped, NO_HELP.format(why=error.what)))
                self.helped.clear()
                return self._baked_well(systems, bench)
            told = {system: told for system in systems if is_of_apt(error) and (told := self._archive(system, alone=True))}
            if len(told) < len(systems):
                raise
            try:
                return self._baked(systems, bench, told)
            except OsPartError as archive_error:
                if is_of_apt(archive_error):  # it cannot be reached, or lacks the same: what today's mirror said is what can be cured
                    raise error from archive_error
                raise
        for system in systems:
            if system not in self.no_archive and system not in self.helped and drift(_top(made[system])) and (told_one := self._archive(system)):
                made |= self._better({system: made[system]}, bench, told_one)
        return made

    def _better(self, made: Mapping[OperatingSystem, dict[str, Part]], bench: _Bench, told: AptSettings) -> Mapping[OperatingSystem, dict[str, Part]]:
        """Return what was made of a system, or what its archive makes of it if more of that is as locked."""
        (system,) = made
        try:
            again = self._baked([system], bench, {system: told})
        except OsPartError as error:
            self.no_archive[system] = NO_HELP.format(why=error.what)
            return made
        return self._of_both(system, made, again, lambda found: drift(_top(found[system])))

    def _baked(
        self,
        systems: Sequence[OperatingSystem],
        bench: _Bench,
        told: Mapping[OperatingSystem, AptSettings],
    ) -> dict[OperatingSystem, dict[str, Part]]:
        """Return the missing parts of each system, by flavour.

        :param told: what apt is told.
        """
        work = Path(tempfile.mkdtemp(dir=bench.work))
        jobs = [self._job(system, work, bench.exporter) for system in systems]
        contexts.stage(self.oven.root, self.flavours, {job.system: (self.locks[job.system], self.flavours) for job in jobs}, work, told)
        for job in jobs if bench.exporter == "image" else ():
            self.oven.store.leave("image", bakefile.image_name(job))
        buildkit.bake(bakefile.definition(jobs, work, work, bench.exporter, buildkit.proxies()), self.oven.on_line)
        return {job.system: self._kept(job, self._exported(job, work, bench.exporter), bench.in_parallel) for job in jobs}

    def _os_image(self, system: OperatingSystem) -> Part | None:
        """Return the bootstrapped OS image, from the store or made now; None for one that comes from a registry."""
        if not system.bootstrap:
            return None
        wanted = self._image_identity(system, self.locks[system])
        with self.oven.store.lock(wanted, self.oven.cancelled):
            part = self.oven.store.find(wanted)
            if part is None or not fits(part, None, locked=self.oven.locked):
                part = self._bootstrapped_well(system)
                if self.oven.locked:
                    self._compare(system, part)
                self.oven.store.remember(wanted, part)
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
        if not drift(made) or not (told := self._archive(system, made)):
            return made
        try:
            again = self._bootstrapped(system, told)
        except OsPartError as error:
            self.no_archive[system] = NO_HELP.format(why=error.what)
            return made
        better = self._of_both(system, made, again, drift)
        if better is again:
            self.helped[system] = told
        return better

    def _bootstrapped(self, system: OperatingSystem, told: AptSettings) -> Part:
        """Return the OS image as mmdebstrap makes it from what apt is told."""
        self.oven.on_line(f"{system.name}: bootstrapping {system.suite}")
        lock, config = self.locks[system], contexts.apt_config(self.oven.root)
        with os_image.Command.find(self.oven.on_drift or self.oven.on_line).tar(system, lock, config, told) as tar:
            taken = os_layers.take(tar, self.oven.store, self.oven.codec, title=f"{system.id}: {system.suite}, minimal", epoch=lock.epoch)
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
        found = snapshots.archive(answer.mirrors, lock, {**answer.settings, **archives.of_host()})
        if not found:
            found = snapshots.archive(answer.mirrors, lock, {**self._settings_of_others(system), **archives.of_host()})
        if not found:
            self.no_archive[system] = "apt knows no snapshot archive of it"
            return None
        self.oven.on_line(f"{system.name}: asking the snapshot archive")
        return replace(AptSettings.of_host(), sources=((() if alone else tuple(source for source, _ in answer.mirrors)) + found))

    def _answer(self, system: OperatingSystem, os_image: Part | None = None) -> Answer:
        """Return what is known of the mirrors of a system: from its own apt, else what mmdebstrap knows."""
        part = os_image or (self.oven.store.find(self._image_identity(system, self.locks[system])) if system.bootstrap else None)
        if part is None and system.bootstrap:
            return Answer(mirrors=tuple((source, Release()) for source in snapshots.sources(_listed(system))))
        with tempfile.TemporaryDirectory(dir=self.oven.store.scratch()) as directory:
            work = Path(directory)
            below = self._below(system, part, work, buildkit.exporter()) if part else self._registry(system)
            return Answer.read(archives.Asked(system=system, below=below, on_line=self.oven.on_line).ask(archives.QUESTION, work))

    def _settings_of_others(self, system: OperatingSystem) -> Settings:
        """Return what the apts of other OSes in the store know: newer ones have archives built in, and know those of older releases."""
        for other in _systems(self.oven.root):
            with contextlib.suppress(LockError):
                part = self.oven.store.find(self._image_identity(other, os_locks.read(other, self.oven.root))) if other.bootstrap and other != system else None
                if part and (found := self._answer(other, part).settings):
                    return found
        return {}

    def _job(self, system: OperatingSystem, work: Path, exporter: Exporter) -> Job:
        """Return what to build on ``system``, over layers of the store where the exporter allows it."""
        plain = frozenset(flavour for flavour in self.flavours if not contexts.installs(self.oven.root, flavour))
        job = functools.partial(Job, system=system, epoch=self.locks[system].epoch, plain=plain)
        image, parts = self._os_image(system), self._found(system)
        if exporter == "layout" and parts:
            stored = [layer for part in parts.values() for layer in part.layers]
            return job(flavours=self._missing(system), parent=list(parts)[-1], below=self._layout(system, stored, work), known=len(stored))
        if image is None:
            return job(flavours=self.flavours, parent=OS_IMAGE, below=self._registry(system), known=0)
        return job(flavours=self.flavours, parent=OS_IMAGE, below=self._below(system, image, work, exporter), known=1)

    def _registry(self, system: OperatingSystem) -> str:
        """Return an OS image of a registry as a build context."""
        return f"{bakefile.REGISTRY}{os_image.reference(system, self.locks[system])}"

    def _held(self, system: OperatingSystem) -> Packages:
        """Return what an OS image of a registry itself holds."""
        with tempfile.TemporaryDirectory(dir=self.oven.store.scratch()) as directory:
            image = archives.Asked(system=system, below=self._registry(system), on_line=self.oven.on_line)
            answer = image.ask(archives.HELD, Path(directory))
            return os_locks.installed((answer / archives.STATUS).read_text(encoding="utf-8"))

    def _below(self, system: OperatingSystem, image: Part, work: Path, exporter: Exporter) -> str:
        """Return an OS image as a build context."""
        return self._layout(system, image.layers, work) if exporter == "layout" else self._tar(system, image.layers[0], work)

    def _layout(self, system: OperatingSystem, layers: Sequence[Layer], work: Path) -> str:
        return build_context(system, layers, self.oven.store, work / f"below-{system.name}")

    def _tar(self, system: OperatingSystem, layer: Layer, work: Path) -> str:
        """Put the OS image's tar where a Dockerfile can ADD it; return the directory."""
        directory = work / f"below-{system.name}"
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

    def _kept(self, job: Job, layers: Sequence[Exported], in_parallel: Callable[..., Iterable[Taken]]) -> dict[str, Part]:
        """Put the layers of a job into the store; return the parts that were missing, by flavour."""
        os_image, found = self._os_image(job.system), self._found(job.system)
        taken = list(in_parallel(functools.partial(self._take, job), layers))
        parts, below = dict[str, Part](), None if job.flavours == self.flavours else next(reversed(found.values()), None)
        for flavour in job.flavours:
            own = [made for made, layer in zip(taken, layers, strict=True) if layer.flavour == flavour]
            below = self._part(job.system, flavour, os_image if flavour == self.flavours[0] else None, own, below)
            parts[flavour] = below
        return {flavour: part for flavour, part in parts.items() if flavour not in found}

    def _take(self, job: Job, layer: Exported) -> Taken:
        with layer.open() as tar:
            return os_layers.take(tar, self.oven.store, self.oven.codec, title=f"{job.system.id} {layer.flavour}: {layer.step}"[:160], epoch=job.epoch)

    def _part(self, system: OperatingSystem, flavour: str, os_image: Part | None, own: Sequence[Taken], below: Part | None = None) -> Part:
        """Return the part of ``flavour`` with what dpkg says is installed, and where that differs from the lock.

        :param os_image: counts to the part, if there is one.
        :param below: the part that it was made over.
        """
        status = next((taken.status for taken in reversed(own) if taken.status), None)
        packages = os_locks.installed(status) if status else self._inherited(system, os_image, below)
        chain = () if flavour == OS_IMAGE else self.flavours[: self.flavours.index(flavour) + 1]
        lower = [os_image] if os_image else []
        held = inventory.merged([*(inventory.of(part, self.oven.store.open_blob) for part in lower), *(taken.inventory for taken in own)])
        layers = (*(layer for part in lower for layer in part.layers), *(taken.layer for taken in own))
        return Part(
            layers=layers,
            extras={PACKAGES: self.oven.store.add_blob(json.dumps(packages, sort_keys=True).encode()), **inventory.kept(held, self.oven.store)},
            notes=_notes(f"{system.name} {flavour}", self.locks[system].moves(chain, packages), layers, below),
        )

    def _inherited(self, system: OperatingSystem, os_image: Part | None, below: Part | None) -> Packages:
        """Return what is installed where a flavour installs nothing: what its parent has, or the OS image."""
        lower = below or os_image
        return self._packages(lower) if lower else self._held(system)

    def _compare(self, system: OperatingSystem, top: Part) -> None:
        """Say in one line what neither mirrors nor the archive have, or refuse it.

        :raises StaleLockError: something differs, and only what is locked may be used.
        """
        moved = drift(top)
        if not moved:
            return
        why = f" ({self.no_archive[system]})" if system in self.no_archive else ""
        named = os_locks.in_short(moved)
        if self.oven.locked:
            what = f"{system.name}: mirrors no longer offer what is locked: {named}{why}"
            raise StaleLockError(what, fix=f"lock today's packages with `inv lock --os {system.asked}`, or {ARCHIVE_FIX}")
        (self.oven.on_drift or self.oven.on_line)(f"{system.name}: not as locked on {self.locks[system].date}: {named}{why}")
