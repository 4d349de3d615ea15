"""Locks of OS packages: ``locks/os/<os>.lock`` has every package, with its version, of the OS image and each flavour.

On another platform it is ``<os>-arm64.lock``, since the versions that are offered may differ (rebuilds have numbers
of their own).

apt takes pins, not locks: a pinned version that the mirror has dropped is passed over in silence. So a build is
compared with its lock afterwards, by :func:`moves`. The lock also fixes the time that OS layers carry
(``SOURCE_DATE_EPOCH``): it stays when packages move, so that layers without them stay what they are.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torchstrata import files
from torchstrata.errors import LockError
from torchstrata.locks import lockfile
from torchstrata.matrix.matrix import ROOT, OperatingSystem
from torchstrata.store import dpkg_status
from torchstrata.text import printable

OS_IMAGE: Final = "os"
"""The section of the OS image itself, below those of the flavours."""

HEADER: Final = """\
# Every OS package of {system}: what the OS image holds, and what each flavour adds or changes.
# Written by `inv lock --os`; builds pin these versions.
"""

FIX: Final = "run: inv lock --os {system}"

MOVE: Final = re.compile(r"(?P<package>\S+) (?P<locked>\S+|\(not locked\)) -> (?P<found>\S+|\(not installed\))")
"""A :class:`PackageMove` in words."""

NOT_LOCKED: Final = "(not locked)"
NOT_INSTALLED: Final = "(not installed)"

DAY: Final = re.compile(r"(?P<word>date|first|moment) (?P<value>20[0-9]{2}-[0-9]{2}-[0-9]{2}(?:T[0-9:]{8}\+00:00)?)")
IMAGE: Final = re.compile(r"image (?P<image>[A-Za-z0-9][A-Za-z0-9._:/-]{0,511}@sha256:[0-9a-f]{64})")
"""The OS image of a registry: the tag that was asked for, and the digest of what it named for our platform."""
SECTION: Final = re.compile(r"\[([a-z][a-z0-9.-]*)\]")
PIN: Final = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?)=(?P<version>[A-Za-z0-9][A-Za-z0-9.+:~-]*)")
"""Names and versions as Debian Policy 5.6.1 and 5.6.12 have them: they become lines of apt's preferences."""

NAMED: Final = 6
"""Moves that one line names."""

Packages = Mapping[str, str]
"""Versions by package name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OsLock:
    """The lock of one OS.

    :param system: name of the OS, with the architecture where it is not the default one.
    :param date: day on which it was solved, such as ``2026-11-24``.
    :param sections: for the OS image and each flavour, parents first, the packages that it adds or changes.
    :param first: day on which it was first solved, if that was before ``date``.
    :param moment: when on ``date`` mirrors were asked, in RFC 3339 and UTC; empty in locks that do not tell. It finds
        the right snapshot of an archive, and is part of no identity.
    :param image: of an OS that comes from a registry: name, tag and digest of its OS image.
    :param opened: flavours that it says nothing of and that are to be locked: what they add is what mirrors offer at
        ``opened_at``.
    """

    system: str
    date: str
    sections: Mapping[str, Packages]
    first: str = ""
    moment: str = ""
    image: str = ""
    opened: frozenset[str] = frozenset()
    opened_at: str = ""

    @property
    def epoch(self) -> int:
        """The time of OS layers in seconds since 1970: midnight UTC of the first day."""
        return int(dt.datetime.fromisoformat(f"{self.first or self.date}T00:00:00+00:00").timestamp())

    def installed(self, lineage: Iterable[str]) -> Packages:
        """Return all packages of the last flavour of ``lineage``; of the OS image if that is empty."""
        sections = (self.sections.get(name, {}) for name in (OS_IMAGE, *lineage))
        return dict(itertools.chain.from_iterable(packages.items() for packages in sections))

    def digest(self, lineage: Iterable[str]) -> str:
        """Return the identity of all that the lock says of ``lineage``; other flavours do not change it.

        What pins nothing is what mirrors offered at its moment.
        """
        links = tuple(lineage)
        day = (self.first or self.date) if self.sections else (self.moment or self.date)
        opened = [] if self.opened.isdisjoint(links) else [self.opened_at]
        return hashlib.sha256(json.dumps([day, self.installed(links), *opened], sort_keys=True).encode()).hexdigest()

    def lacks(self, flavours: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``flavours`` that nobody has locked."""
        return tuple(flavour for flavour in flavours if flavour not in self.sections)

    def moves(self, lineage: Sequence[str], installed: Packages) -> tuple[PackageMove, ...]:
        """Return where the packages of the last flavour of ``lineage`` differ; an opened flavour adds no difference."""
        moved = moves(self.installed(lineage), installed) if self.sections else ()
        return moved if self.opened.isdisjoint(lineage) else tuple(move for move in moved if move.locked)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageMove:
    """A package whose version is not the locked one.

    :param locked: ``None`` if the lock does not name it.
    :param found: ``None`` if it was not installed.
    """

    package: str
    locked: str | None
    found: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.locked or NOT_LOCKED} -> {self.found or NOT_INSTALLED}"


