"""Where a git repository with a ledger may lie: not at what git would take for an option or for a command."""

from __future__ import annotations

import re
from typing import Final

from torchstrata.errors import LedgerError
from torchstrata.text import printable

LIMIT: Final = 1_000
"""Characters of an address."""

PROTOCOLS: Final = ("file", "git", "http", "https", "ssh")
"""Transports of git's own that start no program named by the address; gitprotocol-common(5), ``GIT_ALLOW_PROTOCOL``."""

_SCHEME: Final = re.compile(r"([A-Za-z0-9+.-]*)://")
_HELPER: Final = re.compile(r"[A-Za-z0-9_+.-]*::")
"""``ext::COMMAND`` runs a command, ``WORD::`` the program ``git-remote-WORD`` (gitremote-helpers(7))."""


def checked(text: str) -> str:
    """Return ``text``, which git takes for the name, path or address of a repository and for nothing else.

    :raises LedgerError: it is none.
    """
    scheme = _SCHEME.match(text)
    host = text[scheme.end() :] if scheme else text
    wrong = (
        not text
        or len(text) > LIMIT
        or not text.isprintable()
        or text.startswith("-")
        or _HELPER.match(text)
        or (scheme and scheme[1].lower() not in PROTOCOLS)
        or host.startswith("-")
        or "@-" in host
    )
    if wrong:
        raise LedgerError(f"{printable(text, 80)!r} is no git repository", fix="write REMOTE#branch: a remote's name, a path, or an https or ssh address")
    return text
