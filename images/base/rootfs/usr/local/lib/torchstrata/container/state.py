"""What a running container remembers: a private directory on ``/tmp``, which a read-only container has as a tmpfs."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Final

STATE: Final = Path("/tmp/.torchstrata")  # noqa: S108  # checked by prepare(); the name service and sshd need a fixed path
"""Owned by the user that the container runs as; 0711, so that the probe of a health check may enter as anybody."""

SERVICES: Final = "services.json"
"""What was asked for and where it answers; no secrets."""

JUPYTER: Final = "jupyter.json"
"""Token or password hash of Jupyter, for its configuration; 0600."""

INIT: Final = "init.pid"
"""The process whose environment is the container's."""


def prepare(state: Path = STATE) -> bool:
    """Make the directory empty and ours; return whether that worked.

    What is left of an earlier run of the same container (``docker restart``) goes, and a link that someone put there is
    never followed.
    """
    try:
        if state.is_symlink() or (state.exists() and not stat.S_ISDIR(state.lstat().st_mode)):
            state.unlink()
        if state.exists():
            shutil.rmtree(state)
        state.mkdir(mode=0o711)
        state.chmod(0o711)
    except OSError:
        return False
    return state.lstat().st_uid == os.getuid()


def write(name: str, content: str, *, mode: int = 0o600, state: Path | None = None) -> Path:
    """Write a file of the directory, never readable by more than ``mode`` on the way; return its path."""
    path = (state or STATE) / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    return path


def read(name: str, state: Path = STATE) -> dict[str, Any] | None:
    """Return a JSON document of the directory, or None where there is none."""
    try:
        document = json.loads((state / name).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
