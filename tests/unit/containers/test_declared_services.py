"""Services of an image of a registry: they are in the small layers on top, and whoever pushed these is not trusted."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.desks import manifest
from tests.distribution import Distribution
from tests.tars import packed
from torchstrata.containers import declared_services
from torchstrata.errors import ContainerError, RegistryError
from torchstrata.image.declarations import ADDED, OWN
from torchstrata.registry.registry import Registry

REPOSITORY = "team/x"


def facts(port):
    """Return the layer of an image that has a service at a port."""
    return packed({"etc/torchstrata/image.json": b"{}", OWN: json.dumps({"services": {"gym": {"port": port}}}).encode()})


@pytest.fixture
def declared(monkeypatch, tmp_path):
    """Return a function that pushes an image of some layers, and says which services the registry's image has."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Distribution(api=True).serve() as served, Registry(served.host) as client:

        def read(*layers):
            body = manifest(client, REPOSITORY, "x", layers, b"{}")
            pushed = client.manifest(REPOSITORY, "x").document().layers
            assert body
            return {name: service.port for name, service in declared_services.in_registry(client, REPOSITORY, pushed).items()}

        yield read


def test_the_layer_of_facts_has_them(declared):
    """It is the topmost of what was composed; one below it does not count."""
    assert declared(b"no archive", facts(1), facts(8000)) == {"gym": 8000}


def test_derived_image_has_them_below(declared):
    """With what it adds itself, and what is large in between is not fetched."""
    added = packed({f"{ADDED}/pool.json": b'{"port": 9000}'})
    assert declared(facts(8000), b"\0" * (declared_services.SMALL + 1), added) == {"gym": 8000, "pool": 9000}


def test_image_that_declares_none(declared):
    """Of before there were any, or of somebody else."""
    assert declared(packed({"file": b""})) == {}


@pytest.mark.parametrize("wrong", [b"no archive", gzip.compress(facts(1), mtime=0)[:40], facts(1)[:600]], ids=["other bytes", "short gzip", "short tar"])
def test_layer_that_is_none(declared, wrong):
    """It is refused in a line."""
    with pytest.raises(RegistryError, match="cannot be read"):
        declared(wrong)


def test_file_that_is_none(declared):
    """So is what a layer says."""
    with pytest.raises(ContainerError):
        declared(packed({OWN: b"{}"}))
