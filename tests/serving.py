"""Small HTTP servers on this machine, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import http
import http.server
import ssl
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType


@contextlib.contextmanager
def serving(
    handler: type[http.server.BaseHTTPRequestHandler],
    context: ssl.SSLContext | None = None,
    *,
    address: tuple[str, int] = ("127.0.0.1", 0),
    protocol: str = "HTTP/1.1",
) -> Iterator[int]:
    """Serve HTTP, a thread for each connection; yield the port, which is a free one unless the address names it."""
    handler.protocol_version = protocol
    handler.log_message = lambda *_: None  # type: ignore[method-assign]  # what it would print is nobody's concern
    server = http.server.ThreadingHTTPServer(address, handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # broken connections are the point of some tests
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(
    handler: http.server.BaseHTTPRequestHandler,
    content: bytes = b"",
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Answer a request with some bytes, whose length is told, and with headers of its own."""
    has_body = status != http.HTTPStatus.NO_CONTENT
    handler.send_response_only(status)
    for name, value in {**({"Content-Length": str(len(content))} if has_body else {}), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if has_body and handler.command != "HEAD":
        handler.wfile.write(content)
