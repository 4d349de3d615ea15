"""Services that an image declares in ``/etc/torchstrata``, as its start reads them, too (``container/declarations.py``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from torchstrata import decoding
from torchstrata.errors import ContainerError
from torchstrata.image.runtime import ETC
from torchstrata.matrix.schema import Port, Variable

OWN: Final = f"{ETC}/services.json"
ADDED: Final = f"{ETC}/services.d"
"""Directory of a file for each service that a derived image adds, or has in another's place."""

NAME: Final = r"[a-z][a-z0-9-]{0,30}"
OF_SERVICE: Final = re.compile(rf"{ADDED}/({NAME})\.json")

LIMIT: Final = 64 << 10
"""Bytes of a file, as containers take it."""


class WebHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is asked whether it is up, as far as that says how people reach it."""

    http: str | None = None
    https: str | None = None


class DeclaredService(msgspec.Struct, frozen=True, kw_only=True):
    """A service.

    :param port: where it listens.
    :param port_variable: what names another port; ``<NAME>_PORT`` where that is left out.
    """

    port: Port
    port_variable: Variable | None = None
    health: WebHealth = WebHealth()

    @property
    def scheme(self) -> str:
        """The scheme of its URL; empty where it speaks no HTTP."""
        return "http" if self.health.http else "https" if self.health.https else ""


class ServicesFile(msgspec.Struct, frozen=True, kw_only=True):
    """The services of an image by name."""

    services: dict[Annotated[str, msgspec.Meta(pattern=rf"\A{NAME}\Z")], DeclaredService]


def is_declaration(path: str) -> bool:
    """Return whether a file of an image declares services."""
    return path == OWN or bool(OF_SERVICE.fullmatch(path))


def read(files: Mapping[str, bytes]) -> Mapping[str, DeclaredService]:
    """Return services by name; one that a derived image declares takes the place of the image's own.

    :param files: content by path; those that :func:`is_declaration` does not tell are passed over.
    :raises ContainerError: one is not what it must be: the container would not start, or without the service.
    """
    own = decoding.read(files[OWN], ServicesFile, OWN, limit=LIMIT, error=ContainerError).services if OWN in files else {}
    added = {found[1]: path for path in files if (found := OF_SERVICE.fullmatch(path))}
    return own | {name: decoding.read(files[path], DeclaredService, path, limit=LIMIT, error=ContainerError) for name, path in added.items()}
