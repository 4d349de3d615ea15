"""Digests of content (OCI image specification 1.1): text from outside becomes names of files and parts of URLs here."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from torchstrata.errors import IntegrityError

PATTERN: Final = r"sha256:[0-9a-f]{64}"
DIGEST: Final = re.compile(PATTERN)

Digest = Annotated[str, msgspec.Meta(pattern=rf"\A{PATTERN}\Z")]
"""``sha256:`` and 64 hexadecimal digits; decoding anything else fails."""


def checked(digest: str) -> str:
    """Return ``digest``, which is safe as a part of a URL.

    :raises IntegrityError: it is no digest.
    """
    if not DIGEST.fullmatch(digest):
        raise IntegrityError(f"{digest[:80]!a} is no digest", fix="remove what names it: its author is mistaken, or means harm")
    return digest


def file_name(digest: str) -> str:
    """Return the name of the file that holds the content with ``digest``: 64 hexadecimal digits.

    :raises IntegrityError: it is no digest.
    """
    return checked(digest).removeprefix("sha256:")


def digest_of(path: Path) -> str:
    """Return the digest of a file, ``sha256:...``."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
