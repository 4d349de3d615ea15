"""Whether a TCP port can be bound."""

from __future__ import annotations

import errno
import socket


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
