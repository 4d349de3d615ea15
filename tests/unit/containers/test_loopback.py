"""Ports of this machine: those that were asked for or none, else the first free ones."""

from __future__ import annotations

import socket

import pytest

from tests.endpoints import endpoints
from torchstrata.containers import loopback
from torchstrata.containers.description import LOOPBACK, Endpoint
from torchstrata.errors import BusyPortError

BOTH = endpoints("ssh")


@pytest.fixture
def busy():
    """Listen on a port."""
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()
        yield listening.getsockname()[1]


def ports(found):
    """Return the published port by service."""
    return {each.name: each.published for each in found}


@pytest.mark.parametrize(
    ("asked", "found"),
    [({}, {"jupyter": 8888, "ssh": 2222}), ({"ssh": 8888}, {"jupyter": 8889, "ssh": 8888})],
    ids=["usual", "that of another"],
)
def test_services_have_the_ports_that_people_know(monkeypatch, asked, found):
    """Where they are free, and no other service was asked to have one; SSH listens where any user may."""
    monkeypatch.setattr(loopback, "is_free", lambda *_: True)
    assert ports(loopback.publish(BOTH, LOOPBACK, asked, ())) == found
    assert {each.name: each.port for each in BOTH} == {"jupyter": 8888, "ssh": 2222}


def test_the_next_free_port_is_taken(busy):
    """Where the usual one is somebody's, or will be."""
    wanted = (Endpoint(name="a", port=1, published=busy), Endpoint(name="b", port=2, published=busy))
    found = ports(loopback.publish(wanted, LOOPBACK, {}, {busy + 1}))
    assert busy + 1 < found["a"] < found["b"]


@pytest.mark.parametrize(
    ("asked", "taken", "what", "fix"),
    [
        ({"jupyter": "busy"}, (), "port {busy} ", "--port jupyter="),
        ({"jupyter": 54321}, {54321}, "port 54321 ", "--port jupyter="),
        ({"web": 80}, (), "no service 'web'", "jupyter, ssh"),
    ],
    ids=["busy", "of the engine", "no service"],
)
def test_port_that_was_asked_for_is_not_replaced(busy, asked, taken, what, fix):
    """People have it in their bookmarks. An engine may hold one by rules of a firewall, where nothing listens."""
    asked = {name: busy if port == "busy" else port for name, port in asked.items()}
    with pytest.raises(BusyPortError, match=what.format(busy=busy)) as refused:
        loopback.publish(BOTH, LOOPBACK, asked, taken)
    assert fix in refused.value.fix


@pytest.mark.parametrize("address", ["192.0.2.1", "nowhere.invalid"])
def test_address_of_another_machine(address):
    """It is said before anything is made."""
    with pytest.raises(BusyPortError, match="no address of this machine"):
        loopback.is_free(address, 8888)
