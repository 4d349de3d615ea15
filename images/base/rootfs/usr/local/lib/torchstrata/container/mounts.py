"""What is mounted where (``/proc/self/mountinfo``, see proc(5))."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

MOUNTINFO: Final = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """One mount: where it is, of which file system, whether it can only be read."""

    path: str
    kind: str
    read_only: bool


def read(source: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Return all mounts of this container, in the order in which they were made."""
    try:
        lines = source.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ()
    return tuple(_parse(line) for line in lines if " - " in line)


def at(path: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount at ``path`` itself: the last one made, which hides the others."""
    return next((mount for mount in reversed(mounts) if mount.path == path), None)


def below(path: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that holds ``path``."""
    holding = [mount for mount in mounts if path == mount.path or path.startswith(mount.path.rstrip("/") + "/")]
    return max(holding, key=lambda mount: len(mount.path), default=None)


def is_volume(path: str, mounts: tuple[Mount, ...]) -> bool:
    """Return whether ``path`` lies on a mount, which ``docker commit`` leaves out, and not on the container's own layer."""
    holder = below(path, mounts)
    return holder is not None and holder.path != "/"


def _parse(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    fields, (kind, *_) = left.split(), right.split()
    return Mount(path=_unescape(fields[4]), kind=kind, read_only="ro" in fields[5].split(","))


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes, as of spaces."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
