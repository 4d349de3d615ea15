"""A second engine beside this machine's usual one, by a context that the ``docker`` command has made."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.checkout import Checkout
from tests.system.sockets import Relay
from torchstrata import errors
from torchstrata.host import docker_config


@pytest.fixture
def second(tmp_path):
    """Give a socket that leads to the engine, and the configuration of Docker in which a context has it."""
    relay = Relay(tmp_path / "second.sock", docker_config.address().removeprefix("unix://"))
    settings = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": ""}
    words = ["docker", "context", "create", "second", "--docker", f"host={relay.address}"]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **settings})
    yield relay, settings
    relay.cut()


@pytest.mark.parametrize("chosen", ["variable", "current"])
def test_doctor_asks_the_engine_of_the_context(second, tmp_path, chosen):
    """Whichever way it was chosen; where that engine is gone, the usual one, which still answers, is not taken for it."""
    relay, settings = second
    if chosen == "variable":
        settings["DOCKER_CONTEXT"] = "second"
    else:
        subprocess.run(["docker", "context", "use", "second"], check=True, capture_output=True, env={**os.environ, **settings})
    doctor = Checkout(env={**settings, "CI": "1"})
    ended = doctor.run("invoke", "doctor", "--json")
    found = {each["subject"]: each for each in json.JSONDecoder().raw_decode(ended.output)[0]["observations"]}
    assert found["engine"]["what"].endswith(f" at {relay.address}")
    relay.cut()
    ended = doctor.run("invoke", "doctor")
    assert ended.status == errors.EngineError.code
    assert f"no Docker engine answers at {relay.address}" in ended.output


def test_container_verbs_ask_it_too(second):
    """They find what is there, and end in one line where it is gone."""
    relay, settings = second
    person = Checkout(env={**settings, "DOCKER_CONTEXT": "second", "CI": "1"})
    assert person.run("invoke", "ps").status == 0
    relay.cut()
    for words in (["ps"], ["logs"], ["down"], ["drift", "any"], ["catalogue", "--engine"]):
        ended = person.run("invoke", *words)
        assert ended.status == errors.EngineError.code
        assert relay.address in ended.output


@pytest.mark.parametrize("chosen", ["variable", "current", "neither"])
def test_docker_command_means_the_same(second, monkeypatch, chosen):
    """It has made the context, and says where it would ask."""
    _, settings = second
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if chosen == "variable":
        monkeypatch.setenv("DOCKER_CONTEXT", "second")
    elif chosen == "current":
        subprocess.run(["docker", "context", "use", "second"], check=True, capture_output=True)
    words = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    assert docker_config.address() == said
