"""What runs when no command was given: planned once at the start, written down, then run by the supervisor and asked by the probe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from container import notices, ports, settings, state
from container.declarations import Declaration

LOCAL: Final = "127.0.0.1"


class Service(NamedTuple):
    """A service that is to run.

    :param name: prefix of its lines in the log.
    :param port: where it listens.
    :param scheme: how the probe asks: ``http``, ``https``, ``banner`` or ``tcp``.
    :param path: what the probe asks for, over HTTP.
    :param refused: why it cannot run; empty where it can.
    :param banners: what it may begin to say, where that is what the probe waits for; the first is its own.
    :param variable: sets another port.
    """

    name: str
    port: int
    scheme: str
    path: str = ""
    refused: str = ""
    banners: tuple[str, ...] = ()
    variable: str = ""


def asked(declared: Declaration, given: Mapping[str, str]) -> Service:
    """Return a service as its declaration has it, on the port that was given, if one was.

    :raises SettingError: what was given is no port.
    """
    port = settings.port(declared.variable, given.get(declared.variable, "")) or declared.port
    path, banners = ("", (declared.expected,)) if declared.scheme == "banner" else (declared.expected, ())
    return Service(declared.name, port, declared.scheme, path, banners=banners, variable=declared.variable)


def remember(services: Iterable[Service]) -> None:
    """Write the plan for supervisor and probe, who may be another user: it has no secrets."""
    state.write(state.SERVICES, json.dumps([service._asdict() for service in services]), mode=0o644)


def recall() -> tuple[Service, ...]:
    """Return the plan; nothing where a command runs instead of services."""
    place = state.of_container()
    try:
        return tuple(_recalled(**row) for row in json.loads(state.content(place / state.SERVICES))) if place else ()
    except (OSError, ValueError, TypeError):  # its owner may have written anything
        return ()


def _recalled(*, banners: Iterable[str] = (), **row: object) -> Service:
    return Service(**row, banners=tuple(map(str, banners)))  # type: ignore[arg-type]  # anything: only its owner suffers


def keep_apart(planned: Iterable[Service]) -> None:
    """Refuse services that would take each other's port.

    :raises SettingError: two of them have the same.
    """
    taken: dict[int, Service] = {}
    for service in planned:
        other = taken.setdefault(service.port, service) if service.port else service
        if other.name != service.name:
            both = f"{other.name} and {service.name} are both to listen on port {service.port}"
            raise settings.SettingError(both, f"set {other.variable} or {service.variable} to another one")


def unless_taken(service: Service) -> Service:
    """Return the service, refused where its port cannot be bound."""
    obstacle = ports.obstacle(service.port)
    return refuse(service, f"port {service.port} is {obstacle}", f"set {service.variable}") if obstacle else service


def refuse(service: Service, why: str, fix: str) -> Service:
    """Say why a service does not start, and return it with that reason."""
    notices.warn(f"{service.name} does not start: {why}", fix)
    return service._replace(refused=why)
