"""What an engine is asked for when a container is made, and what is read of one that is there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.endpoints import endpoints
from torchstrata.containers import running
from torchstrata.containers.description import ContainerDescription, Gpus
from torchstrata.containers.graphics import Graphics
from torchstrata.containers.running import OF_SERVICES, TOKEN, Containers, Order
from torchstrata.errors import NoContainerError
from torchstrata.machine.gpu_access import GpuAccess


def asked(way="gpus", flavour="ssh", **more):
    """Return what is asked for a container of a flavour, on a host whose engine serves GPUs in a way."""
    wanted = ContainerDescription(image="x@sha256:0", name="x", title="x", endpoints=endpoints(flavour), **more)
    graphics = Graphics(is_here=True, access=GpuAccess(way=way, how=""))
    order = Order(description=wanted, tag="x", identity="x", owner="me", graphics=graphics, token=Path("/t"), ports={}, run="1", limits={})
    return running._request(order)


@pytest.mark.parametrize(("way", "names"), [("gpus", {"device_requests"}), ("device", {"device_requests"}), ("runtime", {"runtime"}), (None, set())])
def test_gpus_are_asked_for_as_the_engine_serves_them(way, names):
    """Nothing of it is asked for a container without."""
    found = asked(way or "gpus", gpus=Gpus() if way else None)
    assert found.keys() & {"device_requests", "runtime"} == names


def test_variables_of_gpus_and_services_stand_beside_each_other():
    """Those of NVIDIA's runtime, the port that SSH takes, the key, and the file of the token."""
    found = asked("runtime", gpus=Gpus(), authorized_keys=("ssh-ed25519 AAAA",))["environment"]
    assert found == {"NVIDIA_VISIBLE_DEVICES": "all", "SSH_PORT": "2222", "SSH_PUBLIC_KEY": "ssh-ed25519 AAAA", "JUPYTER_TOKEN_FILE": TOKEN}


@pytest.mark.parametrize("flavour", ["base", "ssh", "serve"])
def test_container_knows_its_services(flavour):
    """By a label, so that whoever looks later needs no image for it; what another container lacks is called by its port."""
    labels = asked(flavour=flavour)["labels"]
    bound = {f"{each.port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9000"}] for each in endpoints(flavour)}
    made, foreign = (SimpleNamespace(labels=each, attrs={"HostConfig": {"PortBindings": bound}}) for each in (labels, {}))
    assert {(each.name, each.scheme) for each in running.bindings(made)} == {(each.name, each.scheme) for each in endpoints(flavour)}
    assert {each.name for each in running.bindings(foreign)} == {*bound}
    assert OF_SERVICES in labels


def test_an_empty_word_names_no_container():
    """It is not taken for the only one, nor for an engine that does not answer."""
    with pytest.raises(NoContainerError, match="an empty word names no container"):
        Containers(None).choose("")
