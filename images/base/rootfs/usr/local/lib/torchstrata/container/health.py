"""The probe for HEALTHCHECK and pod specs: whether the services are up that were asked for."""

from __future__ import annotations

import socket
import sys
from typing import Final

from container import notices, privilege, services

PATIENCE: Final = 3.0
"""Seconds for one answer."""

BUSY: Final = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What sshd answers instead of its banner where the limit on connections before a login is reached."""

LOCAL: Final = "127.0.0.1"


def main(arguments: list[str]) -> int:
    """Print one line for each service; return 0 if all are up, or none was asked for because a command runs; 1 while the start is not over."""
    del arguments
    privilege.drop()
    troubles = {service.name: trouble(service) for service in services.recall()}
    for name, what in troubles.items():
        sys.stdout.write(notices.brief(f"{name}: {what or 'up'}") + "\n")
    if not troubles:
        sys.stdout.write("no services: a command runs\n")
    return 1 if any(troubles.values()) else 0


def trouble(service: services.Service) -> str:
    """Return why a service is not up; empty where it is."""
    if service.refused:
        return service.refused
    try:
        with socket.create_connection((LOCAL, service.port), PATIENCE) as plain:
            plain.settimeout(PATIENCE)
            return _banner(plain) if service.scheme == "ssh" else _status(plain, service)
    except OSError as error:
        return f"port {service.port}: {error.strerror or error}"


def _banner(connection: socket.socket) -> str:
    """Wait for sshd's banner, or for what it says where too many strangers wait to log in: that it lives, and who may enter is its decision."""
    first = connection.recv(255)
    return "" if first.startswith((b"SSH-2.0-", *BUSY)) else f"answers {first[:20]!r} instead of an SSH banner"


def _status(connection: socket.socket, service: services.Service) -> str:
    """Ask over HTTP by hand: no proxy can come between, and the modules for it would take half of the time."""
    secured = _secured(connection) if service.scheme == "https" else connection
    secured.sendall(f"GET {service.path} HTTP/1.0\r\nHost: {LOCAL}:{service.port}\r\nUser-Agent: torchstrata-health\r\n\r\n".encode())
    words = secured.recv(4096).split(b" ", 2)
    return "" if len(words) > 1 and words[1] == b"200" else f"{service.path} answers {b' '.join(words[:2]).decode(errors='replace') or 'nothing'}"


def _secured(connection: socket.socket) -> socket.socket:
    import ssl  # noqa: PLC0415  # 20 ms, and few servers need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # our own server: its name is another one, its authority need not be known here
    return context.wrap_socket(connection)
