"""Who wants a container: the user that it runs as, the directory that it mounts, and the keys that SSH lets in."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torchstrata import files
from torchstrata.errors import ContainerError, WorkspaceError
from torchstrata.host import home
from torchstrata.image.runtime import DEV
from torchstrata.text import printable

DEV_UID: Final = int(DEV.split(":")[0])

KEYS: Final = ("id_ed25519.pub", "id_ed25519_sk.pub", "id_ecdsa.pub", "id_ecdsa_sk.pub", "id_rsa.pub")
"""Keys that ssh offers by itself (ssh(1)), the best first."""

KEY_LIMIT: Final = 20_000
"""Bytes that the file of a public key may have."""

OTHERS_RIGHTS: Final = (stat.S_IWOTH | stat.S_IXOTH, stat.S_IWGRP | stat.S_IXGRP)
"""Rights that let others write to a directory, and those that let its group do so."""

OTHER_WORKSPACE: Final = "give another directory: --workspace DIR"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUser:
    """A user of this machine.

    :param rootless: the engine's root is this user.
    """

    uid: int
    rootless: bool = False

    def user(self, owner: int) -> str:
        """Return the user that a container runs as, ``uid:gid``.

        That is the caller; for root it is the owner of the workspace, and where root owns it the image's own user.

        :param owner: of the workspace.
        """
        if self.rootless:
            return "0:0"
        return f"{self.uid or owner or DEV_UID}:0"

    @contextlib.contextmanager
    def workspace(self, asked: Path) -> Iterator[Path]:
        """Yield the directory to mount, and make it where it does not exist.

        Where the block fails, it goes again if it was made and holds no file: a container makes directories in it at once.

        :raises WorkspaceError: it is no directory, it cannot be made, or the container's user could not write to it.
        """
        path = place(asked).absolute()
        made = self._make(path)
        try:
            self._check(path)
            yield path.resolve()
        except BaseException:
            _remove_empty([*_below(path), *made] if path in made else made)
            raise

    def _make(self, path: Path) -> list[Path]:
        """Make a directory with its parents; return those that were made, the last one first."""
        lacking = [directory for directory in (path, *path.parents) if not os.path.lexists(directory)]
        try:
            path.mkdir(parents=True, exist_ok=True)
            if self.uid == 0 and not self.rootless and path in lacking:
                os.chown(path, DEV_UID, 0)
        except OSError as error:
            _remove_empty(lacking)
            why = "it is no directory, or a link to none" if isinstance(error, FileExistsError) else error.strerror
            raise WorkspaceError(f"{path} cannot be a workspace: {why}", fix=OTHER_WORKSPACE) from error
        return lacking

    def _check(self, path: Path) -> None:
        status = path.stat()
        uid = int(self.user(status.st_uid).split(":")[0])
        if uid == self.uid or self.rootless:
            writable = os.access(path, os.W_OK | os.X_OK)
        else:
            rights = OTHERS_RIGHTS[status.st_gid == 0]
            writable = status.st_uid == uid or status.st_mode & rights == rights
        if not writable:
            fix = f"sudo chown {uid} {shlex.quote(str(path))}; or {OTHER_WORKSPACE}"
            raise WorkspaceError(f"{path} cannot be written by user {uid}", fix=fix)


def place(asked: Path) -> Path:
    """Return the workspace that a person means, with ``~`` for a home; a relative one stays so.

    :raises WorkspaceError: there is no such home, or no file nor terminal could show its name.
    """
    path = home.expanded(asked, WorkspaceError) if str(asked).startswith("~") else asked
    if not str(path).isprintable():
        fix = "give one without control characters: --workspace DIR"
        raise WorkspaceError(f"{printable(str(path))!r} is no name for a workspace", fix=fix)
    return path


def _below(path: Path) -> Iterator[Path]:
    """Yield the directories in one, those in them first; no link is followed."""
    for directory, names, _ in os.walk(path, topdown=False):
        yield from (Path(directory, name) for name in names)


def _remove_empty(directories: Iterable[Path]) -> None:
    """Remove directories, but those into which somebody has put something."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def public_keys(asked: Path | None) -> tuple[str, ...]:
    """Return the caller's public keys.

    :param asked: file of one key; without it all that ssh offers by itself count.
    :raises ContainerError: the file that was asked for cannot be read, or is no public key.
    """
    if asked is not None:
        return (_key(home.expanded(asked, ContainerError)),)
    own = home.directory()
    paths = [own / ".ssh" / name for name in KEYS] if own else []
    return tuple(filter(None, map(_usable, paths)))


def identity(asked: Path | None) -> str:
    """Return the file by which ssh finds the private key of a public one that was asked for; empty where it looks by itself.

    That is the private key beside it; else the public one, whose private key an agent has (ssh(1), ``-i``).

    :raises ContainerError: this user has no home, and ``~`` was written.
    """
    if asked is None:
        return ""
    path = home.expanded(asked, ContainerError).absolute()
    private = path.with_suffix("") if path.suffix == ".pub" else path
    return str(private if private.is_file() else path)


def _usable(path: Path) -> str | None:
    """Return the key of a file; ``None`` where it holds none, which ssh passes over as well."""
    try:
        return _key(path) if path.exists() else None
    except ContainerError:
        return None


def _key(path: Path) -> str:
    fix = "give the file of a public key: --ssh-key ~/.ssh/id_ed25519.pub"
    try:
        key = files.text(path, KEY_LIMIT).split("\n")[0].strip()
    except files.UnreadableError as error:
        raise ContainerError(f"no key for SSH: {error.what}", fix=fix) from error
    if "PRIVATE KEY" in key or not key.isprintable() or len(key.split()) < 2:  # noqa: PLR2004  # kind and key
        raise ContainerError(f"no key for SSH: {printable(str(path))} holds no public key", fix=fix)
    return key
