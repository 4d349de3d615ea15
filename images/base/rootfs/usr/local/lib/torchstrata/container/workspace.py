"""``/workspace``: the working directory and the one place to mount."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from container import mounts, notices

WORKSPACE: Final = Path("/workspace")
DIRECTORIES: Final = ("checkpoints", "logs", "plots", "data")


def prepare(workspace: Path = WORKSPACE) -> bool:
    """Make the usual directories and say what would lose work; return whether they are there."""
    mount = mounts.at(str(workspace), mounts.read())
    if mount is None:
        notices.inform(f"nothing is mounted at {workspace}: work will be lost with the container (-v ./workspace:{workspace})")
    if not os.access(workspace, os.W_OK | os.X_OK):
        notices.warn(*complaint(workspace, mount, os.getuid(), os.getgid()))
        return False
    return _make(workspace)


def complaint(workspace: Path, mount: mounts.Mount | None, uid: int, gid: int) -> tuple[str, str]:
    """Return what is wrong with a workspace that cannot be written, and the command that cures it."""
    if mount is None:
        return f"{workspace} cannot be written by {uid}:{gid}", f"mount a directory there (-v ./workspace:{workspace}) or a tmpfs (--tmpfs {workspace})"
    if mount.read_only:
        return f"{workspace} is mounted read-only: notebooks and checkpoints cannot be saved", "mount it without :ro"
    return f"{workspace} cannot be written by {uid}:{gid}", f"on the host: sudo chown -R {uid} DIRECTORY, or start with --user root to run as its owner"


def _make(workspace: Path) -> bool:
    """Make the usual directories; return whether that went well, and say what did not."""
    try:
        for name in DIRECTORIES:
            (workspace / name).mkdir(exist_ok=True)
    except OSError as error:
        notices.warn(f"{error.filename} cannot be made: {error.strerror}", f"look at what is in {workspace}")
        return False
    return True
