"""Build contexts: what of ``images/`` an OS part is made from, with modes and times that no checkout changes."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from torchstrata import files as files_of
from torchstrata.errors import FlavourError, OsPartError
from torchstrata.files import KINDS
from torchstrata.layers.apt_settings import VARIABLE, AptSettings
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.store.layer import EPOCH
from torchstrata.text import printable

APT: Final = "apt"
"""The context that every flavour installs packages with; not a flavour."""

MOUNTED: Final = "/mnt"
"""Where flavours see that context while they install."""

DOES_WITHOUT: Final = 'for name; do shift; case $name in {names}) ;; *) set -- "$@" "$name" ;; esac; done\n'
"""Takes packages out of what the installer is asked for."""

NANO: Final = 1_000_000_000

USED: Final = ("Dockerfile", "install", "dpkg.cfg", "rootfs")
"""What counts in a directory of ``images/``. ``requirements.in`` is of the payload; the rest changes no layer."""

DOCKERFILE: Final = "Dockerfile"

PARENT: Final = "PARENT"
"""The argument by which a Dockerfile that nobody has written gets the name of the context that it starts from.

It is no second name of that context: buildx (0.13) replaces one name for each target, and BuildKit knows no other.
"""

ROOTFS: Final = "rootfs"
"""Files of a flavour, where they lie in its images."""

LABEL: Final = "torchstrata.flavour"
"""The label that ends each Dockerfile; it tells in an image's history which layers belong to which flavour."""

LIMIT: Final = 64_000_000
"""Bytes of a file in a context at most; larger ones belong into a package."""

DEEPEST: Final = 64
"""Directories in each other at most."""

LITTER: Final = frozenset({"__pycache__", ".DS_Store"})
"""What programs leave in a checkout."""


