"""Run the services that were planned at the start."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

from container import declarations, extension, health, notices, plain, services, settings, state, supervisor
from container.declarations import Declaration
from container.services import Service

WRONG: Final = 78
"""Exit status where what an image says of its services is wrong: EX_CONFIG."""


def main(arguments: list[str]) -> int:
    """Run until the container is stopped; return the exit status."""
    del arguments
    try:
        declared = {declaration.name: declaration for declaration in declarations.read().services}
        pairs = [(declared[service.name], service) for service in services.recall() if service.name in declared and not service.refused]
        secrets: list[str] = []
        for declaration, _ in pairs:
            secrets += extension.of(declaration, plain.secrets)(declaration)
        return supervisor.run([_supervised(*pair) for pair in pairs], os.environ, supervisor.Log(secrets=secrets))
    except settings.SettingError as error:
        notices.warn(error.what, error.fix)
        return WRONG
    except extension.ModuleError as error:
        notices.warn(str(error))
        return WRONG
    finally:
        state.remove()


def _supervised(declared: Declaration, service: Service) -> supervisor.Supervised:
    """Return a service for the supervisor, which asks its module, or the declaration, each time anew."""
    command = partial(extension.of(declared, plain.command), declared, service)
    welcome = partial(extension.of(declared, plain.welcome), declared, service)
    return supervisor.Supervised(service.name, command, partial(_answers, service), welcome, quiet=declared.quiet)


def _answers(service: Service) -> bool:
    return not health.trouble(service)
