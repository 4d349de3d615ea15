"""What running services remember: a directory of this container's own, in memory where it can be.

Its name holds the user, and the container's mount namespace (namespaces(7)), which all its processes share, ``docker exec`` included, and
no other container does. So a ``/tmp`` or ``/dev/shm`` that is shared (volumes, ``--ipc=host``, pods, Apptainer) holds one for each.
``/dev/shm`` comes first, since ``docker commit`` does not take it. Whoever uses the directory holds a lock on it (flock(2)), which
the kernel frees with the process: what nobody holds is a leftover.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOTS: tuple[Path, ...] = (Path("/dev/shm"), Path("/tmp"))  # noqa: S108  # what is there of another user's is never used
PREFIX: Final = "torchstrata"
NAMESPACE: Final = Path("/proc/self/ns/mnt")
OWN_CGROUP: Final = Path("/proc/self/cgroup")
FIRST_PROCESS: Final = Path("/proc/1")

SERVICES: Final = "services.json"
"""What was asked for and where it answers; no secrets."""

LIMIT: Final = 65_536
"""Bytes of a file that probes read."""

INIT: Final = "init.pid"
"""The process whose environment is the container's."""


def directory(uid: int | None = None) -> Path:
    """Return the directory of a user of this container, by default the caller's: where it lies, else where it would be made."""
    owner = os.geteuid() if uid is None else uid
    places = [root / _name(owner) for root in ROOTS]
    usable = [place for place in places if os.access(place.parent, os.W_OK | os.X_OK)]
    return next((place for place in places if _is_of(place, owner)), [*usable, *places][0])


def of_container() -> Path | None:
    """Return the directory of the container's user, for a probe that may run as another; None where there is none.

    Nobody else's counts, and no link: whoever is in a container may put things beside it.
    """
    owner = user()[0]
    return next((place for place in (root / _name(owner) for root in ROOTS) if _is_of(place, owner)), None)


def user() -> tuple[int, int]:
    """Return uid and gid of the container's user, by what the kernel says, which no user can change.

    The container's first process has them; where that is an init of root's (``docker run --init``), its oldest child. Where both are
    root's, it is whoever has a directory of this container, and root where nobody has.
    """
    first = _first()
    for process in (first, *_oldest_child(first)):
        uid, gid = _ids(process)
        if uid:
            return uid, gid
    return next(((uid, 0) for uid in _users()), (0, 0))


def claim() -> str:
    """Make the directory, empty, and hold it as long as this process lives, and the programs that it becomes.

    :return: why there is none; empty where there is.
    """
    troubles = []
    for root in ROOTS:
        place = root / _name(os.geteuid())
        try:
            descriptor = _opened(place)
            if _lock(descriptor, fcntl.LOCK_EX):
                _empty(place)
            elif (place / SERVICES).exists():
                return "they run in this container already"
            _lock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            troubles.append(f"{error.filename or root}: {error.strerror}")
            continue
        _sweep()
        return ""
    return f"there is no place for what they remember ({', '.join(troubles)})"


def join() -> Path:
    """Return the directory, made where it lacks, and hold it as long as this process lives, and the programs that it becomes.

    :raises OSError: it cannot be made.
    """
    place = directory()
    _lock(_opened(place), fcntl.LOCK_SH)
    return place


def remove() -> None:
    """Remove the directory, which others may share the file system of. What cannot be removed now is left to the next start."""
    shutil.rmtree(directory(), ignore_errors=True)


def write(name: str, content: str, *, mode: int = 0o600, state: Path | None = None) -> Path:
    """Write a file of the directory, never readable by more than ``mode`` on the way; return its path."""
    path = (state or directory()) / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    return path