def in_words(moves: Iterable[PackageMove]) -> str:
    """Return all moves in one line; :func:`from_words` reads it back."""
    return ", ".join(map(str, moves))


def in_short(moves: Sequence[PackageMove], named: int = NAMED) -> str:
    """Return the first moves in one line, and how many more there are."""
    return in_words(moves[:named]) + (f" and {len(moves) - named} more" if len(moves) > named else "")


def from_words(text: str) -> tuple[PackageMove, ...]:
    """Return the moves that a line tells of; none for an empty one.

    :raises LockError: it cannot be understood.
    """
    matches = [MOVE.fullmatch(words) for words in text.split(", ") if words]
    if None in matches:
        raise LockError(f"this does not tell how packages differ from a lock: {printable(text, 80)}", fix="build the image again")
    return tuple(PackageMove(package=words["package"], locked=_known(words["locked"]), found=_known(words["found"])) for words in matches if words)


def _known(version: str) -> str | None:
    return None if version in {NOT_LOCKED, NOT_INSTALLED} else version


def state(moves: Sequence[PackageMove], named: int = NAMED) -> str:
    """Return in words whether something is as locked."""
    return f"drifted: {in_short(moves, named)}" if moves else "as locked"


def unlocked(system: OperatingSystem, moment: dt.datetime, root: Path = ROOT, *, image: str = "") -> OsLock:
    """Return a lock that pins no package, solved at ``moment`` (UTC), with the first day of the present lock.

    :param image: name, tag and digest of the OS image, if it comes from a registry.
    """
    first = _first_day(system, root)
    return OsLock(system=system.name, date=moment.date().isoformat(), sections={}, first=first, moment=moment.isoformat(timespec="seconds"), image=image)


def _first_day(system: OperatingSystem, root: Path) -> str:
    try:
        before = _parsed(system, root)
    except LockError:  # missing or unreadable: it is written anew
        return ""
    return before.first or before.date


def path(system: OperatingSystem, root: Path = ROOT) -> Path:
    """Return where the lock of ``system`` lies."""
    return root / "locks" / "os" / f"{system.name}.lock"


def read(system: OperatingSystem, root: Path = ROOT) -> OsLock:
    """Return the lock of ``system``.

    :raises LockError: it is missing, a line cannot be understood, or ``matrix.yaml`` names another OS image.
    """
    lock = _parsed(system, root)
    locked, wanted = lock.image.partition("@")[0], system.image or ""
    if locked != wanted:
        what = f"locks/os/{system.name}.lock is of {locked or 'no OS image'}, and matrix.yaml names {wanted or 'none'}"
        raise LockError(what, fix=FIX.format(system=system.asked))
    return lock


def _parsed(system: OperatingSystem, root: Path) -> OsLock:
    file = path(system, root)
    try:
        return parse(system.name, files.text(file, lockfile.LIMIT), FIX.format(system=system.asked))
    except files.UnreadableError as error:
        what = error.what if file.exists() else f"the OS packages of {system.name} are not locked: there is no locks/os/{file.name}"
        raise LockError(what, fix=FIX.format(system=system.asked)) from error


def check(systems: Iterable[OperatingSystem], root: Path = ROOT) -> list[LockError]:
    """Return what is wrong with the locks of systems that are there; those that nobody has locked are not wrong.

    :param systems: all of the matrix, on every platform.
    """
    known = {path(system, root): system for system in systems}
    problems = []
    for file in sorted((root / "locks" / "os").glob("*.lock")):
        try:
            if file in known:
                python_version(known[file], root)
            else:
                where = file.relative_to(root).as_posix()
                raise LockError(f"{where} belongs to no OS of matrix.yaml", fix=f"run: rm {shlex.quote(where)}")  # one of several
        except LockError as error:
            problems.append(error)
    return problems


def write(lock: OsLock, system: OperatingSystem, root: Path = ROOT) -> Path:
    """Write the lock of ``system``, all of it or nothing, and return its path."""
    file = path(system, root)
    lockfile.replaced(file, text(lock))
    return file


def text(lock: OsLock) -> str:
    """Return the lock as it lies in the repository."""
    first = f"first {lock.first}\n" if lock.first not in {"", lock.date} else ""
    moment = f"moment {lock.moment}\n" if lock.moment else ""
    image = f"image {lock.image}\n" if lock.image else ""
    lines = [HEADER.format(system=lock.system), f"date {lock.date}\n", first, moment, image]
    for section, packages in lock.sections.items():
        lines += [f"\n[{section}]\n", *(f"{name}={version}\n" for name, version in sorted(packages.items()))]
    return "".join(lines)


