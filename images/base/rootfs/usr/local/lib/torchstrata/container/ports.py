"""TCP ports: numbers that people give, and whether they can be bound."""

from __future__ import annotations

import errno
import socket
from typing import Final

from container import notices

HIGHEST: Final = 65535


def number(name: str, text: str, usual: int) -> int:
    """Return the port that variable ``name`` holds, or the usual one with a line that says why."""
    if not text:
        return usual
    if text.isascii() and text.isdigit() and 0 < int(text) <= HIGHEST:
        return int(text)
    notices.warn(f"{name}={text} is not a port: {usual} is used", f"give a number from 1 to {HIGHEST}")
    return usual


def obstacle(port: int) -> str:
    """Return why ``port`` cannot be bound (``taken`` or ``not permitted``), or an empty string."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  # as the services will
            probe.listen(1)
        except OSError as error:
            return "not permitted" if error.errno == errno.EACCES else "taken"
    return ""
