"""Small HTTP servers on this machine, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator


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