def files(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yield relative path and file (or symbolic link) of all that counts in ``images/<name>``, sorted.

    :raises OsPartError: there is no such directory, one may not be read, or they lie deeper in each other than :data:`DEEPEST`.
    """
    try:
        with os.scandir(root / "images" / name) as entries:
            used = [entry for entry in entries if entry.name in USED]
        counted = sorted(_files(used), key=lambda file: file[0])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OsPartError(f"there is no images/{name}", fix=f"make images/{name}/flavour.yaml (docs/adding.md), or take its name out") from error
    except OSError as error:
        raise OsPartError(f"{error.filename} cannot be read: {error.strerror}", fix="let its owner give you the right to read it, or remove it") from error
    for relative, path in counted:
        check(f"images/{name}/{'/'.join(relative)}", Path(path), may_be_link=len(relative) > 1)
        yield "/".join(relative), Path(path)


def brought(root: Path, flavour: str) -> frozenset[str]:
    """Return the paths in images, without a leading slash, of the files and links that a flavour brings."""
    return frozenset(relative.removeprefix(f"{ROOTFS}/") for relative, _ in files(root, flavour) if relative.startswith(f"{ROOTFS}/"))


def installs(root: Path, flavour: str) -> bool:
    """Return whether a flavour's Dockerfile installs OS packages: those that do mount :data:`APT`."""
    path = root / "images" / flavour / DOCKERFILE
    lines = _content(path).decode(errors="replace").splitlines() if path.exists() else []
    return any(f"from={APT}" in line and not line.lstrip().startswith("#") for line in lines)


def check_shadows(root: Path, lineage: Sequence[str]) -> None:
    """Refuse a flavour whose files would hide a parent's file or directory: the parent would not be in its image.

    What packages bring is theirs to replace; what a Dockerfile's commands do shows only in its layers.

    :param lineage: parents first.
    :raises FlavourError: there is such a file.
    """
    files_of, directories_of = dict[str, str](), dict[str, str]()
    for flavour in lineage:
        mine = {path: [str(above) for above in PurePosixPath(path).parents] for path in sorted(brought(root, flavour))}
        for path, above in mine.items():
            others = [files_of[place] for place in (path, *above) if place in files_of]
            others += [directories_of[path]] if path in directories_of else []
            if others:
                what = f"images/{flavour}/{ROOTFS}/{path} would hide what images/{others[0]} brings there"
                raise FlavourError(what, fix=f"give it another name, or change the one in images/{others[0]}, for all flavours above it")
        files_of |= dict.fromkeys(mine, flavour)
        directories_of |= dict.fromkeys(itertools.chain.from_iterable(mine.values()), flavour)


def check(name: str, path: Path, *, may_be_link: bool) -> None:
    """Refuse what has no content to copy, and links where a build reads; links below ``rootfs`` are copied as links.

    :raises OsPartError: it is a named pipe, a socket or a device, or a name that is no text.
    """
    kind = stat.S_IFMT(path.lstat().st_mode)
    if not name.isprintable():
        raise OsPartError(f"{printable(name)!r} is a name with control characters", fix="rename it")
    if kind == stat.S_IFREG or (kind == stat.S_IFLNK and may_be_link):
        return
    raise OsPartError(f"{name} is {KINDS.get(kind, 'a symbolic link')}, not a file", fix=f"remove it: git clean -n -- {name}")


def _files(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the parts of the relative path, and the path, of each file and link among entries and further down.

    :raises OsPartError: directories lie deeper in each other than :data:`DEEPEST`.
    """
    waiting: list[tuple[tuple[str, ...], os.DirEntry[str]]] = [((entry.name,), entry) for entry in entries]
    while waiting:
        place, entry = waiting.pop()
        if entry.name in LITTER:
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield place, entry.path
            continue
        if len(place) > DEEPEST:
            shown = printable("/".join(place), 80)
            raise OsPartError(f"directories below images/ lie more than {DEEPEST} deep in each other: {shown}", fix="remove them: git clean -nd -- images")
        with os.scandir(entry.path) as inside:
            waiting += [((*place, below.name), below) for below in inside]


def tree(root: Path, name: str) -> list[tuple[str, int, str]]:
    """Return path, mode and sha256 of all that counts in ``images/<name>``; of links, their targets."""
    return [(relative, mode(path), hashlib.sha256(_content(path)).hexdigest()) for relative, path in files(root, name)]


def _content(path: Path) -> bytes:
    """Return the bytes of a file, or the target of a link.

    :raises OsPartError: it may not be read, or is too large for a file that people write.
    """
    try:
        return os.fsencode(path.readlink()) if path.is_symlink() else files_of.read(path, LIMIT)
    except files_of.UnreadableError as error:
        raise OsPartError(error.what, fix=error.fix) from error


def mode(path: Path) -> int:
    """Return the mode that a file gets in an image: git keeps no more of it than whether it is executable."""
    if path.is_symlink():
        return 0o777
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def apt_config(root: Path) -> bytes:
    """Return dpkg's configuration for the OS image.

    :raises OsPartError: it cannot be read.
    """
    return _content(root / "images" / APT / "dpkg.cfg")


def stage(
    root: Path,
    flavours: Sequence[str],
    pins: Mapping[OperatingSystem, tuple[OsLock, Sequence[str]]],
    into: Path,
    settings: Mapping[OperatingSystem, AptSettings] | None = None,
) -> None:
    """Write the contexts of ``flavours``, and for each OS ``apt-<os>`` with the pins of a lineage in its lock.

    :param pins: lock and lineage by OS.
    :param settings: further settings of apt, by OS. Packages that an OS lacks are not asked for.
    :raises OsPartError: ``images/apt`` is not of the shape that lets apt be told something.
    """
    for flavour in flavours:
        _copy(root, flavour, into / flavour)
        if not (into / flavour / DOCKERFILE).exists():
            copy = "COPY rootfs /\n" if (into / flavour / ROOTFS).exists() else ""
            (into / flavour / DOCKERFILE).write_text(f"ARG {PARENT}\nFROM ${PARENT}\n{copy}LABEL {LABEL}={flavour}\n", encoding="utf-8")
    for system, (lock, lineage) in pins.items():
        directory = into / f"{APT}-{system.name}"
        _copy(root, APT, directory)
        (directory / "preferences").write_text(os_locks.preferences(lock.installed(lineage)), encoding="utf-8")
        if told := (settings or {}).get(system):
            _tell(directory, told.write(directory, MOUNTED))
        if system.lacks:
            _insert(directory / "install", "#!", DOES_WITHOUT.format(names="|".join(system.lacks)))


def _tell(directory: Path, files: Sequence[str]) -> None:
    """Let the update and the installer of a staged ``images/apt`` read apt's settings; the committed one stays."""
    _insert(
        directory / "Dockerfile",
        "FROM ",
        f"COPY {' '.join(files)} /{APT}/\nRUN rmdir {MOUNTED} && ln -s {APT} {MOUNTED}\nENV {VARIABLE}={MOUNTED}/{files[0]}\n",
    )
    _insert(directory / "install", "#!", f"export {VARIABLE}={MOUNTED}/{files[0]}\n")


def _insert(file: Path, after: str, lines: str) -> None:
    """Put lines after the first line that begins with ``after``."""
    text, count = re.subn(rf"^{re.escape(after)}.*\n", lambda line: line[0] + lines, file.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    if not count:
        raise OsPartError(f"images/{APT}/{file.name} has no line that begins with {after}", fix="restore it from git")
    file.write_text(text, encoding="utf-8")


def _copy(root: Path, name: str, into: Path) -> None:
    """Copy a context; every directory gets a fixed mode and time, every file a time that follows from its content."""
    into.mkdir()
    for relative, path in files(root, name):
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            target.write_bytes(_content(path))
            target.chmod(mode(path))
        os.utime(target, ns=(moment(path), moment(path)), follow_symlinks=False)
    for path in (into, *into.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
            os.utime(path, (EPOCH, EPOCH))


def moment(path: Path) -> int:
    """Return the time of a file in a context, in nanoseconds since 1970: :data:`EPOCH` and a fraction from its content.

    BuildKit does not send a file again whose size and time it knows, so that with one time for all an edit that keeps
    the size would be lost. Layers have whole seconds.
    """
    return EPOCH * NANO + int.from_bytes(hashlib.sha256(_content(path)).digest()[:8], "big") % NANO
