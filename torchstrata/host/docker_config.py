"""Docker's configuration file, checked before its libraries read it: they wait for a pipe, and take any JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from torchstrata import decoding, files
from torchstrata.errors import VariableError
from torchstrata.host import home, variables
from torchstrata.text import printable

VARIABLE: Final = "DOCKER_CONFIG"
LIMIT: Final = 1_000_000
"""Bytes of the file."""


class _DockerConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of it; other keys may be there."""

    auths: dict[str, dict[str, Any]] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None
    current_context: str | None = None


def check() -> None:
    """Refuse a file that Docker's libraries could not read.

    :raises VariableError: it is no file, too long, or not of the shape that it must have.
    """
    path = _path()
    if path is None or not os.path.lexists(path):
        return
    try:
        decoding.decode(files.read(path, LIMIT), _DockerConfig)
    except (files.UnreadableError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = error.what if isinstance(error, files.UnreadableError) else f"{path} is not as Docker writes it: {error}"
        raise VariableError(f"Docker's configuration: {printable(why)}", fix=f"correct it, or let {VARIABLE} name another directory") from error


def _path() -> Path | None:
    named, own = variables.text(VARIABLE), home.directory()
    if named:
        return Path(named) / "config.json"
    return own / ".docker" / "config.json" if own else None
