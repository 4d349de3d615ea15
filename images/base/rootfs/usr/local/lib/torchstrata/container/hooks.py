"""Programs that people add to the start of a container: ``start.d`` of the image and of the user."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from container import notices, settings

SYSTEM: Final = Path("/etc/torchstrata/start.d")
OF_USER: Final = Path(".config/torchstrata/start.d")
PATIENCE: Final = 30.0
"""Seconds until a hook is ended, unless ``TORCHSTRATA_HOOK_TIMEOUT`` says otherwise."""


def run(environment: Mapping[str, str], system: Path = SYSTEM) -> None:
    """Run all hooks in the order of their names, the image's before the user's; say which fail, and go on."""
    patience = settings.hook_timeout("TORCHSTRATA_HOOK_TIMEOUT", environment.get("TORCHSTRATA_HOOK_TIMEOUT", "")) or PATIENCE
    for directory in (system, Path(environment["HOME"]) / OF_USER):
        for hook in _listed(directory):
            trouble = _run(hook, environment, patience)
            if trouble:
                notices.warn(f"{hook} {trouble}; the start goes on")


def _listed(directory: Path) -> list[Path]:
    """Return the hooks of a directory; none where there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        return []


def _run(hook: Path, environment: Mapping[str, str], patience: float) -> str:
    """Run one hook with its output on standard error; return what went wrong, if anything did."""
    if not os.access(hook, os.X_OK):
        return "is not executable (chmod +x) and was left out"
    try:
        process = subprocess.Popen([hook], env=dict(environment), stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    except OSError as error:
        return f"cannot be started: {error.strerror} (is its first line #!/bin/sh or the like?)"
    try:
        status = process.wait(patience)
    except subprocess.TimeoutExpired:
        return f"did not end in {patience:g} s and was stopped"
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return f"failed with status {status}" if status else ""
