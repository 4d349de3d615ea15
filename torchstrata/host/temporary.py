"""Temporary directories that end with their run: the next run removes what a killed one has left.

All lie in ``torchstrata-UID/`` of the system's temporary directory, each beside a lock that its process holds; that
is how the next run tells what nobody needs any more. A killed mmdebstrap may leave mounts and files of other users
there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from torchstrata import process
from torchstrata.errors import CommandError, DiskFullError, StoreError
from torchstrata.host import leavings, superuser
from torchstrata.host.filesystem import OTHER_TEMPORARY, disk, lock

MOUNTS: Final = Path("/proc/self/mountinfo")

ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
"""A byte that mountinfo writes in octal (proc_pid_mountinfo(5)); all other bytes stand for themselves."""

REMOVE: Final = ("rm", "--recursive", "--force", "--one-file-system", "--")


def own() -> Path:
    """Return this user's place in the temporary directory; others may pass through, as users of a namespace must.

    :raises DiskFullError: there is no space for it.
    :raises StoreError: somebody else has made it, or it cannot be made.
    """
    user = os.geteuid()
    try:
        place = Path(tempfile.gettempdir()) / f"torchstrata-{user}"
    except FileNotFoundError as error:  # tempfile has tried to write to each
        raise DiskFullError(
            "no directory for temporary files takes one: /tmp, /var/tmp and others are full or read-only", fix=f"free some space, or {OTHER_TEMPORARY}"
        ) from error
    with disk(place, OTHER_TEMPORARY):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
            raise StoreError(f"{place} is not a directory of yours", fix=f"have it removed, or {OTHER_TEMPORARY}")
        place.chmod(0o711)
    return place


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Yield a new directory, and remove it afterwards; the first call of a process removes what others have left.

    :raises DiskFullError: there is no space, for it or for what the block writes into it.
    :raises StoreError: there is no place for it.
    """
    runs = own() / "runs"
    with disk(runs, OTHER_TEMPORARY):
        _sweep(runs)
        with _claimed(runs) as path:
            try:
                yield path
            finally:
                remove(path)


@contextlib.contextmanager
def _claimed(runs: Path) -> Iterator[Path]:
    path = runs / uuid.uuid4().hex
    held = lock(path.with_suffix(".lock"))
    with _claiming(runs):  # else somebody sweeps what has no holder yet
        held.acquire(timeout=0)
        passable(path)
    try:
        yield path
    finally:
        if not path.exists():
            path.with_suffix(".lock").unlink(missing_ok=True)
        held.release()


@functools.cache
def _sweep(runs: Path) -> None:
    """Remove the directories of runs that ended without doing so; what cannot be removed stays for the next one."""
    passable(runs)
    with _claiming(runs):
        for path in sorted(runs.glob("*.lock")):
            with contextlib.suppress(Timeout), lock(path).acquire(timeout=0):
                _end_users(path.with_suffix(""))
                if remove(path.with_suffix("")):
                    path.unlink(missing_ok=True)


def _end_users(path: Path) -> None:
    """End the programs of a killed run that still use its directory: mmdebstrap runs on for minutes without its reader.

    They are known by their TMPDIR, and by where their root is; those of other users are out of reach, and end by
    themselves.
    """
    for process_directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            temporary = b"TMPDIR=" + os.fsencode(path)
            inside = (process_directory / "root").readlink().is_relative_to(path)
            if inside or any(word.startswith(temporary) for word in (process_directory / "environ").read_bytes().split(b"\0")):
                os.kill(int(process_directory.name), signal.SIGKILL)


def passable(path: Path) -> None:
    """Make a directory, whatever the umask is, that users of this user's namespaces may pass through."""
    path.mkdir(exist_ok=True)
    path.chmod(0o711)


def _claiming(runs: Path) -> FileLock:
    return lock(runs / "claim")


def remove(path: Path) -> bool:
    """Remove a run's directory with its mounts, files of other users, and what it lists; return whether all is gone."""
    if not leavings.removed(path):
        return False
    for way in (_as_myself, _in_namespaces, _as_root):
        if not os.path.lexists(path):
            break
        with contextlib.suppress(CommandError):
            way(path)
    return not os.path.lexists(path)


def _as_myself(path: Path) -> None:
    if not mounts(path):  # never through a mount: /dev may be behind it
        shutil.rmtree(path, ignore_errors=True)


def _in_namespaces(path: Path) -> None:
    """Remove files that belong to users of this user's namespaces, as mmdebstrap makes them."""
    if os.geteuid() and shutil.which("mmdebstrap") and not mounts(path):
        process.run("mmdebstrap", "--unshare-helper", *REMOVE, *map(str, path.iterdir()))
        shutil.rmtree(path, ignore_errors=True)


def _as_root(path: Path) -> None:
    if superuser.is_possible():
        if mounted := mounts(path):
            superuser.run("umount", "--lazy", "--", *mounted)
        superuser.run(*REMOVE, path)


def mounts(path: Path) -> tuple[str, ...]:
    """Return what is mounted below a directory, the last first; nothing where the system does not say."""
    lines = MOUNTS.read_bytes().split(b"\n")[:-1] if MOUNTS.exists() else ()
    points = [os.fsdecode(ESCAPE.sub(_unescaped, line.split(b" ")[4])) for line in lines]
    return tuple(point for point in reversed(points) if Path(point).is_relative_to(path.resolve()))


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 8)])
