"""Which engine is meant: the one that the ``docker`` command uses, which Docker's own configuration says."""

from __future__ import annotations

import functools
import hashlib
import json

import pytest

from torchstrata.errors import VariableError
from torchstrata.host import docker_config

PLACE = "unix:///somewhere.sock"
TCP = "tcp://192.0.2.1:2376"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Return an empty directory of Docker's configuration, and let nothing else say which engine is meant."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def context(place, name="second", host=PLACE, **more):
    """Make a context as ``docker context create`` does; return the directory of its certificates, which is not there yet."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    (place / "contexts/meta" / identity).mkdir(parents=True)
    written = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False, **more}}}
    (place / "contexts/meta" / identity / "meta.json").write_text(json.dumps(written))
    return place / "contexts/tls" / identity / "docker"


@pytest.fixture
def second(place, monkeypatch):
    """Return what makes a context, by which the variable asks."""
    monkeypatch.setenv("DOCKER_CONTEXT", "second")
    return functools.partial(context, place)


def current(place, name):
    """Let a context be the current one, as ``docker context use`` does."""
    (place / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))


def test_without_configuration_it_is_this_machines_usual_one():
    """Nothing has to be there."""
    assert docker_config.context() is None
    assert docker_config.address() == docker_config.DEFAULT_SOCKET


FIRST, THIRD = "unix:///first.sock", "unix:///third.sock"


@pytest.mark.parametrize(
    ("chosen", "variables", "address"),
    [
        ("second", {}, PLACE),
        ("", {"DOCKER_CONTEXT": "second"}, PLACE),
        ("second", {"DOCKER_CONTEXT": "third"}, THIRD),
        ("second", {"DOCKER_CONTEXT": "default"}, docker_config.DEFAULT_SOCKET),
        ("gone", {"DOCKER_CONTEXT": "gone, too", "DOCKER_HOST": FIRST}, FIRST),
    ],
)
def test_an_address_beats_a_context_and_a_variable_the_current_one(place, monkeypatch, chosen, variables, address):
    """The current one is in the configuration file, which ``docker context create`` alone does not write."""
    context(place)
    context(place, "third", THIRD)
    if chosen:
        current(place, chosen)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert docker_config.address() == address
    assert (docker_config.context() is None) == (address not in {PLACE, THIRD})


@pytest.mark.parametrize("by_variable", [True, False])
def test_context_that_is_not_there_is_an_error(place, monkeypatch, by_variable):
    """The engine of this machine is not what somebody meant; the docker command refuses it, too."""
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    else:
        current(place, "gone")
    with pytest.raises(VariableError, match="'gone', and Docker has no such context") as caught:
        docker_config.address()
    assert ("unset DOCKER_CONTEXT" if by_variable else "docker context use default") in caught.value.fix


@pytest.mark.parametrize("content", ["", "[]", '{"Endpoints": {"docker": {"Host": 5}}}', "\0"])
def test_damaged_context_is_an_error(place, monkeypatch, content):
    """Docker's library would end in a traceback."""
    context(place)
    next(place.glob("contexts/meta/*/meta.json")).write_text(content)
    monkeypatch.chdir(place)
    monkeypatch.setenv("DOCKER_CONFIG", ".")  # a long path would leave no room for the reason
    monkeypatch.setenv("DOCKER_CONTEXT", "second")
    with pytest.raises(VariableError, match="is not as Docker writes it"):
        docker_config.context()


@pytest.mark.parametrize("files", [(), ("ca",), ("ca", "cert", "key"), ("cert",)])
def test_certificates_of_a_context_are_its_own(place, monkeypatch, files):
    """As far as there are; a certificate without its key is none."""
    directory = context(place, host="tcp://192.0.2.1:2376", SkipTLSVerify=True)
    directory.mkdir(parents=True)
    for name in files:
        (directory / f"{name}.pem").touch()
    monkeypatch.setenv("DOCKER_CONTEXT", "second")
    found = docker_config.context()
    assert not found.is_verified
    assert found.ca == (directory / "ca.pem" if "ca" in files else None)
    assert found.key_pair == ((directory / "cert.pem", directory / "key.pem") if "key" in files else None)


@pytest.mark.parametrize(
    ("host", "files", "more", "told"),
    [
        (PLACE, (), {}, {"DOCKER_HOST": PLACE}),
        (TCP, (), {}, {"DOCKER_HOST": TCP}),
        (TCP, ("ca", "cert", "key"), {}, {"DOCKER_HOST": TCP, "DOCKER_TLS_VERIFY": "1"}),
        (TCP, ("ca", "cert", "key"), {"SkipTLSVerify": True}, {"DOCKER_HOST": TCP, "DOCKER_TLS_VERIFY": ""}),
        (TCP, ("ca",), {}, {}),
        ("", (), {}, {}),
    ],
)
def test_programs_that_know_no_contexts_are_told(second, host, files, more, told):
    """By the variables that Docker's library reads, with certificates where there are all."""
    directory = second(host=host, **more)
    directory.mkdir(parents=True)
    for name in files:
        (directory / f"{name}.pem").touch()
    assert docker_config.environment() == told | ({"DOCKER_CERT_PATH": str(directory)} if "DOCKER_TLS_VERIFY" in told else {})
