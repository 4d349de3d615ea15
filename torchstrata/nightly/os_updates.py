"""What a distribution's mirrors offer today, without building or installing anything.

apt itself is asked, on this machine, in directories of its own under the content store. Its lists stay there: a
mirror that has not changed costs one question for each suite, and the answer of the last time is taken again where
the lists are the same. mmdebstrap says where the mirrors are, since builds use it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from torchstrata import decoding
from torchstrata.errors import AptError, NightlyError
from torchstrata.host import apt, temporary
from torchstrata.host.filesystem import whole
from torchstrata.layers import archives, bakefile, image_tags, os_image
from torchstrata.layers.apt_settings import AptSettings
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock, PackageMove
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.store.layer import PLATFORM

INSTALLS: Final = re.compile(r"^Inst (?P<name>[^ :]+)(?::\S+)? (?:\[[^]]*\] )?\((?P<version>\S+) (?P<origins>[^\[]*)\[")
"""What ``apt-get --simulate`` says of a package: ``Inst zlib1g (1:1.3 Debian:13.8/stable, Debian-Security:13/stable-security [amd64])``."""

SECURITY: Final = "-security"
ANSWER: Final = "answer.json"
"""File of a system's directory."""

SETTINGS: Final = """\
Dir "{root}";
Dir::State::Status "{root}/var/lib/dpkg/status";
Dir::Etc::Trusted "/etc/apt/trusted.gpg";
Dir::Etc::TrustedParts "/etc/apt/trusted.gpg.d/";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
"""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """apt's solution for all packages of a lock.

    :param packages: version by name.
    :param security: names of those whose version is in the suite for security.
    """

    packages: dict[str, str]
    security: tuple[str, ...]


