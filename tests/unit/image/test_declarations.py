"""Services that an image declares: by its own file, and by those of images that are derived from it."""

from __future__ import annotations

import json

import pytest

from torchstrata.errors import ContainerError
from torchstrata.image import declarations
from torchstrata.image.declarations import ADDED, LIMIT, OWN


def file(**services):
    """Return an image's own file."""
    return json.dumps({"command": ["bash"], "services": services}).encode()


GYM = {"flavour": "gym", "command": ["/bin/gym"], "port": 8000, "health": {"http": "/"}, "later": [1]}


def test_image_has_what_it_declares():
    """Fields that nobody here asks for may be anything: a later version has others."""
    found = declarations.read({OWN: file(gym=GYM)})
    assert {name: (service.port, service.scheme) for name, service in found.items()} == {"gym": (8000, "http")}
    assert declarations.read({}) == {}


def test_derived_image_adds_and_replaces():
    """By a file of the service's name."""
    added = {f"{ADDED}/{name}.json": json.dumps(GYM | {"port": port}).encode() for name, port in (("gym", 9000), ("pool", 9001))}
    found = declarations.read({OWN: file(gym=GYM)} | added)
    assert {name: service.port for name, service in found.items()} == {"gym": 9000, "pool": 9001}


@pytest.mark.parametrize(("health", "scheme"), [({"https": "/"}, "https"), ({"banner": "SSH-2.0-"}, ""), ({"tcp": True}, "")])
def test_scheme(health, scheme):
    """By the question that the health check asks."""
    assert declarations.read({OWN: file(gym=GYM | {"health": health})})["gym"].scheme == scheme


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", file(gym={"port": 0}), file(**{"a\n": {"port": 1}}), file(gym={"port": 1, "port_variable": "a b"}), b" " * (LIMIT + 1)]
)
def test_file_that_is_none(content):
    """Its container would not start."""
    with pytest.raises(ContainerError, match=r"services\.json"):
        declarations.read({OWN: content})


@pytest.mark.parametrize(
    ("path", "is_one"), [(OWN, True), (f"{ADDED}/gym.json", True), (f"{ADDED}/gym.txt", False), (f"{OWN}.bak", False), (f"{ADDED}/a b.json", False)]
)
def test_files_that_declare(path, is_one):
    """As the start of a container tells them."""
    assert declarations.is_declaration(path) is is_one
