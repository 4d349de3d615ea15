"""Core metadata of Python packages (PyPA specification "Core metadata"), read within bounds."""

from __future__ import annotations

import re
from typing import Final

from packaging.metadata import RawMetadata, parse_email

FIELDS: Final = 2_000
"""Header lines at most: the parser of the standard library takes time by their square. Of real wheels none has 600."""

_FIELD: Final = re.compile(r"^[^\s:]+:", re.MULTILINE)
_MULTIPART: Final = re.compile(r"^content-type:\s*multipart", re.MULTILINE | re.IGNORECASE)


def parse(metadata: str | bytes) -> RawMetadata:
    """Return the fields of ``metadata``, each as the specification names it; unknown ones are left out.

    :raises ValueError: it has too many fields, or is a message of several parts, which no metadata is.
    """
    text = metadata.decode(errors="replace") if isinstance(metadata, bytes) else metadata
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    if len(_FIELD.findall(head)) > FIELDS:
        raise ValueError(f"has more than {FIELDS} fields")
    if _MULTIPART.search(head):
        raise ValueError("is a message of several parts")
    fields, _ = parse_email(metadata)
    return fields