def parse(system: str, content: str, cure: str = "") -> OsLock:
    """Return the lock that ``content`` describes.

    :param cure: what to do about one that cannot be understood; to lock that OS if empty.
    :raises LockError: a line cannot be understood.
    """
    cure = cure or FIX.format(system=system)
    days, sections, packages, image = dict[str, str](), dict[str, dict[str, str]](), dict[str, str](), ""
    for number, line in enumerate(content.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        if day := DAY.fullmatch(line):
            is_new = day["word"] not in days
            days[day["word"]] = day["value"]
        elif section := SECTION.fullmatch(line):
            is_new = section[1] not in sections
            packages = sections.setdefault(section[1], {})
        elif pin := PIN.fullmatch(line):
            is_new = bool(sections) and pin["name"] not in packages
            packages[pin["name"]] = pin["version"]
        elif named := IMAGE.fullmatch(line):
            is_new, image = not image, named["image"]
        else:
            raise LockError(f"locks/os/{system}.lock line {number} is no package=version: {printable(line, 80)}", fix=cure)
        if not is_new:
            raise LockError(f"locks/os/{system}.lock line {number} says what was said before, or stands in no section: {printable(line, 80)}", fix=cure)
    if "date" not in days or OS_IMAGE not in sections:
        raise LockError(f"locks/os/{system}.lock has no date or no [{OS_IMAGE}]", fix=cure)
    _check_days(system, days, cure)
    return OsLock(system=system, sections=sections, date=days["date"], first=days.get("first", ""), moment=days.get("moment", ""), image=image)


def _check_days(system: str, days: Mapping[str, str], cure: str) -> None:
    """Refuse text that has the form of a day or a time without being one."""
    for word, value in days.items():
        try:
            if bool(dt.datetime.fromisoformat(value).tzinfo) != (word == "moment"):
                raise LockError(f"locks/os/{system}.lock: {word} {value} is no {'time' if word == 'moment' else 'day'}", fix=cure)
        except ValueError as error:
            raise LockError(f"locks/os/{system}.lock: {word} {value} is no {'time' if word == 'moment' else 'day'}", fix=cure) from error


def solved(by: OsLock, installed: Mapping[str, Packages], parents: Mapping[str, str]) -> OsLock:
    """Return the lock of what was installed, beside what a lock says already.

    :param by: what it was installed by.
    :param installed: all packages of the OS image and of each flavour, parents first.
    :param parents: what each flavour lies on; the OS image has none. Flavours that ``installed`` has and this does
        not are left out.
    """
    added = {name: _difference(installed[name], installed.get(parents.get(name, ""), {})) for name in installed if name in parents or name == OS_IMAGE}
    return replace(by, sections={**by.sections, **added}, opened=frozenset())


def _difference(packages: Packages, below: Packages) -> Packages:
    return {name: version for name, version in packages.items() if below.get(name) != version}


def moves(locked: Packages, installed: Packages) -> tuple[PackageMove, ...]:
    """Return where what is installed differs from the lock, by name."""
    moved = [name for name in sorted(locked.keys() | installed.keys()) if locked.get(name) != installed.get(name)]
    return tuple(PackageMove(package=name, locked=locked.get(name), found=installed.get(name)) for name in moved)


def applied(locked: Packages, moved: Iterable[PackageMove]) -> Packages:
    """Return the packages of a lock, but for those that have moved."""
    now = {**locked, **{move.package: move.found for move in moved}}
    return {name: version for name, version in now.items() if version}


def preferences(locked: Packages) -> str:
    """Return apt preferences that pin every package, downgrades included (priority over 1000, apt_preferences(5))."""
    return "\n".join(f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in sorted(locked.items()))


def installed(status: str) -> Packages:
    """Return the packages that dpkg's status file calls installed."""
    return {package.name: package.version for package in dpkg_status.installed(status)}


def python_version(system: OperatingSystem, root: Path = ROOT) -> str:
    """Return the full version of the OS's Python as locked, such as ``3.13.5``.

    :raises LockError: there is no lock, or it names no such Python.
    """
    return python_in(read(system, root).installed(("base",)), system)


def python_in(packages: Packages, system: OperatingSystem) -> str:
    """Return the full version of the OS's Python among ``packages``.

    :raises LockError: there is none.
    """
    package = f"python{system.python}"
    version = packages.get(package)
    if version is None:
        raise LockError(f"locks/os/{system.name}.lock does not name {package}", fix=FIX.format(system=system.asked))
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]
