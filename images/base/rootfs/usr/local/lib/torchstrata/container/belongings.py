"""What an engine makes as root for people: mount points beside the workspace, their parents, empty volumes, a working directory.

A start as root hands them to the user. Where nobody is root, the image has the usual ones already, and the doctor names the rest; as root it
hands them over, too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from container import mounts, users
from container.problems import Problem
from container.workspace import WORKSPACE

SYSTEM: Final = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var")  # noqa: S108  # as the system names it
"""Directories in which root looks for programs, settings and its own files: nothing below them is ever handed over."""

CUDA: Final = "/opt/cuda"
"""How the names of directories begin whose libraries every program loads."""

SHARED: Final = ("/", "/home", "/media", "/mnt", "/opt", "/srv")
"""Directories of the image that hold mount points and are nobody's mount."""

OF_ROOT: Final = "/root"
LOST: Final = "lost+found"
"""What a file system that has just been made holds."""

CURE: Final = "docker exec -u 0 CONTAINER /usr/local/bin/torchstrata-doctor --hand-over"
"""It names no directory: what one is called may have become a link by the time that root gets there."""

PUBLIC: Final = stat.S_IROTH | stat.S_IXOTH
"""What an engine lets everybody do with the parents that it makes."""


def hand_over(uid: int, gid: int, mounted: tuple[mounts.Mount, ...] | None = None) -> list[str]:
    """Give the user what an engine has made as root, and return it: mounts that hold nothing; on the container's own layer parents that hold
    mounts alone, and a working directory (``docker run -w``) that holds nothing.

    What has content of its own, cannot be changed (read-only, NFS) or may be written by everybody stays as it is.
    """

    def give(descriptor: int) -> None:
        os.fchown(descriptor, uid, gid)

    chain = _chain(mounted if mounted is not None else mounts.read())
    return [path for path in chain if _is_given(path, chain, give)] + [path for path in _working() if _is_given(path, {}, give)]


def problems(uid: int, gid: int, mounted: tuple[mounts.Mount, ...] | None = None, *, home_only: bool = False) -> list[Problem]:
    """Return what lies in root's home, what is mounted and cannot be written by this user, and what an engine has made and left closed to it.

    :param home_only: leave out what is not below home: it may be there for reading.
    """
    table = mounted if mounted is not None else mounts.read()
    chain = _chain(table)
    closed = [path for path in _wanted(table, home_only=home_only) if _is_closed(path)]
    working = [path for path in _working() if path not in closed and _is_closed(path) and _is_given(path, {})]
    to_give = [path for path in closed if _is_given(path, chain)] + working
    to_chown = [path for path in closed if path not in to_give]
    chown = f"docker run --rm -u 0 --entrypoint /bin/chown -v SOURCE:/x IMAGE {uid}:{gid} /x, SOURCE being what is mounted there"
    cures = [(paths, fix) for paths, fix in ((to_give, CURE), (to_chown, chown)) if paths]
    return _unused(table) + [Problem(f"{' '.join(paths)} cannot be written by {uid}:{gid}", fix) for paths, fix in cures]


def _unused(mounted: tuple[mounts.Mount, ...]) -> list[Problem]:
    """Return what was mounted for a home that only root has."""
    paths = [mount.path for mount in mounted if mount.path.startswith(f"{OF_ROOT}/")]
    return [Problem(f"{path} is mounted in root's home, which nobody uses here", f"mount it at {users.HOME}{path.removeprefix(OF_ROOT)}") for path in paths]


def _is_closed(path: str) -> bool:
    """Return whether this user cannot write to a directory, though it is not read-only."""
    return os.path.isdir(path) and not os.access(path, os.W_OK | os.X_OK) and not _read_only(path)  # noqa: PTH112  # Path's raises where only root may look


def _working() -> list[str]:
    """Return the working directory, which an engine makes where it lacks, unless it is the system's, shared, or gone."""
    try:
        path = os.getcwd()  # noqa: PTH109  # Path's is slower
    except OSError:
        return []
    return [path] if path.startswith("/") and path not in SHARED and not _is_of_system(path) else []


def _wanted(mounted: tuple[mounts.Mount, ...], *, home_only: bool) -> list[str]:
    """Return what the user may expect to be able to write: mounts, and everything on the way from home to one."""
    home, chain = f"{users.HOME}/", _chain(mounted)
    own = (str(users.HOME), str(WORKSPACE))
    return [path for path in chain if path not in own and (path.startswith(home) or (not home_only and mounts.at(path, mounted)))]


def _chain(mounted: tuple[mounts.Mount, ...]) -> dict[str, None]:
    """Return mount points that are not the system's and their parents, as an engine may have made them; outer ones first."""
    paths: set[str] = set()
    for point in (PurePosixPath(mount.path) for mount in mounted if not _is_of_system(mount.path)):
        paths |= set(map(str, (point, *point.parents)))
    return dict.fromkeys(sorted(paths - set(SHARED)))


def _is_of_system(path: str) -> bool:
    return path == "/" or path.startswith(CUDA) or any(path == top or path.startswith(f"{top}/") for top in SYSTEM)


def _is_given(path: str, chain: dict[str, None], give: Callable[[int], None] = lambda _: None) -> bool:
    """Return whether a directory is to be handed over, and let ``give`` do it; not what is gone, is no directory, or refuses it."""
    try:
        descriptor = _opened(path)
    except OSError:
        return False
    try:
        if is_given := _is_of_engine(descriptor, path, chain):
            give(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return is_given


def _is_of_engine(descriptor: int, path: str, chain: dict[str, None]) -> bool:
    """Return whether nobody has put anything into a directory of root's: an empty mount, or a parent that an engine has made.

    A mount hides what is below it. So one inside a mount is content, as is what only root may look at: users choose where a volume's directories
    lie, and what links lead a mount to.
    """
    status = os.fstat(descriptor)
    if status.st_uid != 0 or status.st_mode & stat.S_IWOTH:
        return False
    if _mount(descriptor) == _mount_of("/"):
        inner = {PurePosixPath(point).name for point in chain if str(PurePosixPath(point).parent) == path}
        return status.st_mode & PUBLIC == PUBLIC and _holds_only(descriptor, inner)
    return _mount(descriptor) != _mount_of("..", descriptor) and _holds_only(descriptor, {LOST})


def _holds_only(descriptor: int, names: set[str]) -> bool:
    with os.scandir(descriptor) as entries:
        return all(entry.name in names for entry in entries)


def _mount_of(path: str, directory: int | None = None) -> tuple[str, int]:
    """Return the mount that ``path`` lies on, as seen from an open directory if one is given."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        return _mount(descriptor)
    finally:
        os.close(descriptor)


def _mount(descriptor: int) -> tuple[str, int]:
    """Return the mount that an open directory lies on: its number (proc_pid_fdinfo(5)), which not every sandbox tells, and its device."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return "".join(line for line in lines if line.startswith("mnt_id:")), os.fstat(descriptor).st_dev


def _opened(path: str) -> int:
    """Open a directory through no link: whoever is in the container may have put one in the way.

    :raises OSError: it is no directory, or a part of its path is a link.
    """
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for name in PurePosixPath(path).parts[1:]:
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