class _KnownAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered to a question."""

    question: str
    offer: Offer


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """The OS image of a registry, whose tag names another one than when it was locked; both with their digests."""

    system: str
    old: str
    new: str

    def __str__(self) -> str:
        tag, _, old = self.old.partition("@")
        return f"{tag} {old[:19]} -> {self.new.partition('@')[2][:19]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What moved on an OS since it was locked.

    :param security: names of the packages whose version on the mirrors is in the suite for security.
    :param base: its OS image, if the tag has moved.
    """

    system: OperatingSystem
    moves: tuple[PackageMove, ...]
    security: tuple[str, ...]
    base: Base | None = None

    def __bool__(self) -> bool:
        return bool(self.moves or self.base)

    @property
    def fixes(self) -> tuple[PackageMove, ...]:
        """The moves into versions of the suite for security."""
        return tuple(move for move in self.moves if move.package in self.security)

    def __str__(self) -> str:
        return ", ".join(map(str, (*([self.base] if self.base else ()), *self.fixes, *(move for move in self.moves if move not in self.fixes))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirrors:
    """The mirrors of an OS.

    :param folder: where apt keeps what it knows of them.
    """

    system: OperatingSystem
    folder: Path

    def news(self, lock: OsLock) -> News:
        """Return what a build would get today that is not as locked.

        :raises NightlyError: apt has no answer.
        :raises OsPartError, CommandError: this machine has no mmdebstrap or no apt.
        """
        offer = self.offer(tuple(sorted(set(chain.from_iterable(lock.sections.values())))))
        moves = os_locks.moves(lock.installed(tuple(section for section in lock.sections if section != os_locks.OS_IMAGE)), offer.packages)
        return News(system=self.system, moves=moves, security=offer.security)

    def offer(self, packages: tuple[str, ...]) -> Offer:
        """Return apt's solution for ``packages``, with all that they need, on an empty system."""
        self._prepare()
        self._apt("update", "-qq")
        question, known = self._question(packages), self._known()
        if known and known.question == question:
            return known.offer
        offer = parse(self._apt("--simulate", "--no-install-recommends", "install", *packages))
        with whole(self.folder / ANSWER) as file:
            file.write(msgspec.json.encode(_KnownAnswer(question=question, offer=offer)))
        return offer

    def _known(self) -> _KnownAnswer | None:
        """Return the last answer, if there is one; what a full disk or a kill has left is asked again."""
        try:
            return decoding.decode((self.folder / ANSWER).read_bytes(), _KnownAnswer)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _prepare(self) -> None:
        for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "var/lib/dpkg/status").touch()
        listed = self.folder / "etc/apt/sources.list"
        program = shutil.which(os_image.PROGRAM)
        if not listed.exists() or (program and listed.stat().st_mtime < Path(program).stat().st_mtime):
            with whole(listed) as file:
                file.write(os_image.sources(self.system).encode())
        settings = SETTINGS.format(root=self.folder, architecture=PLATFORM.rpartition("/")[2]) + AptSettings.of_host().config
        (self.folder / "apt.conf").write_text(settings, encoding="utf-8")

    def _question(self, packages: tuple[str, ...]) -> str:
        """Return what an answer depends on: the lists, whose heads apt has verified, and the packages."""
        digest = hashlib.sha256("\n".join(packages).encode())
        for path in sorted((self.folder / "var/lib/apt/lists").glob("*_InRelease")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def _apt(self, *words: str) -> str:
        try:
            return apt.ask(self.folder / "apt.conf", *words)
        except AptError as error:
            raise NightlyError(f"{self.system.id}: apt has no answer: {error.what}", fix=error.fix) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMirrors:
    """The mirrors of an OS that comes from a registry: its image knows them, and BuildKit asks it in a container."""

    system: OperatingSystem

    def news(self, lock: OsLock) -> News:
        """Return what a build would get today that is not as locked: another OS image, other packages.

        :raises RegistryError: the registry does not have what the tag is to name, or does not answer.
        :raises OsPartError: apt has no answer.
        """
        image = image_tags.pinned(str(self.system.image))
        names = set(chain.from_iterable(packages for section, packages in lock.sections.items() if section != os_locks.OS_IMAGE))
        offer, held = self._offer(image, names)
        moves = os_locks.moves(lock.installed(section for section in lock.sections if section != os_locks.OS_IMAGE), {**held, **offer.packages})
        base = Base(system=self.system.id, old=lock.image, new=image) if image != lock.image else None
        return News(system=self.system, moves=moves, security=offer.security, base=base)

    def _offer(self, image: str, names: Collection[str]) -> tuple[Offer, os_locks.Packages]:
        """Return apt's solution for the packages of a lock on an OS image, and what that holds."""
        asked = archives.Asked(system=self.system, below=f"{bakefile.REGISTRY}{image}", on_line=lambda _: None)
        with temporary.directory() as work:
            answer = asked.ask(archives.OFFERED, work, {archives.PACKAGES: "\n".join(sorted(names))})
            offered, status = ((answer / name).read_text(encoding="utf-8") for name in (archives.OFFER, archives.STATUS))
        return parse(offered), os_locks.installed(status)


def parse(simulated: str) -> Offer:
    """Return what ``apt-get --simulate install`` says that it would install."""
    installs = list(_installs(simulated))
    return Offer(packages={name: version for name, version, _ in installs}, security=tuple(name for name, _, origins in installs if SECURITY in origins))


def _installs(simulated: str) -> Iterator[tuple[str, str, str]]:
    for line in simulated.splitlines():
        if match := INSTALLS.match(line):
            yield match["name"], match["version"], match["origins"]


def of_images(systems: Mapping[str, OperatingSystem], root: Path) -> tuple[ImageMirrors, ...]:
    """Return the mirrors of those systems that come from a registry and are locked in the repository ``root``."""
    return tuple(ImageMirrors(system=system) for system in systems.values() if system.image and os_locks.path(system, root).exists())


def folders(root: Path, systems: Mapping[str, OperatingSystem]) -> tuple[Mirrors, ...]:
    """Return the mirrors of those systems that are made from packages, with their directories under ``root``."""
    return tuple(Mirrors(system=system, folder=root / "apt" / system.id) for system in systems.values() if system.bootstrap)
