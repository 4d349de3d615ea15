"""A scan of ports: only what the image publishes listens, in front of the container and inside it."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import serving

SCAN = """
import errno, json, socket, sys
def connect(port):
    with socket.socket() as client:
        client.settimeout(60)
        return client.connect_ex((sys.argv[1], port))
answers = {port: connect(port) for port in range(1, 65536)}
assert set(answers.values()) <= {0, errno.ECONNREFUSED}, set(answers.values())
print(json.dumps([port for port, answer in answers.items() if answer == 0]))
"""
LISTENING = """
import json, pathlib
def ports(kind, state):
    for path in (pathlib.Path("/proc/net") / name for name in (kind, kind + "6")):
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == state and not address.startswith("0B00007F"):  # the engine's name server, 127.0.0.11
                yield int(port, 16)
print(json.dumps({"tcp": sorted(set(ports("tcp", "0A"))), "udp": sorted(set(ports("udp", "07")))}))
"""


@pytest.fixture(scope="module")
def published(inspect):
    """The ports that the image says it publishes."""
    return sorted(int(port.partition("/")[0]) for port in inspect["Config"].get("ExposedPorts") or {})


@pytest.fixture(scope="module")
def box(start_shared, expected):
    """A container with all its services, which answer."""
    box = serving(start_shared, expected.services)
    assert box.has_begun()
    return box


@pytest.mark.costly
def test_from_the_network(box, client, published):
    """Of all 65,535 TCP ports a neighbour finds open those that are published."""
    done = client.run("/usr/bin/python3", "-", box.address, stdin=SCAN.encode())
    assert json.loads(done.out or "null") == published, done.err


def test_inside(box, published):
    """Nothing else listens inside either, on loopback or over UDP, where anybody in the container could speak to it."""
    done = box.run("/usr/bin/python3", "-", stdin=LISTENING.encode())
    assert json.loads(done.out) == {"tcp": published, "udp": []}


def test_they_are_those_of_the_flavour(published, expected):
    """The image publishes the ports of its services, no more."""
    assert published == sorted(service.port for service in expected.services)
