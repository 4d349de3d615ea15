"""Rows of several platforms: what an index lists is shown for each platform, once, and is what the index's channel holds."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from tests import joined, showcase
from tests.distribution import Distribution
from tests.joined import BOTH, REVISION
from tests.waiting import PATIENCE
from torchstrata.catalogue import instructions
from torchstrata.catalogue.exhibits import ordered
from torchstrata.catalogue.from_registry import RegistryReader
from torchstrata.image import oci
from torchstrata.image.compose import sha256
from torchstrata.matrix import matrix
from torchstrata.registry.patience import Patience
from torchstrata.registry.platform_indexes import Joiner
from torchstrata.registry.registry import Registry

REPOSITORY = "team/x"
MATRIX = joined.several(matrix.load(), "2.13-cpu-debian12")
(CELL,) = matrix.select(MATRIX, "2.13-cpu")
TAGS = ("2.13-cpu-devel", "2.13-cpu-devel-tried")


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """Run a registry with an image for each platform; nobody is logged in there."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Distribution(api=True).serve() as served, Registry(served.host, patience=Patience(tries=1, connect=PATIENCE, greeting=PATIENCE)) as client:
        for platform in BOTH:
            joined.push(client, REPOSITORY, MATRIX, CELL, "devel", platform, "one")
        yield client


def images(registry):
    """Return what the catalogue shows of the registry."""
    now = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    return RegistryReader(matrix=MATRIX, registry=registry, repository=REPOSITORY, trust=None, now=now).catalogue().images


def test_an_image_is_shown_once_with_the_names_of_its_index(registry):
    """Its own dated tag is beside them."""
    alone = {image.platform: image for image in images(registry)}
    assert set(alone) == set(BOTH)
    assert all(image.moved == {image.digest} for image in alone.values())
    joiner = Joiner(registry=registry, repository=REPOSITORY)
    index = joiner.find(CELL, "devel", dict.fromkeys(BOTH, REVISION))
    for tag in TAGS:
        joiner.put(index, joiner.tag(CELL, "devel", index), tag)
    shown = images(registry)
    assert [image.digest for image in shown] == [alone[platform].digest for platform in BOTH]
    for image in shown:
        assert set(image.tags) == {*TAGS, joiner.tag(CELL, "devel", index), *alone[image.platform].tags}
        assert image.moved == {image.digest, sha256(index.body)}


def test_a_channel_holds_what_its_index_lists(registry):
    """Such an image comes before a newer one."""
    old = images(registry)
    index = Joiner(registry=registry, repository=REPOSITORY).find(CELL, "devel", dict.fromkeys(BOTH, REVISION))
    registry.put_manifest(REPOSITORY, "2.13-cpu-devel", index.body, oci.INDEX)
    for platform in BOTH:
        joined.push(registry, REPOSITORY, MATRIX, CELL, "devel", platform, "two", 2)
    exhibits = images(registry)
    first = {
        platform: [image.digest for image in ordered(list(exhibits), MATRIX, frozenset({sha256(index.body)})) if image.platform == platform]
        for platform in BOTH
    }
    assert {platform: digests[0] for platform, digests in first.items()} == {image.platform: image.digest for image in old}
    newest = {platform: next(image for image in exhibits if image.platform == platform).digest for platform in BOTH}
    assert all(newest[platform] == first[platform][1] for platform in BOTH)


@pytest.mark.parametrize(("platform", "is_said"), [("linux/arm64", True), ("linux/amd64", False), ("--privileged", False)])
def test_files_of_launchers_say_another_platform(platform, is_said):
    """One that there is: whoever may push writes what an image says of itself."""
    found = showcase.catalogue(1)
    (line,) = instructions.launchers(found, dataclasses.replace(found.images[0], platform=platform))["print"].values()
    assert (f"--platform {platform}" in line) is is_said
    assert "--privileged" not in line
