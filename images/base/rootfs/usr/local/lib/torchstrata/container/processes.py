"""The processes of a container, from ``/proc`` (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


def below(ancestor: int) -> list[int]:
    """Return the living processes under ``ancestor`` (not it, nor this process). A host's processes are never among them,
    even where the container shares the host's process namespace.
    """
    parents = dict(filter(None, (_parent(entry) for entry in PROC.iterdir() if entry.name.isdigit())))
    return [process for process in parents if process != os.getpid() and _descends(process, ancestor, parents)]


def _descends(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == ancestor:
            return True
    return False


def _parent(entry: Path) -> tuple[int, int] | None:
    """Return a process and its parent; None for one that has ended."""
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, parent, *_ = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else (int(entry.name), int(parent))
