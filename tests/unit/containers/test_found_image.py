"""Images that containers can be made of: what they say of themselves becomes a description, and nothing that they say is trusted."""

from __future__ import annotations

import pytest

from tests.endpoints import endpoints
from torchstrata.containers import description
from torchstrata.containers.description import Gpus
from torchstrata.containers.found_image import FoundImage
from torchstrata.image.declarations import DeclaredService, WebHealth
from torchstrata.matrix import matrix

DIGEST, ID = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
TITLE = "org.opencontainers.image.description"


def found(labels=None, endpoints=(), digest=DIGEST):
    """Return an image that says this of itself."""
    return FoundImage.of("registry.example/team/images:v2.8", ID, labels or {}, endpoints, "linux/arm64", digest=digest)


def test_image_is_named_with_its_digest():
    """By which a registry, and an engine's newer store, know it; the tag is for people."""
    assert found().usual.image == f"registry.example/team/images:v2.8@{DIGEST}"
    assert found().describe().name == "torchstrata-v2.8"


def test_classic_store_knows_an_image_by_its_id_alone():
    """What was built there has no digest."""
    assert found(digest=None).usual.image == ID


DECLARED = {
    "gym": DeclaredService(port=8000, health=WebHealth(http="/")),
    "web-site": DeclaredService(port=80),
    "mail": DeclaredService(port=25, port_variable="SMTP"),
}


def test_ports_become_services():
    """By what the image declares; those that no service has keep their number, and none is below 1024 that can be moved."""
    endpoints = found(endpoints=description.endpoints([25, 80, 8000, 9000], DECLARED)).describe().endpoints
    assert [(each.name, each.port, each.scheme, each.variable, each.is_moved) for each in endpoints] == [
        ("port-9000", 9000, "", "", False),
        ("gym", 8000, "http", "GYM_PORT", False),
        ("web-site", 8080, "", "WEB_SITE_PORT", True),
        ("mail", 8025, "", "SMTP", True),
    ]


@pytest.mark.parametrize("flavour", matrix.load().flavours)
def test_every_flavour_has_services_with_names(flavour):
    """Those that its file lists."""
    assert {each.name for each in endpoints(flavour)} == {service.name for service in matrix.load().services(flavour)}


@pytest.mark.parametrize(("labels", "gpus"), [({"torchstrata.cuda": "12.8"}, Gpus()), ({}, None)])
def test_images_with_cuda_want_gpus(labels, gpus):
    """All of them."""
    assert found(labels).describe().gpus == gpus


def test_what_differs_is_said():
    """The rest is as usual."""
    described = found({TITLE: "PyTorch 2.8.0"}).describe(name="mine", shm=1 << 20)
    assert (described.name, described.memory, described.title) == ("mine", "1m", "PyTorch 2.8.0")


def test_title_is_one_line_of_plain_words():
    """It stands in comments of scripts."""
    assert set(found({TITLE: "a\n$(id) `id`\x1b"}).usual.title) <= set("a id()")
