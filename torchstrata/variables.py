"""Variables of the environment: the one place where their values become text, paths or numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from torchstrata import files
from torchstrata.errors import VariableError
from torchstrata.text import printable

LIMIT: Final = 4_096
"""Characters of a value; a path can have no more (Linux, ``PATH_MAX``)."""


def text(name: str) -> str | None:
    """Return the value of a variable, ``None`` where it is not set or empty.

    :raises VariableError: it is longer than :data:`LIMIT`, has control characters, or is no UTF-8.
    """
    value = os.environ.get(name)
    if value and (len(value) > LIMIT or not value.isprintable()):
        raise VariableError(f"{name} is no line of text: {printable(value, 60)!r}", fix=f"unset {name}, or give it a value without control characters")
    return value or None


def file(name: str, limit: int) -> bytes | None:
    """Return the content of the file that a variable names, ``None`` where it names none.

    :param limit: bytes that it may have.
    :raises VariableError: there is no such file, or it is none that can be read to its end.
    """
    value = text(name)
    try:
        return files.read(Path(value), limit) if value else None
    except files.UnreadableError as error:
        raise VariableError(f"{name}: {error.what}", fix=f"unset {name}, or let it name a file") from error
