"""A secret that a service needs: given by a variable, or by a file that another variable names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from container import settings


class SecretFileError(Exception):
    """The file of a secret cannot be used. Without it, or with another secret, whoever knows it would be locked out."""


def value(name: str, given: Mapping[str, str]) -> str:
    """Return the secret of the variable ``name``, or of the file that ``NAME_FILE`` names; empty where neither is given.

    :raises SettingError: what the variable has cannot be a secret.
    :raises SecretFileError: the file cannot be read, is empty, or holds what cannot be a secret.
    """
    file = f"{name}_FILE"
    return settings.token(name, given.get(name, "")) or _of_file(file, settings.path(file, given.get(file, "")))


def _of_file(name: str, path: str) -> str:
    """Return the secret of a file; empty where none is named.

    :param name: the variable that names it, for messages.
    :raises SecretFileError: it cannot be read, is empty, or holds what cannot be a secret.
    """
    if not path:
        return ""
    try:
        secret = settings.token(path, settings.read_file(Path(path), settings.SMALL_FILE))
    except settings.SettingError as error:
        raise SecretFileError(error.what) from error
    except (OSError, ValueError) as error:
        raise SecretFileError(f"{name}={path} cannot be read: {settings.unread(error)}") from error
    if not secret:
        raise SecretFileError(f"{name}={path} is empty")
    return secret
