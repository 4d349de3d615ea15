"""What running services remember: a directory of this container's own, in memory where it can be.

Its name has the container's mount namespace (namespaces(7)), which all its processes share, ``docker exec`` included, and no other
container does, and the user. So a ``/tmp`` or ``/dev/shm`` that is shared (volumes, ``--ipc=host``, pods, Apptainer) holds one for each.
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
    """Return the directory of a user of this container, by default of the caller: where it is, else where it would be made."""
    owner = os.geteuid() if uid is None else uid
    places = [root / _name(owner) for root in ROOTS]
    usable = [place for place in places if os.access(place.parent, os.W_OK | os.X_OK)]
    return next((place for place in places if _is_of(place, owner)), [*usable, *places][0])


def of_container() -> Path | None:
    """Return the directory of the container's user, for a probe that may be another one: 0711, as is what probes may read.

    Nobody else's counts, and no link: whoever is in a container may put things beside it.
    """
    owner = user()[0]
    return next((place for place in (root / _name(owner) for root in ROOTS) if _is_of(place, owner)), None)


def user() -> tuple[int, int]:
    """Return uid and gid of the container's user, by what the kernel says, which no user can change.

    It is whose the container's first process is; where that is an init of root's (``docker run --init``), whose its oldest child is.
    Where that tells nothing, it is whoever has a directory of this container.
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
            os.set_inheritable(descriptor, True)  # noqa: FBT003  # the function takes no name
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
    descriptor = _opened(place)
    os.set_inheritable(descriptor, True)  # noqa: FBT003  # the function takes no name
    _lock(descriptor, fcntl.LOCK_SH)
    return place


def remove() -> None:
    """Remove the directory: nobody who shares its place should find it. What cannot be removed now, the next start's sweep removes."""
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
    """Return what a small file holds; a probe waits for nothing that is no file.

    :raises OSError: there is none.
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
        found = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _opened(place: Path) -> int:
    """Open the directory, made where it lacks.

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
    """Remove what killed containers of the same user have left in a place that they shared with this one."""
    own = _name(os.geteuid())
    for place in (root / name for root in ROOTS for name in _listed(root)):
        if place.name != own and place.name.endswith(f"-{os.geteuid()}") and _is_of(place, os.geteuid()):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.LOCK_EX):
                    shutil.rmtree(place, ignore_errors=True)  # another start may sweep the same
            finally:
                os.close(descriptor)


def _first() -> Path:
    """Return the first process of this container: process 1, but where that is another's (pods, ``--pid``) the one that began first here."""
    if _is_here(FIRST_PROCESS):
        return FIRST_PROCESS
    return min((entry for entry in FIRST_PROCESS.parent.iterdir() if entry.name.isdecimal() and _is_here(entry)), key=_age, default=FIRST_PROCESS)


def _is_here(process: Path) -> bool:
    """Return whether a process is of this container: by its mount namespace; that of another user's is not shown, so then by its cgroup."""
    try:
        return (process / "ns/mnt").samefile(NAMESPACE)
    except OSError:
        return _content(process / "cgroup") == _content(OWN_CGROUP)


def _age(process: Path) -> tuple[float, int]:
    """Return what orders processes by when they began: time since boot (field 22 of proc_pid_stat(5)), then number."""
    fields = _content(process / "stat").rpartition(b")")[2].split()
    return float(fields[19]) if fields else math.inf, int(process.name)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is not shown
        return b""


def _oldest_child(parent: Path) -> list[Path]:
    """Return the first process that a process has started: it has the lowest number, since the kernel gives low ones once only."""
    numbers = _content(parent / "task" / parent.name / "children").split()
    return [parent.parent / str(min(map(int, numbers)))] if numbers else []


def _ids(process: Path) -> tuple[int, int]:
    """Return real uid and gid of a process (proc_pid_status(5)); root's of one that is gone."""
    try:
        lines = (process / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Uid:", "Gid:"))}
    return int(found["Uid"]), int(found["Gid"])


def _users() -> Iterator[int]:
    """Yield the users, but for root, that have a directory of this container."""
    beginning = _name(0).removesuffix("0")
    names = ((root, name.removeprefix(beginning)) for root in ROOTS for name in sorted(_listed(root)) if name.startswith(beginning))
    yield from (int(uid) for root, uid in names if uid.isdecimal() and uid != "0" and _is_of(root / f"{beginning}{uid}", int(uid)))


def _listed(root: Path) -> list[str]:
    try:
        return [path.name for path in root.iterdir() if path.name.startswith(f"{PREFIX}-")]
    except OSError:
        return []
