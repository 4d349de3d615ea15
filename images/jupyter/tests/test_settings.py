"""Jupyter's variables with a value that they cannot have."""

from __future__ import annotations

import pytest

from tests.images.boxes import refuses

WRONG = {
    "JUPYTER_PORT": "65536",
    "JUPYTER_BASE_URL": "/a.b+c/",
    "NB_PREFIX": "/a b",
    "JUPYTER_TOKEN": "a\rb",
    "JUPYTER_TOKEN_FILE": "token",
    "JUPYTER_PASSWORD_HASH": "open sesame",
    "JUPYTER_CERT_FILE": "cert.pem",
    "JUPYTER_KEY_FILE": "/key-without-certificate.pem",
    "TORCHSTRATA_SERVICES": "jupyter shh",
    "TORCHSTRATA_JUPYTER_OPEN": "maybe",
}


@pytest.fixture(scope="module")
def box(start_shared):
    """A container in which starts are tried."""
    box = start_shared("sleep", "infinity")
    assert box.has_begun()
    return box


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value(box, name):
    """The start ends with status 78, for a command, too; its one line names the variable, is printable, and quotes no secret."""
    refuses(box, name, WRONG[name])
