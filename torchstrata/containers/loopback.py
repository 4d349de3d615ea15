"""Ports of this machine that containers can publish."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from torchstrata.containers.description import Endpoint
from torchstrata.errors import BusyPortError

TRIED: Final = 100
"""Ports that are tried, from the usual one on."""

LAST: Final = 65_535
OTHER_PORT: Final = "end what listens there, or take another: --port {service}=PORT"


def publish(
    endpoints: Sequence[Endpoint],
    address: str,
    asked: Mapping[str, int],
    taken: Collection[int],
) -> tuple[Endpoint, ...]:
    """Return the services with the ports of this machine that lead to them.

    A service gets the port that was asked for, otherwise the first free one from the usual one on.

    :param asked: port by service.
    :param taken: ports that others have, even if nothing listens there.
    :raises BusyPortError: a port that was asked for is taken, or the image has no such service.
    """
    check(endpoints, asked)
    reserved = set(taken) | set(asked.values())
    published: list[Endpoint] = []
    for endpoint in endpoints:
        wanted = asked.get(endpoint.name)
        port = _asked(endpoint, address, wanted, taken) if wanted else _free(endpoint, address, reserved)
        reserved.add(port)
        published.append(replace(endpoint, published=port))
    return tuple(published)


def check(endpoints: Sequence[Endpoint], asked: Mapping[str, int]) -> None:
    """Refuse a port for a service that the image lacks.

    :raises BusyPortError: there is such a port.
    """
    known = {endpoint.name for endpoint in endpoints}
    for name in asked:
        if name not in known:
            fix = f"it has {', '.join(sorted(known)) or 'none'}: leave --port out, or another flavour"
            raise BusyPortError(f"the image has no service {name!r}", fix=fix)


def _asked(endpoint: Endpoint, address: str, port: int, taken: Collection[int]) -> int:
    if port in taken or not is_free(address, port):
        raise busy(address, port, endpoint.name)
    return port


def busy(address: str, port: int, service: str) -> BusyPortError:
    """Return the error about a port that something else has."""
    what = f"port {port} of {address} is taken, which {service} was to have"
    return BusyPortError(what, fix=OTHER_PORT.format(service=service))


def _free(endpoint: Endpoint, address: str, reserved: Collection[int]) -> int:
    first = endpoint.published
    for port in range(first, min(first + TRIED, LAST + 1)):
        if port not in reserved and is_free(address, port):
            return port
    raise BusyPortError(f"{address} has no free port from {first} on", fix=f"name one: --port {endpoint.name}=PORT")


def is_free(address: str, port: int) -> bool:
    """Return whether a port can be bound.

    One that this user may not bind counts as free; the engine finds out.

    :raises BusyPortError: the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.EINVAL} or isinstance(error, socket.gaierror):
                fix = "give one that is, or 0.0.0.0 for all: --listen ADDRESS"
                raise BusyPortError(f"{address} is no address of this machine", fix=fix) from error
            return error.errno == errno.EACCES
    return True
