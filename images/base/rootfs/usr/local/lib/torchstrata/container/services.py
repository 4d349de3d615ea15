"""What runs when no command was given: planned once at the start, written down, then run by the supervisor and asked by the probe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from container import notices, settings, state


class Service(NamedTuple):
    """A service that was asked for.

    :param name: prefix of its lines in the log.
    :param port: where it listens.
    :param scheme: ``http``, ``https`` or ``ssh``.
    :param path: what the probe asks for, over HTTP.
    :param refused: why it cannot run; empty where it can.
    """

    name: str
    port: int
    scheme: str
    path: str = ""
    refused: str = ""


def remember(services: Iterable[Service]) -> None:
    """Write the plan for supervisor and probe, who may be another user: it has no secrets."""
    state.write(state.SERVICES, json.dumps([service._asdict() for service in services]), mode=0o644)


def recall() -> tuple[Service, ...]:
    """Return the plan; nothing where a command runs instead of services."""
    place = state.of_container()
    try:
        return tuple(Service(**row) for row in json.loads(state.content(place / state.SERVICES))) if place else ()
    except (OSError, ValueError, TypeError):  # its owner may have written anything
        return ()


def keep_apart(planned: Iterable[Service]) -> None:
    """Refuse services that would take each other's port.

    :raises SettingError: two of them have the same.
    """
    taken: dict[int, str] = {}
    for service in planned:
        other = taken.setdefault(service.port, service.name)
        if other != service.name:
            raise settings.SettingError(f"{other} and {service.name} are both to listen on port {service.port}", "set JUPYTER_PORT or SSH_PORT to another one")


def refuse(service: Service, why: str, fix: str) -> Service:
    """Say once why a service does not start, and return it with that."""
    notices.warn(f"{service.name} does not start: {why}", fix)
    return service._replace(refused=why)
