"""The inference server: its variables are checked before anything starts, by the code that the server itself reads them with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from container import plain, services
from container.declarations import Declaration
from container.services import Service
from container.settings import SettingError
from serving import settings


def check(given: Mapping[str, str]) -> None:
    """Refuse variables that no server could be started with.

    :raises SettingError: a variable has a value that it cannot have.
    """
    try:
        settings.read(given)
    except settings.WantedError as error:
        raise SettingError(error.what, error.fix) from error


def plan(declared: Declaration, given: Mapping[str, str], home: Path) -> Service | None:
    """Return the service on its port, refused where a file cannot be read.

    :raises SettingError: a variable has a value that it cannot have.
    """
    check(given)
    service = plain.plan(declared, given, home)
    try:
        settings.check_files(settings.read(given))
    except settings.WantedError as error:
        return services.refuse(service, error.what, error.fix) if service else None
    return service


def findings(service: Service) -> tuple[str, ...]:
    """Return which network it serves, and with which weights."""
    del service
    wanted = settings.read(os.environ)
    return (f"{wanted.worker or wanted.model or 'ResNet-50'}, weights: {wanted.weights or 'none given'}",)
