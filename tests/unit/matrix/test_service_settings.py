"""What a flavour may say of a service: what no container could run or watch is refused before anything is built."""

from __future__ import annotations

import pytest

from tests.trees import SMALL, grow
from torchstrata.errors import FlavourError
from torchstrata.matrix import flavours

GYM = "services:\n  gym:\n    command: [/bin/gym]\n    port: 8000\n    health: {http: /healthz}\n"


def service(tmp_path, text):
    """Return the service of a flavour whose file has ``text``."""
    (one,) = flavours.read(grow(tmp_path, SMALL, devel=text))["devel"].own_services
    return one


@pytest.mark.parametrize("health", ["{http: /healthz}", "{https: /}", "{banner: SSH-2.0-}", "{tcp: true}"])
def test_every_way_to_tell_health(tmp_path, health):
    """Each of the four ways is one."""
    assert service(tmp_path, GYM.replace("{http: /healthz}", health)).variable == "GYM_PORT"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    port: 8000\n", "", "key port is missing"),
        ("    health: {http: /healthz}\n", "", "key health is missing"),
        ("{http: /healthz}", "{http: /, tcp: true}", "service gym has not one way to tell its health"),
        ("{http: /healthz}", "{tcp: false}", "service gym has not one way to tell its health"),
        ("[/bin/gym]", "[gym]", "service gym begins its command with 'gym'"),
        ("    command: [/bin/gym]\n", "", "service gym has no command"),
    ],
)
def test_what_no_container_could_run(tmp_path, old, new, said):
    """It is refused with a line that names the file and the service."""
    with pytest.raises(FlavourError, match=said) as refused:
        service(tmp_path, GYM.replace(old, new))
    assert refused.value.what.startswith("images/devel/flavour.yaml: ")