def content(path: Path) -> bytes:
    """Return what a small file of the directory holds, without waiting for a writer of a FIFO.

    :raises OSError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file.read(LIMIT)


def read(name: str, state: Path | None = None) -> dict[str, Any] | None:
    """Return a JSON document of the directory, or None where there is none."""
    try:
        document = json.loads(((state or directory()) / name).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _name(uid: int) -> str:
    try:
        namespace = "".join(filter(str.isdigit, str(NAMESPACE.readlink())))
    except OSError:  # kernels without namespaces of mounts have one container
        namespace = "0"
    return f"{PREFIX}-{namespace}-{uid}"


def _is_of(place: Path, uid: int) -> bool:
    try:
        status = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid


def _opened(place: Path) -> int:
    """Open the directory, made where it lacks, for this process and the programs that it becomes.

    :raises OSError: it cannot be made, or is another user's, who may have put things there.
    """
    if not os.path.lexists(place):
        place.mkdir(mode=0o711)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid():
        os.close(descriptor)
        raise OSError(errno.EPERM, f"it belongs to user {owner}", str(place))
    os.fchmod(descriptor, 0o711)
    os.set_inheritable(descriptor, True)  # noqa: FBT003  # the function takes no name
    return descriptor


def _lock(descriptor: int, kind: int) -> bool:
    """Return whether the lock could be had at once."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(place: Path) -> None:
    for entry in place.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sweep() -> None:
    """Remove what killed containers of the same user have left in a file system that they shared with this one."""
    own = _name(os.geteuid())
    for place in _places():
        if place.name != own and place.name.endswith(f"-{os.geteuid()}") and _is_of(place, os.geteuid()):
            _remove_unheld(place)


def _remove_unheld(place: Path) -> None:
    """Remove a directory that no process holds; another start may be doing the same."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if _lock(descriptor, fcntl.LOCK_EX):
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(descriptor)


def _first() -> Path:
    """Return the first process of this container: process 1, but where that is another's (pods, ``--pid``) the one that began first here."""
    if _is_here(FIRST_PROCESS):
        return FIRST_PROCESS
    processes = (entry for entry in FIRST_PROCESS.parent.iterdir() if entry.name.isdecimal())
    return min(filter(_is_here, processes), key=_age, default=FIRST_PROCESS)


def _is_here(process: Path) -> bool:
    """Return whether a process is of this container: by its mount namespace, or by its cgroup where it is another user's, who does not show that."""
    try:
        return (process / "ns/mnt").samefile(NAMESPACE)
    except OSError:
        return _of_kernel(process / "cgroup") == _of_kernel(OWN_CGROUP)


def _age(process: Path) -> tuple[float, int]:
    """Return when a process began, since boot (field 22 of proc_pid_stat(5)), and its number, for two that began at once."""
    fields = _of_kernel(process / "stat").rpartition(b")")[2].split()
    return float(fields[19]) if fields else math.inf, int(process.name)


def _of_kernel(path: Path) -> bytes:
    """Return what a file of ``/proc`` says; nothing where its process has ended, or is another user's who does not show it."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _oldest_child(parent: Path) -> list[Path]:
    """Return the first process that a process has started: it has the lowest number, since the kernel gives low ones once only."""
    numbers = _of_kernel(parent / "task" / parent.name / "children").split()
    return [parent.parent / str(min(map(int, numbers)))] if numbers else []


def _ids(process: Path) -> tuple[int, int]:
    """Return real uid and gid of a process (proc_pid_status(5)); root's of one that is gone."""
    try:
        lines = (process / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0
    ids = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Uid:", "Gid:"))}
    return ids["Uid"], ids["Gid"]


def _users() -> Iterator[int]:
    """Yield the users, but for root, that have a directory of this container."""
    beginning = _name(0).removesuffix("0")
    for place in _places():
        uid = place.name.removeprefix(beginning) if place.name.startswith(beginning) else ""
        if uid.isdecimal() and uid != "0" and _is_of(place, int(uid)):
            yield int(uid)


def _places() -> Iterator[Path]:
    """Yield the directories of all users and containers that share a file system with this one."""
    for root in ROOTS:
        try:
            yield from sorted(entry for entry in root.iterdir() if entry.name.startswith(f"{PREFIX}-"))
        except OSError:
            continue
