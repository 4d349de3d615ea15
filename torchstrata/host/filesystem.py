"""Files on disk: written whole, removed, weighed; what file systems refuse is said so that a person can mend it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

from filelock import FileLock

from torchstrata.errors import DiskFullError, StoreError

CACHE_VARIABLE: Final = "TORCHSTRATA_CACHE"
OTHER_STORE: Final = f"set {CACHE_VARIABLE} to another directory"
OTHER_DIRECTORY: Final = "name another directory"
OTHER_TEMPORARY: Final = "set TMPDIR to another directory"

FULL: Final = {errno.ENOSPC: "no space, or no inode, is left", errno.EDQUOT: "your quota is used up"}

CURES: Final = {
    errno.EACCES: "let its owner give you the right to write there",
    errno.EPERM: "let its owner give you the right to write there",
    errno.EROFS: "have its file system mounted for writing",
    errno.ENOTDIR: "remove the file that is where a directory must be",
    errno.ENOENT: "see that nobody removes it meanwhile",
    errno.EISDIR: "remove the directory that is where a file must be",
    errno.EEXIST: "remove the file or the dangling link that is in the way",
    errno.ELOOP: "remove the link that leads to itself",
    errno.ENAMETOOLONG: "take a shorter path",
}
"""What to do about an error, first of all."""


PARTIAL: Final = ".*.partial"
"""Names of files that :func:`whole` has not finished."""

UNLOCKABLE: Final = frozenset({errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""How file systems say that their directories cannot be locked, such as NFS."""


@contextlib.contextmanager
def disk(path: Path, other: str = OTHER_STORE) -> Iterator[None]:
    """Turn errors of the operating system about ``path`` into errors of ours.

    :param other: what else to do: use another place.
    :raises DiskFullError: it is full.
    :raises StoreError: anything else.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number in FULL:
            raise DiskFullError(f"{FULL[number]} where {path} is", fix=f"free some (inv cache --prune), or {other}; complete parts are kept") from error
        cure = CURES.get(number, "look into the log of the system")
        raise StoreError(f"{error.filename2 or error.filename or path}: {error.strerror or error}", fix=f"{cure}, or {other}") from error


@contextlib.contextmanager
def whole(path: Path, mode: int | None = 0o644) -> Iterator[IO[bytes]]:
    """Yield a file that gets the name ``path`` once it is complete and on disk; if the block fails, nothing stays.

    One writer at a time. What a killed run has left is written over.

    :param mode: ``None`` leaves it to the umask.
    :raises OSError: it cannot be written.
    """
    partial = path.with_name(PARTIAL.replace("*", path.name))
    partial.unlink(missing_ok=True)  # it may lead elsewhere
    try:
        with partial.open("x+b") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)  # before there is anything to read
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def turn(folder: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Let one process at a time write below a folder.

    The folder itself is locked (flock(2)), so that nothing else lies in it, and as long as its process lives. Where that
    cannot be, everybody may write at any time.

    :param on_wait: called if another process must be waited for.
    :raises OSError: the folder may not be made or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _acquire(handle, on_wait)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, on_wait: Callable[[], object]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise


def refuse_links(root: Path, path: Path) -> None:
    """Refuse a path that leaves ``root``: each directory between them is one, and no link, which may lead elsewhere.

    :param root: where somebody has told us to write or to read; it may be a link itself.
    :raises StoreError: one is a link.
    """
    for directory in path.parents:
        if directory == root:
            return
        if directory.is_symlink():
            raise StoreError(f"{directory} is a link, which may lead out of {root}", fix=f"put a directory in its place, or {OTHER_DIRECTORY}")


def lock(path: Path) -> FileLock:
    """Return a lock that no other user can hold; one that an older version left loses others' rights.

    :raises OSError: the path cannot be.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.chmod(0o600)
    return FileLock(path, mode=0o600)


def content(path: Path) -> bytes | None:
    """Return the content of a regular file; ``None`` if there is none.

    Something else that has no content, such as a FIFO, would keep the reader waiting, and counts as none.

    :raises StoreError: it cannot be read.
    """
    with disk(path):
        try:
            return path.read_bytes() if path.is_file() else None
        except FileNotFoundError:
            return None


def remove(path: Path) -> None:
    """Remove what is at a path, whatever that is."""
    with disk(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write bytes to an unbuffered file; a disk that becomes full takes some of them, and says nothing until the next try."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def rename(path: Path, final: Path) -> None:
    """Give a finished file its name, and make the name last."""
    with disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        path.replace(final)
        directory = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return size_of_files(_files(directory))


def size_of_files(paths: Iterable[Path]) -> int:
    """Return the bytes of files; one that is gone has none."""
    return sum(status.st_size for _, status in _looked_at(paths))


def older(directory: Path, age: timedelta | None) -> list[Path]:
    """Return the files below a directory that nobody has written to for so long; all without an age."""
    latest = time.time() - (age.total_seconds() if age else 0)
    return [path for path, status in _looked_at(_files(directory)) if status.st_mtime <= latest]


def _files(directory: Path) -> Iterator[Path]:
    """Walk files below a directory; a directory that goes away meanwhile is skipped."""
    for place, _, names in os.walk(directory):
        yield from (Path(place, name) for name in names)


def _looked_at(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield regular files with their state; one that goes away meanwhile is skipped."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path, status
