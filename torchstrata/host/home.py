"""The user who runs the program, and their directories. A user without a passwd entry and without HOME has none."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from torchstrata.errors import TorchstrataError
from torchstrata.text import printable


def login() -> str:
    """Return the user's name; a user without an entry in passwd has a number."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.geteuid())


def directory() -> Path | None:
    """Return the home directory."""
    return _known(Path.home)


def config(name: str) -> Path | None:
    """Return where a program of that name has the user's configuration."""
    return _known(lambda: platformdirs.user_config_path(name, appauthor=False))


def cache(name: str) -> Path | None:
    """Return where a program of that name keeps what it can make again."""
    return _known(lambda: platformdirs.user_cache_path(name, appauthor=False))


def state(name: str) -> Path | None:
    """Return where a program of that name keeps what it knows and cannot make again."""
    return _known(lambda: platformdirs.user_state_path(name, appauthor=False))


def expanded(path: str | Path, error: type[TorchstrataError]) -> Path:
    """Return the absolute path that a person means, with ``~`` and ``~user`` for home directories.

    :param error: raised where there is no such user, or no home.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as cause:
        raise error(f"{printable(str(path))} begins with the home of nobody here", fix="write the path in full") from cause


def _known(find: Callable[[], Path]) -> Path | None:
    try:
        return find()
    except RuntimeError:  # how pathlib and platformdirs say that there is no home
        return None
