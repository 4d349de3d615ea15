"""Ports of this machine that containers can have."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from torchstrata.containers.description import Endpoint
from torchstrata.errors import BusyPortError

TRIED: Final = 100
"""Ports above the usual one that are looked at."""

LAST: Final = 65_535


def publish(endpoints: Sequence[Endpoint], address: str, asked: Mapping[str, int], taken: Collection[int]) -> tuple[Endpoint, ...]:
    """Return the services with the ports of this machine that lead to them: those asked for, else the first free ones from the usual on.

    :param asked: port by service.
    :param taken: ports that others have, though nothing of this machine need listen there.
    :raises BusyPortError: one that was asked for is taken, or the image has no such service.
    """
    check(endpoints, asked)
    reserved = set(taken) | set(asked.values())
    found: list[Endpoint] = []
    for each in endpoints:
        port = _asked(each, address, asked[each.name], taken) if each.name in asked else next(_free(each, address, reserved), 0)
        if not port:
            raise BusyPortError(f"{address} has no free port from {each.published} on", fix=f"name one: --port {each.name}=PORT")
        reserved.add(port)
        found.append(replace(each, published=port))
    return tuple(found)


def check(endpoints: Sequence[Endpoint], asked: Mapping[str, int]) -> None:
    """Refuse ports for services that the image has not.

    :raises BusyPortError: there is one.
    """
    known = {each.name for each in endpoints}
    for name in asked:
        if name not in known:
            raise BusyPortError(f"the image has no service {name!r}", fix=f"it has {', '.join(sorted(known)) or 'none'}: leave --port out, or another flavour")


def _asked(endpoint: Endpoint, address: str, port: int, taken: Collection[int]) -> int:
    if port in taken or not is_free(address, port):
        raise busy(address, port, endpoint.name)
    return port


def busy(address: str, port: int, service: str) -> BusyPortError:
    """Return the error about a port that something else has."""
    return BusyPortError(
        f"port {port} of {address} is taken, which {service} was to have", fix=f"end what listens there, or take another: --port {service}=PORT"
    )


def _free(endpoint: Endpoint, address: str, reserved: Collection[int]) -> Iterator[int]:
    candidates = range(endpoint.published, min(endpoint.published + TRIED, LAST + 1))
    return (port for port in candidates if port not in reserved and is_free(address, port))


def is_free(address: str, port: int) -> bool:
    """Return whether a port can be bound; one that this user may not bind may be free, which the engine finds out.

    :raises BusyPortError: the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.EINVAL} or isinstance(error, socket.gaierror):
                raise BusyPortError(f"{address} is no address of this machine", fix="give one that is, or 0.0.0.0 for all: --listen ADDRESS") from error
            return error.errno == errno.EACCES
    return True
