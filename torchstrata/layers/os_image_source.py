"""Where the OS images of bakes come from: the store, mmdebstrap, a registry; and their mirrors' snapshot archives."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from torchstrata import process
from torchstrata.errors import LockError, OsPartError, StaleLockError, TorchstrataError
from torchstrata.layers import archives, bakefile, buildkit, contexts, os_image, os_layers, os_parts, snapshots
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.layers.archives import Answer, is_of_apt
from torchstrata.layers.bakefile import Exporter
from torchstrata.layers.os_layers import StoredLayer
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
    :param drifts: what people were told, by system: parts of several flavours have the same packages.
    """

    store: Store
    codec: Codec
    on_line: process.LineSink
    on_drift: process.LineSink | None = None
    locked: bool = False
    root: Path = ROOT
    cancelled: threading.Event | None = None
    drifts: dict[str, set[PackageMove]] = field(default_factory=dict)

    @property
    def tell(self) -> process.LineSink:
        """Gets what people must see."""
        return self.on_drift or self.on_line


@dataclass(frozen=True, kw_only=True)
class OsImageSource:
    """The OS images of some systems, and what their apts know of snapshot archives.

    :param locks: what to pin, by system.
    :param no_archive: why an archive is of no help, by system.
    :param helped: what apt was told where the archive had what the OS image needs; flavours begin with it.
    """

    settings: BakeSettings
    locks: Mapping[OperatingSystem, OsLock]
    no_archive: dict[OperatingSystem, str] = field(default_factory=dict)
    helped: dict[OperatingSystem, AptSettings] = field(default_factory=dict)

    def image(self, system: OperatingSystem) -> Part | None:
        """Return the bootstrapped OS image, from the store or made now; None for one that comes from a registry."""
        if not system.bootstrap:
            return None
        wanted = self.identity(system, self.locks[system])
        with self.settings.store.lock(wanted, self.settings.cancelled):
            part = self.settings.store.find(wanted)
            if part is None or not os_parts.fits(part, None, locked=self.settings.locked):
                part = self._bootstrapped_well(system)
                if self.settings.locked:
                    self.compare(system, part)
                self.settings.store.remember(wanted, part)
        return part

    def identity(self, system: OperatingSystem, lock: OsLock) -> str:
        """Return the identity of a bootstrapped OS image."""
        return os_image.identity(system, lock, contexts.apt_config(self.settings.root), self.settings.codec)

    def _bootstrapped_well(self, system: OperatingSystem) -> Part:
        """Return the OS image: from its mirrors, or with the help of its archive if that is better.

        :raises OsPartError: neither has it.
        """
        try:
            made = self._bootstrapped(system, AptSettings.of_host())
        except OsPartError as error:
            if not is_of_apt(error) or not (told := self.archive(system, alone=True)):
                raise
            return self._bootstrapped(system, told)
        if not os_parts.drift(made) or not (told := self.archive(system, made)):
            return made
        try:
            again = self._bootstrapped(system, told)
        except OsPartError as error:
            self.no_archive[system] = NO_HELP.format(why=error.what)
            return made
        better = self.better_of(system, made, again, os_parts.drift)
        if better is again:
            self.helped[system] = told
        return better

    def _bootstrapped(self, system: OperatingSystem, told: AptSettings) -> Part:
        """Return the OS image that mmdebstrap makes with these settings of apt."""
        self.settings.on_line(f"{system.name}: bootstrapping {system.suite}")
        lock, config = self.locks[system], contexts.apt_config(self.settings.root)
        with os_image.Command.find(self.settings.tell).tar(system, lock, config, told) as tar:
            title = f"{system.id}: {system.suite}, minimal"
            taken = os_layers.take(tar, self.settings.store, self.settings.codec, title=title, epoch=lock.epoch)
        return self.part(system, (), None, [taken])

    def better_of(self, system: OperatingSystem, mirrors: T, archive: T, moves: Callable[[T], Sequence[PackageMove]]) -> T:
        """Return what was made with the archive if more of it is as locked; else what was made without."""
        before, after = len(moves(mirrors)), len(moves(archive))
        if after:
            self.no_archive[system] = "its snapshot archive has none of these either"
        return archive if after < before else mirrors

    def archive(self, system: OperatingSystem, os_image: Part | None = None, *, alone: bool = False) -> AptSettings | None:
        """Return settings by which apt looks into the archive of ``system``, too; ``None`` without an archive.

        :param os_image: whose apt is asked; the one in the store if ``None``.
        :param alone: and not at the mirrors.
        """
        lock = self.locks[system]
        if not lock.sections:  # it is made from no lock
            return None
        answer = self._answer(system, os_image)
        sources = snapshots.archive(answer.mirrors, lock, {**answer.settings, **archives.of_host()})
        if not sources:
            sources = snapshots.archive(answer.mirrors, lock, {**self.settings_of_others(system), **archives.of_host()})
        if not sources:
            self.no_archive[system] = "apt knows no snapshot archive of it"
            return None
        self.settings.on_line(f"{system.name}: asking the snapshot archive")
        mirrors = () if alone else tuple(source for source, _ in answer.mirrors)
        return replace(AptSettings.of_host(), sources=(*mirrors, *sources))

    def _answer(self, system: OperatingSystem, os_image: Part | None = None) -> Answer:
        """Return what is known of the mirrors of a system: from its own apt, else what mmdebstrap knows."""
        part = os_image or self._stored(system, self.locks[system])
        if part is None and system.bootstrap:
            return Answer(mirrors=tuple((source, Release()) for source in snapshots.sources(_listed(system))))
        with tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            work = Path(directory)
            below = self.below(system, part, work, buildkit.exporter()) if part else self.registry(system)
            return Answer.read(archives.Asked(system=system, below=below, on_line=self.settings.on_line).ask(archives.QUESTION, work))

    def _stored(self, system: OperatingSystem, lock: OsLock) -> Part | None:
        return self.settings.store.find(self.identity(system, lock)) if system.bootstrap else None

    def settings_of_others(self, system: OperatingSystem) -> Settings:
        """Return what the apts of other OSes in the store know: newer ones know the archives of older releases, too."""
        for other in _systems(self.settings.root):
            with contextlib.suppress(LockError):
                part = self._stored(other, os_locks.read(other, self.settings.root)) if other != system else None
                if part and (settings := self._answer(other, part).settings):
                    return settings
        return {}

    def registry(self, system: OperatingSystem) -> str:
        """Return an OS image of a registry as a build context."""
        return f"{bakefile.REGISTRY}{os_image.reference(system, self.locks[system])}"

    def held(self, system: OperatingSystem) -> Packages:
        """Return what an OS image of a registry itself holds."""
        with tempfile.TemporaryDirectory(dir=self.settings.store.scratch()) as directory:
            image = archives.Asked(system=system, below=self.registry(system), on_line=self.settings.on_line)
            answer = image.ask(archives.HELD, Path(directory))
            return os_locks.installed((answer / archives.STATUS).read_text(encoding="utf-8"))

    def below(self, system: OperatingSystem, image: Part, work: Path, exporter: Exporter) -> str:
        """Return an OS image as a build context."""
        return self.layout(system, image.layers, work) if exporter == "layout" else self._tar(system, image.layers[0], work)

    def layout(self, system: OperatingSystem, layers: Sequence[Layer], work: Path) -> str:
        """Return layers of the store as a build context."""
        return os_parts.build_context(system, layers, self.settings.store, work / f"below-{system.name}")

    def _tar(self, system: OperatingSystem, layer: Layer, work: Path) -> str:
        """Put the OS image's tar where a Dockerfile can ADD it; return the directory."""
        directory = work / f"below-{system.name}"
        directory.mkdir()
        shutil.copyfile(self.settings.store.open_blob(layer.digest, layer.size), directory / "os.tar")
        return str(directory)

    def packages(self, part: Part) -> Packages:
        """Return the packages of a part and of all that it lies on."""
        content: Packages = json.loads(self.settings.store.open_blob(part.extras[os_parts.PACKAGES]).read_bytes())
        return content

    def part(self, system: OperatingSystem, lineage: Sequence[str], os_image: Part | None, own: Sequence[StoredLayer], below: Part | None = None) -> Part:
        """Return the part of a flavour with what dpkg says is installed, and where that differs from the lock.

        :param lineage: the flavour and its parents; empty for the OS image itself.
        :param os_image: counts to the part, if there is one.
        :param below: the part that it was made over.
        """
        status = next((taken.status for taken in reversed(own) if taken.status), None)
        packages = os_locks.installed(status) if status else self._inherited(system, os_image, below)
        lowest = [inventory.of(os_image, self.settings.store.open_blob)] if os_image else []
        contents = inventory.merged([*lowest, *(taken.inventory for taken in own)])
        layers = (*(os_image.layers if os_image else ()), *(taken.layer for taken in own))
        return Part(
            layers=layers,
            extras={
                os_parts.PACKAGES: self.settings.store.add_blob(json.dumps(packages, sort_keys=True).encode()),
                **inventory.stored(contents, self.settings.store),
            },
            notes=os_parts.notes(f"{system.name} {(OS_IMAGE, *lineage)[-1]}", self.locks[system].moves(lineage, packages), layers, below),
        )

    def _inherited(self, system: OperatingSystem, os_image: Part | None, below: Part | None) -> Packages:
        """Return what is installed where a flavour installs nothing: what its parent has, or the OS image."""
        lower = below or os_image
        return self.packages(lower) if lower else self.held(system)

    def compare(self, system: OperatingSystem, top: Part) -> None:
        """Say in one line what neither mirrors nor the archive have, or refuse it; what was said once is not said again.

        :raises StaleLockError: something differs, and only what is locked may be used.
        """
        moved = os_parts.drift(top)
        if not moved:
            return
        why = f" ({self.no_archive[system]})" if system in self.no_archive else ""
        if self.settings.locked:
            what = f"{system.name}: mirrors no longer offer what is locked: {os_locks.in_short(moved)}{why}"
            raise StaleLockError(what, fix=f"lock today's packages with `inv lock --os {system.asked}`, or {ARCHIVE_FIX}")
        told = self.settings.drifts.setdefault(system.name, set())
        if news := tuple(move for move in moved if move not in told):
            told.update(news)
            self.settings.tell(f"{system.name}: not as locked on {self.locks[system].date}: {os_locks.in_short(news)}{why}")
