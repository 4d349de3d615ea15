"""A service that is data alone: what ``Extension`` of ``container/extension.py`` asks of it, answered by its declaration.

A secret that was given, by its variable or by the file that ``NAME_FILE`` names, lies in ``{state}/NAME`` for the service to read: neither an argument nor the
environment of any process shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from container import secret_files, services, state
from container.declarations import Declaration
from container.services import Service


def check(given: Mapping[str, str]) -> None:
    """Refuse nothing: what data says of variables is checked by the gates."""
    del given


def environment() -> Mapping[str, str]:
    """Return no variable."""
    return {}


def plan(declared: Declaration, given: Mapping[str, str], home: Path) -> Service | None:
    """Return the service on its port, or on the one that its variable gives; write its secrets.

    :raises SettingError: a variable has a value that it cannot have.
    """
    del home
    service = services.asked(declared, given)
    place = directory(declared.name)
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        for name in declared.secrets:
            if value := secret_files.value(name, given):
                state.write(f"{declared.name}/{name}", value)
    except secret_files.SecretFileError as error:
        return services.refuse(service, str(error), "let the container's user read it")
    return services.unless_taken(service)


def command(declared: Declaration, service: Service) -> Sequence[str]:
    """Return the words of the declaration, filled in."""
    return tuple(filled(word, service) for word in declared.command)


def welcome(declared: Declaration, service: Service) -> Sequence[str]:
    """Return the line of the declaration, filled in."""
    return [filled(declared.ready, service)]


def secrets(declared: Declaration) -> Sequence[str]:
    """Return the secrets that :func:`plan` has written."""
    files = (directory(declared.name) / name for name in declared.secrets)
    return [path.read_text(encoding="utf-8") for path in files if path.exists()]


def findings(service: Service) -> Sequence[str]:
    """Return nothing: that it answers is said already."""
    del service
    return ()


def filled(text: str, service: Service, url: str = "") -> str:
    """Return a text with port, address and private directory of a service in the place of ``{port}``, ``{url}`` and ``{state}``."""
    scheme = service.scheme if service.scheme in {"http", "https"} else "tcp"
    address = url or f"{scheme}://{services.LOCAL}:{service.port}"
    return text.replace("{port}", str(service.port)).replace("{state}", str(directory(service.name))).replace("{url}", address)


def directory(name: str) -> Path:
    """Return the private directory of a service: in memory where that can be, gone with the container."""
    return state.directory() / name
