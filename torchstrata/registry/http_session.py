"""Single requests to one registry: what libraries of HTTP must not do with them, and an end to all waiting.

Hosts are verified as Docker does it. Answers are read within limits of bytes and seconds
(:mod:`torchstrata.registry.metering`), and never decoded. No redirect is followed here, no cookie is kept, and no header
comes from netrc.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import IO, Any, Final, Literal

import requests

from torchstrata.registry import answers, certificates
from torchstrata.registry.metering import Allowance, MeteredAdapter, allowing
from torchstrata.registry.patience import Patience
from torchstrata.store.codec import CHUNK

CONNECTIONS: Final = 16
"""Kept open at a time."""

READING: Final = frozenset({"GET", "HEAD"})
"""Methods whose redirects may lead to other hosts, where registries keep blobs."""

NO_COOKIES: Final = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

Body = bytes | Callable[[], IO[bytes]]
"""Bytes, or a function that opens them anew for each try."""


class _RefusingSession(requests.Session):
    """Follows no redirect and reads no body of one: ``requests`` would read it without a limit."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002  # of the signature
        """Say that nothing redirects."""
        return


class _Adapter(MeteredAdapter):
    """Trusts the CAs of the system and Docker's for the host, beside those of ``requests``; sends in large blocks."""

    def __init__(self, host: str) -> None:
        self._context = certificates.context(host)
        super().__init__(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, blocksize=CHUNK, **kwargs)

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, verify: object, cert: object = None) -> Any:  # noqa: ARG002  # of the signature
        """Name no files to pools of connections: the context has what is in them."""
        return super().build_connection_pool_key_attributes(request, verify=True)

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Change nothing: a pool belongs to all threads; each connection would load files into their one context."""

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, ssl_context=self._context, blocksize=CHUNK, **kwargs)


_SESSIONS: Final[weakref.WeakSet[Session]] = weakref.WeakSet()
_LOCK: Final = threading.Lock()
"""Guards the sessions of this process and their sockets: a set must not grow while it is listed."""


def cancel_all() -> None:
    """End soon what is under way with any registry, in any thread: somebody has ended the program."""
    with _LOCK:
        sessions = list(_SESSIONS)
    for session in sessions:
        session.cancel()


class Session:
    """Sends requests to one registry, each once; its methods may be called from any thread.

    :param host: with its port.
    """

    def __init__(self, host: str, patience: Patience | None) -> None:
        self.host = host
        self.patience = patience or Patience()
        self.cancelled = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        with _LOCK:
            _SESSIONS.add(self)
        self._session = _RefusingSession()
        self._session.cookies.set_policy(NO_COOKIES)
        self._session.headers.update({"User-Agent": "torchstrata", "Accept-Encoding": "identity"})
        self._session.mount("https://", _Adapter(host))
        self._session.mount("http://", MeteredAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS))

    def once(  # noqa: PLR0913  # what a request consists of
        self,
        method: str,
        url: str,
        body: Body | None = None,
        *,
        limit: int = answers.DOCUMENT,
        stream: bool = False,
        patience: Patience | None = None,
        **options: Any,
    ) -> requests.Response:
        """Send one request.

        :param limit: bytes of the answer's body.
        :param stream: leave that unread.
        :param patience: instead of the session's.
        :param options: further ones of ``requests``.
        """
        if self.cancelled.is_set():
            raise CancelledError
        patience = patience or self.patience
        wait = patience.answer if method in READING else patience.read
        options = {"auth": _as_given, "timeout": (patience.connect, wait), "allow_redirects": False, "stream": True, **options}
        with allowing(Allowance(body=limit, wait=wait, seen=self._watch)), contextlib.ExitStack() as stack:
            data = stack.enter_context(body()) if callable(body) else body or options.pop("data", None)
            response = self._session.request(method, url, data=data, **options)
        if not stream:
            answers.take(response, limit)
        return response

    def cancel(self) -> None:
        """End what is under way in any thread, soon: nobody waits for answers any more, and no request begins."""
        self.cancelled.set()
        with _LOCK:
            sockets = list(self._sockets)
        for used in sockets:
            _shut(used)

    def _watch(self, used: socket.socket) -> None:
        """Remember a socket at which a thread waits, for :meth:`cancel`."""
        with _LOCK:
            self._sockets.add(used)
        if self.cancelled.is_set():
            _shut(used)

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()


def _shut(used: socket.socket) -> None:
    """Let the thread that reads from a socket read its end."""
    with contextlib.suppress(OSError):  # it is closed already
        used.shutdown(socket.SHUT_RDWR)


def _as_given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the headers as they are: ``requests`` would else replace them from netrc."""
    return request
