"""How long people wait: the best of three, since only an idle machine shows what the image can do."""

from __future__ import annotations

import socket
import time
from functools import partial

from tests.images.boxes import READY, until


def banner(address):
    """Return whether an SSH server answers."""
    try:
        with socket.create_connection((address, 22), 0.2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def status(address):
    """Return whether Jupyter answers with 200."""
    try:
        with socket.create_connection((address, 8888), 0.2) as connection:
            connection.sendall(b"GET /api HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b"200")
    except OSError:
        return False


def test_start_to_answer(start, public_key):
    """Jupyter answers within 3 s of the start, SSH within 1 s, its host keys made in that time."""
    times = {"ssh": [], "jupyter": []}
    for _ in range(3):
        begin = time.monotonic()
        box = start(environment={"SSH_PUBLIC_KEY": public_key})
        address = box.address
        assert until(partial(banner, address))
        times["ssh"].append(time.monotonic() - begin)
        assert until(partial(status, address))
        times["jupyter"].append(time.monotonic() - begin)
        assert READY in box.wait_for(READY)
        box.container.remove(force=True)
    print({name: [round(value, 2) for value in values] for name, values in times.items()})
    assert min(times["ssh"]) < 1
    assert min(times["jupyter"]) < 3
