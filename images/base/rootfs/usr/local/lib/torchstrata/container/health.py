"""The probe for HEALTHCHECK and pod specs: whether the services are up that were asked for."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final

from container import notices, privilege, services

PATIENCE: Final = 3.0
"""Seconds for one answer."""


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
        with socket.create_connection((services.LOCAL, service.port), PATIENCE) as connection:
            connection.settimeout(PATIENCE)
            return ASK.get(service.scheme, _status)(connection, service)
    except OSError as error:
        return f"port {service.port}: {error.strerror or error}"


def _connected(connection: socket.socket, service: services.Service) -> str:
    """Ask for nothing: that the port answers is enough."""
    del connection, service
    return ""


def _banner(connection: socket.socket, service: services.Service) -> str:
    """Wait for what the service says first."""
    first = connection.recv(255)
    return "" if first.startswith(tuple(map(str.encode, service.banners))) else f"answers {first[:20]!r} instead of {' or '.join(service.banners[:1])}"


def _status(connection: socket.socket, service: services.Service) -> str:
    """Ask over HTTP by hand: no proxy can come between, and the modules for it would take half of the time."""
    secured = _secured(connection) if service.scheme == "https" else connection
    secured.sendall(f"GET {service.path} HTTP/1.0\r\nHost: {services.LOCAL}:{service.port}\r\nUser-Agent: torchstrata-health\r\n\r\n".encode())
    words = secured.recv(4096).split(b" ", 2)
    return "" if len(words) > 1 and words[1] == b"200" else f"{service.path} answers {b' '.join(words[:2]).decode(errors='replace') or 'nothing'}"


def _secured(connection: socket.socket) -> socket.socket:
    """Return a connection with TLS on top."""
    import ssl  # noqa: PLC0415  # 20 ms, and few servers need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # our own server: its name is another one, its authority need not be known here
    return context.wrap_socket(connection)


ASK: Final[Mapping[str, Callable[[socket.socket, services.Service], str]]] = {"tcp": _connected, "banner": _banner, "http": _status, "https": _status}
"""How each scheme asks a service that is connected to: why it is not up; empty where it is."""
