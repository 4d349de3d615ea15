"""Who the container runs as, and a home that can be written. The name comes from ``nss/torchstrata.c``, for any uid."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from container import mounts, notices

NAME: Final = "dev"
DEV: Final = (1000, 0)
HOME: Final = Path("/home/dev")
SPARE_HOME: Final = Path("/tmp/home")  # noqa: S108  # made 0700; used only where it is the user's own
SKELETON: Final = Path("/etc/skel")

SHELL: Final = "/bin/bash"
SESSION: Final = "/usr/local/bin/torchstrata-session"
"""The shell that sshd starts: it fetches the container's environment, then becomes the real shell."""


class Identity(NamedTuple):
    """User and group of this process, the user's name, and a home that it can write to."""

    uid: int
    gid: int
    name: str
    home: Path


def identify(environment: Mapping[str, str]) -> Identity:
    """Name the running user, and choose and fill its home."""
    uid, gid = os.getuid(), os.getgid()
    home = choose_home(environment.get("HOME", ""), uid)
    _seed(home)
    return Identity(uid, gid, _name(uid), home)


def environment(identity: Identity, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say who the user is."""
    return {"HOME": str(identity.home), "USER": identity.name, "LOGNAME": identity.name, "SHELL": given.get("SHELL") or SHELL}


def choose_home(asked: str, uid: int, usual: Path = HOME, spare: Path = SPARE_HOME) -> Path:
    """Return the first home that can be written: the one asked for, the image's, one on ``/tmp``."""
    own = [Path(asked)] if asked not in {"", "/", "/root"} or (asked == "/root" and uid == 0) else []
    private = None
    for home in [*own, usual]:
        if os.access(home, os.R_OK | os.W_OK | os.X_OK) and home.is_dir() and not (private := _private_of_another(home, uid)):
            return home
    if private:
        what = f"{private} is private to another user than {uid}: HOME is {spare}, lost with the container"
        notices.warn(what, f"start as its owner: --user {private.stat().st_uid}:0")
    elif mounts.at(str(usual), mounts.read()):
        notices.warn(f"{usual} is mounted but user {uid} cannot write to it: HOME is {spare}, lost with the container", f"chown -R {uid} its source")
    try:
        return _spare(spare)
    except OSError as error:
        notices.warn(f"{spare.parent} cannot be written: user {uid} has no home ({error.strerror})", f"add --tmpfs {spare.parent}:exec")
        return usual


def _private_of_another(home: Path, uid: int) -> Path | None:
    """Return a directory that another user has made for itself in a home, as in an image made by ``docker commit``: Jupyter ends on it.

    Mounts and what is root's are meant to be as they are.
    """
    mounted = mounts.read()
    hidden = (path for path in sorted(home.iterdir()) if path.name.startswith(".") and not path.is_symlink() and path.is_dir())
    closed = (path for path in hidden if not mounts.at(str(path), mounted) and not os.access(path, os.R_OK | os.W_OK | os.X_OK))
    return next((path for path in closed if path.stat().st_uid not in {0, uid}), None)


def _spare(spare: Path) -> Path:
    """Return ``spare``, made for this user alone, or one beside it where another user may write to what is there: ``/tmp`` may be shared."""
    try:
        spare.mkdir(mode=0o700)
    except FileExistsError:
        status = spare.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            import tempfile  # noqa: PLC0415  # rarely needed, and slow to load

            return Path(tempfile.mkdtemp(prefix=f"{spare.name}-", dir=spare.parent))
    return spare


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        notices.warn(f"user id {uid} has no name, so ssh and git refuse to work", "let /etc/nsswitch.conf say: passwd: torchstrata files")
        return NAME


def _seed(home: Path, skeleton: Path = SKELETON) -> None:
    """Copy the few start files that a mounted home lacks; never touch one that is there."""
    try:
        for source in sorted(skeleton.iterdir()):
            target = home / source.name
            if not target.exists() and not target.is_symlink():
                shutil.copyfile(source, target)
    except OSError as error:
        notices.warn(f"{home} cannot be given its start files: {error.strerror}")
