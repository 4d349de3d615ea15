"""Who the container runs as: a name for every uid, and a home that can be written."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from container import mounts, notices, state

NAME: Final = "dev"
DEV: Final = (1000, 0)
HOME: Final = Path("/home/dev")
SPARE_HOME: Final = Path("/tmp/home")  # noqa: S108  # of this container alone; made 0700
SKELETON: Final = Path("/etc/skel")

SHELL: Final = "/bin/bash"
SESSION: Final = "/usr/local/bin/torchstrata-session"
"""The shell that sshd starts: it fetches the container's environment, then becomes the real shell."""

LOWEST_NAMED: Final = 500
"""libnss-extrausers knows no smaller uid or gid (its MINUID, MINGID)."""

USERS: Final = 100
"""The one smaller gid that old versions of it (Debian 12) accept in a passwd entry; what a process may do, its real gid says."""


class Identity(NamedTuple):
    """User and group of this process, the user's name, and a home that it can write to."""

    uid: int
    gid: int
    name: str
    home: Path


def identify(environment: Mapping[str, str]) -> Identity:
    """Name the running user, writing passwd and group entries to the state directory, and choose and fill its home."""
    uid, gid = os.getuid(), os.getgid()
    home = choose_home(environment.get("HOME", ""), uid)
    name = _register(uid, gid, home)
    _seed(home)
    return Identity(uid, gid, name, home)


def environment(identity: Identity, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say who the user is."""
    return {"HOME": str(identity.home), "USER": identity.name, "LOGNAME": identity.name, "SHELL": given.get("SHELL", SHELL)}


def choose_home(asked: str, uid: int, usual: Path = HOME, spare: Path = SPARE_HOME) -> Path:
    """Return the first home that can be written: the one asked for, the image's, one on ``/tmp``."""
    usable = [Path(asked)] if asked not in {"", "/", "/root"} or (asked == "/root" and uid == 0) else []
    for home in [*usable, usual]:
        if home.is_dir() and os.access(home, os.W_OK | os.X_OK):
            return home
    if mounts.at(str(usual), mounts.read()):
        notices.warn(f"{usual} is mounted but user {uid} cannot write to it: HOME is {spare}, lost with the container", f"chown -R {uid} its source")
    spare.mkdir(mode=0o700, exist_ok=True)
    return spare


def passwd_line(identity: Identity, shell: str) -> str:
    """Return the entry of passwd(5) for a user."""
    return f"{identity.name}:x:{identity.uid}:{identity.gid}:{identity.name}:{identity.home}:{shell}\n"


def _register(uid: int, gid: int, home: Path) -> str:
    """Write what libnss-extrausers reads (before /etc/passwd, by nsswitch.conf) and return the user's name."""
    if uid < LOWEST_NAMED:
        return _system_name(uid)
    shell = SESSION if Path("/usr/sbin/sshd").exists() else SHELL
    for shown in (gid, USERS):
        state.write("passwd", passwd_line(Identity(uid, shown, NAME, home), shell), mode=0o644)
        if _shell_of(uid) == shell:
            break
    if gid >= LOWEST_NAMED and not _group_exists(gid):
        state.write("group", f"{NAME}:x:{gid}:\n", mode=0o644)
    return NAME


def _shell_of(uid: int) -> str:
    """Return the shell of a user as every program finds it."""
    try:
        return pwd.getpwuid(uid).pw_shell
    except KeyError:
        return ""


def _system_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        notices.warn(f"user id {uid} cannot be given a name, so ssh and git refuse to work", f"use --user 1000:0 or an id from {LOWEST_NAMED} on")
        return NAME


def _group_exists(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _seed(home: Path, skeleton: Path = SKELETON) -> None:
    """Copy the few start files that a mounted home lacks; never touch one that is there."""
    try:
        for source in sorted(skeleton.iterdir()):
            target = home / source.name
            if not target.exists() and not target.is_symlink():
                shutil.copyfile(source, target)
    except OSError as error:
        notices.warn(f"{home} cannot be given its start files: {error.strerror}")
