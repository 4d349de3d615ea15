"""A proxy between a client and a registry that does harm, to one request or to some, and counts what goes through."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.registries import Authority
from tests.serving import answer, serving
from tests.waiting import until

Fault = Literal["drop", "lose", "cut", "delay", "truncate", "corrupt", "corrupt-answer", "429", "500", "401"]
"""
========================  ===========================================================
``drop``                  the connection breaks before the registry hears of the request
``lose``                  the registry does it, and the connection breaks before the answer
``cut``                   half of the request's body reaches the registry, then all breaks
``delay``                 the answer comes late
``truncate``              half of the answer comes
``corrupt``               a byte of the request's body is changed
``corrupt-answer``        a byte of the answer's body is changed
``429 500 401``           the proxy answers so itself; 429 with Retry-After, 401 with a challenge
========================  ===========================================================
"""

FAULTS: Final[tuple[Fault, ...]] = ("drop", "lose", "cut", "delay", "truncate", "corrupt", "corrupt-answer", "429", "500", "401")

DELAY: Final = 0.3


@dataclass
class Seen:
    """A request: method, path, and bytes of its body."""

    method: str
    path: str
    body: int


@dataclass
class Proxy:
    """What the proxy does and has seen.

    :param upstream: host and port of the registry.
    :param harm: says by its number, from 0, what to do to a request; ``None`` is nothing.
    """

    upstream: str
    authority: Authority | None = None
    harm: Callable[[int, Seen], Fault | None] = lambda *_: None
    seen: list[Seen] = field(default_factory=list)
    done: list[tuple[int, Fault]] = field(default_factory=list)
    host: str = ""
    retry_after: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0

    def settle(self) -> None:
        """Wait until the registry has answered everything that clients, dead by now, have asked."""
        until(lambda: not self.busy, "answers to all requests", state=lambda: f"{self.busy} are under way")

    def forget(self) -> None:
        """Count from 0 again, and do no harm."""
        with self.lock:
            self.seen, self.done, self.harm = [], [], lambda *_: None

    def uploaded(self) -> int:
        """Bytes of blobs that clients have sent."""
        return sum(each.body for each in self.seen if "/blobs/uploads/" in each.path)

    def once(self, number: int, fault: Fault) -> None:
        """Do harm to one request only."""
        self.harm = lambda count, _: fault if count == number else None

    @contextlib.contextmanager
    def serve(self) -> Iterator[Proxy]:
        """Run it, with TLS if there is an authority."""
        proxy = self

        class ProxyHandler(_ProxyHandler):
            owner = proxy

        with serving(ProxyHandler, self.authority.context() if self.authority else None) as port:
            self.host = f"127.0.0.1:{port}"
            yield self


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    owner: Proxy

    def handle_any(self) -> None:
        """Take a request in, and count it while it is under way."""
        with self.owner.lock:
            self.owner.busy += 1
        try:
            self._handle(self._body())
        finally:
            with self.owner.lock:
                self.owner.busy -= 1

    def _handle(self, body: bytes) -> None:
        """Do to a request what is due."""
        seen = Seen(self.command, self.path, len(body))
        with self.owner.lock:
            number = len(self.owner.seen)
            fault = self.owner.harm(number, seen)
            self.owner.seen.append(seen)
            if fault:
                self.owner.done.append((number, fault))
        if fault in {"429", "500", "401"}:
            self._refuse(fault)
        elif fault == "drop":
            self._break()
        elif fault == "cut":
            self._forward_half(body)
            self._break()
        else:
            self._pass(fault, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _pass(self, fault: Fault | None, body: bytes) -> None:
        if fault == "corrupt" and body:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        answer, content = self._forward(body)
        if fault == "lose":
            self._break()
            return
        if fault == "delay":
            time.sleep(DELAY)
        if fault == "corrupt-answer" and content:
            content = content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding"}:
                self.send_header(name, value)
        if "Content-Length" not in answer.headers and self.command != "HEAD" and answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "truncate":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            taken = b""
            while size := int(self.rfile.readline(), 16):
                taken += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return taken
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _headers(self, body: bytes) -> dict[str, str]:
        kept = {name: value for name, value in self.headers.items() if name.lower() not in {"connection", "transfer-encoding", "content-length"}}
        return {**kept, "Content-Length": str(len(body)), "Connection": "close"}

    def _upstream(self) -> http.client.HTTPConnection:
        if self.owner.authority:
            return http.client.HTTPSConnection(self.owner.upstream, context=ssl.create_default_context(cafile=self.owner.authority.certificate))
        return http.client.HTTPConnection(self.owner.upstream)

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self._upstream()
        connection.request(self.command, self.path, body, self._headers(body))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def _forward_half(self, body: bytes) -> None:
        connection = self._upstream()
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers(body).items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body[: len(body) // 2])
        connection.close()

    def _refuse(self, fault: str) -> None:
        told = {"429": {"Retry-After": str(self.owner.retry_after)}, "401": {"WWW-Authenticate": 'Basic realm="tests"'}}
        answer(self, b"", int(fault), told.get(fault, {}))

    def _break(self) -> None:
        """Reset the connection."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True
