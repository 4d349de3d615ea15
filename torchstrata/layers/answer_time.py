"""How long a server of wheels may take for an answer, and how much may stand before its body.

Timeouts of sockets begin anew with every byte, and the library reads heads and interim answers for as long as they
come. So what all connections of a client are read from looks at a clock, and counts the bytes of heads.
:mod:`torchstrata.registry.metering` does the same for registries, whose client is another library.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any, Final

import httpcore2
import httpx2

from torchstrata.errors import FetchError

HEAD: Final = 1 << 20
"""Bytes of an answer's head, with the interim answers before it, and what comes with it of its body."""

FIX: Final = "check pip's index settings; if they are right, tell the index's owner"


class _Limit:
    """What is left of an answer.

    :param seconds: from now on.
    :param size: bytes; ``None`` for any number.
    """

    def __init__(self, seconds: float, size: int | None) -> None:
        self._seconds, self._latest, self._size = seconds, time.monotonic() + seconds, size

    def left(self) -> float:
        """Return the seconds that are left.

        :raises FetchError: the time is over.
        """
        left = self._latest - time.monotonic()
        if left <= 0:
            raise FetchError(f"a server of wheels takes longer than {self._seconds:.0f} s to answer", fix=FIX)
        return left

    def count(self, size: int) -> None:
        """Take note of bytes that have come.

        :raises FetchError: there are too many.
        """
        if self._size is not None:
            self._size -= size
            if self._size < 0:
                raise FetchError(f"a server of wheels sends more than {HEAD >> 20} MiB before a page or a wheel", fix=FIX)


_limits: ContextVar[tuple[_Limit, ...]] = ContextVar("limits", default=())


@contextlib.contextmanager
def within(seconds: float, size: int | None = None) -> Iterator[None]:
    """Let this thread's requests in the block take no longer, all together, and receive no more bytes."""
    token = _limits.set((*_limits.get(), _Limit(seconds, size)))
    try:
        yield
    finally:
        _limits.reset(token)


def limit(client: httpx2.Client) -> None:
    """Let all connections of a client, also through proxies, keep to :func:`within`; a test guards the private API."""
    transports = {client._transport, *client._mounts.values()}  # noqa: SLF001  # there is no other way that keeps proxies of the environment
    for transport in transports:
        if isinstance(transport, httpx2.HTTPTransport):
            transport._pool._network_backend = _Backend()  # noqa: SLF001


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(self, *args: Any, **options: Any) -> httpcore2.NetworkStream:
        """Connect."""
        return _Stream(super().connect_tcp(*args, **options))


class _Stream(httpcore2.NetworkStream):
    """Reads as long as all limits last."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what comes."""
        try:
            content = self._stream.read(max_bytes, _shorter(timeout))
        except httpcore2.TimeoutException:
            _shorter(timeout)  # says whose time is over
            raise
        for limit in _limits.get():
            limit.count(len(content))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        self._stream.write(buffer, _shorter(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> httpcore2.NetworkStream:
        """Return the stream inside TLS."""
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _shorter(timeout)))

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection says of itself."""
        return self._stream.get_extra_info(info)


def _shorter(timeout: float | None) -> float | None:
    """Return the least of a timeout and what is left of all limits.

    :raises FetchError: nothing is left.
    """
    left = [limit.left() for limit in _limits.get()] + ([] if timeout is None else [timeout])
    return min(left, default=None)
