"""How much a server may send in one answer, and how long it may take: from its head to the end of its body.

Timeouts of sockets begin anew with every byte, and libraries read heads, interim answers, chunk sizes and trailers
for as long as they come. So the reader of an answer counts all of it: bytes, and seconds spent waiting for them.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from torchstrata.errors import RegistryError
from torchstrata.progress import ignore

SLOWEST: Final = 10_000
"""Bytes for which an answer may take a further second."""

FRAME: Final = 2
"""Bytes of an answer for each of its body: a body in chunks has lines between them."""

HEAD: Final = 1 << 20
"""Bytes of an answer's head, with the interim answers before it."""

TRAILERS: Final = 100
"""Lines after a body in chunks, as many as ``http.client`` takes of a head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """What an answer may cost.

    :param body: bytes of its body.
    :param wait: seconds of waiting in all, and one more for each :data:`SLOWEST` bytes that came.
    :param seen: called with the socket that it is waited for at, so that somebody can end that.
    """

    body: int
    wait: float
    seen: Callable[[socket.socket], object] = ignore

    @property
    def size(self) -> int:
        """Bytes of the whole answer."""
        return HEAD + FRAME * self.body


_allowance: ContextVar[Allowance] = ContextVar("allowance")


@contextlib.contextmanager
def allowing(allowance: Allowance) -> Iterator[None]:
    """Let the answer to the request that the block sends cost no more, also where its body is read later."""
    token = _allowance.set(allowance)
    try:
        yield
    finally:
        _allowance.reset(token)


class _Meter(io.RawIOBase):
    """Reads from a socket as long as the allowance lasts."""

    def __init__(self, sock: socket.socket, allowance: Allowance) -> None:
        super().__init__()
        self._sock, self._allowance = sock, allowance
        self._raw = sock.makefile("rb", buffering=0)
        self._received, self._waited = 0, 0.0
        self.limit = HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what comes.

        :raises TimeoutError: it took too long.
        :raises RegistryError: it is too much.
        """
        left = self._allowance.wait + self._received / SLOWEST - self._waited
        if left <= 0:
            raise TimeoutError("too slow")
        self._sock.settimeout(left)
        started = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._received += count or 0
        if self._received > self.limit:
            raise RegistryError(f"a server sends more than the {self.limit} bytes that its answer may have", fix="ask its admin")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _MeteredAnswer(http.client.HTTPResponse):
    """An answer that is read through a meter."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        _allowance.get().seen(sock)
        self._size = _allowance.get().size
        self._meter = _Meter(sock, _allowance.get())
        self.fp = io.BufferedReader(self._meter)

    def begin(self, **options: Any) -> None:
        """Read the head."""
        super().begin(**options)
        self._meter.limit = self._size

    def _read_next_chunk_size(self) -> int:
        """Refuse the size of a chunk that is below nothing, which ``http.client`` would try to read.

        :raises http.client.HTTPException: it is.
        """
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise http.client.HTTPException("a chunk of less than nothing")
        return size

    def _read_and_discard_trailer(self) -> None:
        """Read what comes after a body in chunks.

        :raises http.client.HTTPException: it does not end.
        """
        for _ in range(TRAILERS):
            if self.fp.readline(HEAD) in {b"\r\n", b"\n", b""}:
                return
        raise http.client.HTTPException("trailers without end")


class _Plain(HTTPConnection):
    response_class = _MeteredAnswer


class _Secure(HTTPSConnection):
    response_class = _MeteredAnswer


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


POOLS: Final = {"http": _PlainPool, "https": _SecurePool}


class MeteredAdapter(HTTPAdapter):
    """Sends requests whose answers are metered, through proxies too, each in a block of :func:`allowing`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Let pools have connections whose answers are metered."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Let pools of proxies have them, too."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager
