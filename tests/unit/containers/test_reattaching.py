"""A container that is there already: whether it is what somebody asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.endpoints import endpoints
from torchstrata.containers import reattaching
from torchstrata.containers.description import LOOPBACK, SHM, ContainerDescription
from torchstrata.containers.graphics import Graphics
from torchstrata.containers.running import OF_SERVICES, Containers, Order
from torchstrata.errors import NameTakenError, OutdatedContainerError
from torchstrata.image.runtime import WORKSPACE

CONTAINER = SimpleNamespace(
    name="desk",
    status="running",
    labels={OF_SERVICES: json.dumps({"8888": ["jupyter", "http"]})},
    attrs={
        "Image": "sha256:a",
        "Config": {"Env": ["PATH=/bin"]},
        "Mounts": [{"Destination": WORKSPACE, "Source": "/work"}],
        "HostConfig": {"ShmSize": SHM, "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "8888"}]}},
    },
)


def order(**asked):
    """Return what somebody asks for."""
    wanted = ContainerDescription(image="x", name="desk", title="x", endpoints=endpoints("jupyter"), workspace="/work")
    given = {"ports": {}} | asked
    graphics = Graphics(is_here=False, access=None)
    return Order(description=wanted, tag="x", identity="sha256:a", owner="me", graphics=graphics, token=Path("/t"), run="1", limits={}, **given)


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({"address": "0.0.0.0"}, f"ports at {LOOPBACK}"),  # what somebody asks for
        ({"shm": 4 << 30}, "8 GB of /dev/shm"),
        ({"ports": {"jupyter": 8890}}, "port 8888 for jupyter"),
        ({"ports": {"ssh": 2200}}, "no ssh\n"),
        ({"ports": {"ssh": 2200}, "needs_ssh": True}, "no ssh\n"),
        ({"needs_ssh": True}, "no ssh\n"),
    ],
)
def test_what_was_asked_for_is_not_left_out_in_silence(asked, differs):
    """A container cannot get it any more: somebody would believe to have it."""
    with pytest.raises(NameTakenError, match=f"desk is there with {differs}") as refused:
        reattaching._check(CONTAINER, order(**asked))
    assert "--replace" in refused.value.fix
    assert "inv up" not in refused.value.fix  # without the words that were given it means another container


def test_container_of_an_older_image_is_made_anew_by_the_same_words():
    """Without them `inv up --replace` would make another one, of the usual image."""
    with pytest.raises(OutdatedContainerError, match="desk is of another image") as refused:
        reattaching._check(CONTAINER, replace(order(), identity="sha256:b"))
    assert refused.value.fix.startswith("the same command with --replace makes it anew")


@pytest.mark.parametrize(("asked", "differs"), [("ssh-ed25519 A ada", []), ("ssh-ed25519 B bob", ["another key for ssh"])])
def test_key_that_was_asked_for(asked, differs):
    """A container with SSH lets in whom it was made for, and nobody else."""
    ports = {"22/tcp": [{"HostIp": LOOPBACK, "HostPort": "2222"}]}
    attrs = {"Config": {"Env": ["SSH_PUBLIC_KEY=ssh-ed25519 A ada\nssh-rsa C ada"]}, "HostConfig": {"ShmSize": SHM, "PortBindings": ports}}
    found = SimpleNamespace(labels={OF_SERVICES: json.dumps({"22": ["ssh", ""]})}, attrs=attrs)
    asked_for = order(identity_file="/k", needs_ssh=True)
    wanted = replace(asked_for, description=replace(asked_for.description, authorized_keys=(asked,)))
    assert list(reattaching._other_settings(found, wanted)) == differs


@pytest.mark.parametrize("asked", [{}, {"address": LOOPBACK, "shm": SHM, "ports": {"jupyter": 8888}}])
def test_what_was_not_asked_for_may_be_as_it_is(asked):
    """So is what the container has."""
    assert list(reattaching._other_settings(CONTAINER, order(**asked))) == []
    reattaching._check(CONTAINER, order(**asked))


def test_somebody_elses_container_is_not_to_be_removed():
    """Who wants to read its log is told how; only who wants its name is told to remove it."""
    found = SimpleNamespace(name="desk", labels={})
    containers = Containers(SimpleNamespace(containers=SimpleNamespace(get=lambda name: found)))
    with pytest.raises(NameTakenError) as of_verbs:
        containers.choose("desk")
    with pytest.raises(NameTakenError) as of_up:
        containers.find("desk")
    assert "docker logs" in of_verbs.value.fix
    assert "--name" not in of_verbs.value.fix
    assert "docker rm" not in of_verbs.value.fix
    assert "docker rm --force desk" in of_up.value.fix


@pytest.mark.parametrize("at", ["stop", "rename", "work"])
def test_interrupted_replacement_leaves_the_old_container_as_it_was(at):
    """Running, under its own name: also where Ctrl-C comes while it is stopped, which its engine ends all the same."""
    old = SimpleNamespace(name="desk", short_id="sha256:abc", status="running", interrupts=[at])

    def interrupted(step):
        if step in old.interrupts:
            old.interrupts.clear()
            raise KeyboardInterrupt

    def stop(**_):
        old.status = "exited"
        interrupted("stop")

    def rename(name):
        old.name = name
        interrupted("rename")

    def start():
        old.status = "running"

    old.stop, old.rename, old.start, old.reload = stop, rename, start, lambda: None
    with pytest.raises(KeyboardInterrupt), reattaching._aside(old):
        interrupted("work")
    assert (old.name, old.status) == ("desk", "running")
