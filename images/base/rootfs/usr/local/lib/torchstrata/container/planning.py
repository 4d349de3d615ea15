"""Which services are to run, and how each will: what cannot run here is said in one line, and keeps no other from running."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from container import declarations, extension, notices, plain, services, state
from container.declarations import Declaration
from container.services import Service

OTHERS: Final = f"or name other services: {declarations.ASKED}"


def claim(wanted: Sequence[Declaration]) -> str:
    """Make the directory of what services remember, and say there that they will run: no probe takes a start, whose hooks may be slow, for a command.

    :return: why there is no such directory; empty where there is.
    """
    trouble = state.claim()
    if not trouble:
        services.remember(Service(declared.name, 0, "", refused="starting") for declared in wanted)
    return trouble


def environment(declared: Iterable[Declaration]) -> dict[str, str]:
    """Return the variables that services give to all processes."""
    variables: dict[str, str] = {}
    for declaration in declared:
        with contextlib.suppress(extension.ModuleError):  # the plan says it, where the service is to run
            variables |= extension.of(declaration, plain.environment)()
    return variables


def plan(wanted: Sequence[Declaration], given: Mapping[str, str], home: Path) -> bool:
    """Plan the services that are wanted, and write down the plan; return whether any can run.

    :raises SettingError: a variable has a value that it cannot have, or two services want one port.
    """
    planned = [service for declared in wanted if (service := _planned(declared, given, home))]
    services.keep_apart(planned)
    services.remember(planned)
    if all(service.refused for service in planned):
        notices.warn("no service can run: the container ends here", "give a command, or what the lines above ask for")
        return False
    return True


def _planned(declared: Declaration, given: Mapping[str, str], home: Path) -> Service | None:
    """Return a service as it is to run, or refused; None where nobody needs it."""
    unplanned = Service(declared.name, 0, declared.scheme)
    if declared.trouble:
        return services.refuse(unplanned, declared.trouble, declarations.CURE)
    if declared.command and not os.access(declared.command[0], os.X_OK):
        return services.refuse(unplanned, f"{declared.command[0]} is no program of this image", f"install it, {OTHERS}")
    try:
        extension.of(declared, plain.check)(given)
        extension.of(declared, plain.environment)()
        service = extension.of(declared, plain.plan)(declared, given, home)
        extension.of(declared, plain.secrets)(declared)
    except extension.ModuleError as error:
        return services.refuse(unplanned, str(error), f"correct it, {OTHERS}")
    return service
