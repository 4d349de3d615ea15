"""Indexes of images for several platforms, as they are composed, and as they come from outside."""

from __future__ import annotations

import json

import pytest

from torchstrata.errors import ImageIndexError, RegistryError
from torchstrata.image import image_index, oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.image_index import ImageIndex, PlatformImage

AMD = PlatformImage(platform="linux/amd64", digest=sha256(b"amd64"), size=5)
ARM = PlatformImage(platform="linux/arm64", digest=sha256(b"arm64"), size=6)
INDEX = image_index.compose([AMD, ARM])


def test_the_same_images_make_the_same_index():
    """In whatever order they come; it has neither dates nor annotations, so two machines push the same digest."""
    assert image_index.compose([ARM, AMD]) == INDEX == ImageIndex(name="x", images=(ARM, AMD)).body
    assert json.loads(INDEX) == {
        "schemaVersion": 2,
        "mediaType": oci.INDEX,
        "manifests": [
            {"mediaType": MANIFEST, "digest": AMD.digest, "size": 5, "platform": {"os": "linux", "architecture": "amd64"}},
            {"mediaType": MANIFEST, "digest": ARM.digest, "size": 6, "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }


def test_an_index_is_read_as_it_was_composed():
    """Digests come by platform, sorted."""
    found = image_index.read(INDEX, "x")
    assert (found, found.digest) == (ImageIndex(name="x", images=(AMD, ARM)), sha256(INDEX))
    assert list(found.digests.items()) == [("linux/amd64", AMD.digest), ("linux/arm64", ARM.digest)]


def changed(change):
    """Return the index with its document changed."""
    document = json.loads(INDEX)
    change(document, document["manifests"])
    return canonical(document)


HOSTILE = {
    "linux/arm64 twice": lambda _, listed: listed[0].update(platform=listed[1]["platform"]),
    "twice, so that nodes may run either": lambda _, listed: listed.append({**listed[1], "platform": {**listed[1]["platform"], "variant": "v7"}}),
    "another index": lambda _, listed: listed[1].update(mediaType=oci.INDEX),
    "distribution.manifest.v2": lambda _, listed: listed[1].update(mediaType="application/vnd.docker.distribution.manifest.v2+json"),
    "without a type": lambda _, listed: listed[1].pop("mediaType"),
    "which platform sha256": lambda _, listed: listed[1].pop("platform"),
    "does not say which": lambda _, listed: listed[1]["platform"].pop("architecture"),
    "lists 0 images": lambda _, listed: listed.clear(),
    "lists 17 images": lambda _, listed: listed.extend({**listed[0], "platform": {"os": "linux", "architecture": f"made{number}"}} for number in range(15)),
    "is not as this program": lambda _, listed: listed.reverse(),
    "writes an index": lambda _, listed: listed[1]["platform"].update(variant="v9"),
    "index of these": lambda document, _: document.update(annotations={"when": "today"}),
    "of these images": lambda _, listed: listed[1].update(urls=["https://example.com/"]),
}


@pytest.mark.parametrize("says", HOSTILE)
def test_an_index_that_is_none_of_ours_is_refused(says):
    """A doubled platform, an index in an index, what is no image, one without a platform, too many, and whatever else a reader might overlook."""
    with pytest.raises(ImageIndexError, match=says) as caught:
        image_index.read(changed(HOSTILE[says]), "it")
    assert caught.value.code == 59


@pytest.mark.parametrize(
    "body",
    [
        b"{}x",
        b"[]",
        canonical({"manifests": [{"digest": "sha256:short", "size": 1}]}),
        canonical({"manifests": [{"digest": AMD.digest, "size": -1}]}),
        canonical({"mediaType": MANIFEST, "manifests": []}),
        canonical({"mediaType": oci.INDEX, "manifests": [], "layers": []}),
        INDEX + b" " * oci.MANIFEST_LIMIT,
    ],
    ids=["no JSON", "no mapping", "no digest", "no size", "another type", "an image at once", "too large"],
)
def test_what_is_no_index_at_all_is_refused(body):
    """As every document of the wrong shape, or of too many bytes."""
    with pytest.raises(RegistryError):
        image_index.read(body, "it")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (("linux/amd64",), "it has no image for linux/arm64"),
        ((), "it has no image for linux/amd64, linux/arm64"),
        (("linux/amd64", "linux/arm64", "linux/s390x"), "it has an image for linux/s390x"),
    ],
)
def test_a_platform_that_is_gone_or_foreign_is_named(found, says):
    """One line tells which."""
    with pytest.raises(ImageIndexError, match=says):
        image_index.require(found, ("linux/amd64", "linux/arm64"), "it")


def test_exactly_the_platforms_of_the_row_are_content():
    """In any order."""
    image_index.require(["linux/arm64", "linux/amd64"], ("linux/amd64", "linux/arm64"), "it")


@pytest.mark.parametrize(
    ("config", "platform"),
    [({"os": "linux", "architecture": "arm64"}, "linux/arm64"), ({"os": "linux"}, ""), ({"architecture": "arm64"}, ""), ({}, "")],
)
def test_an_image_says_what_it_is_for(config, platform):
    """In its config; one that does not say both is for none."""
    assert image_index.of_config(oci.read(canonical(config), oci.ImageConfig, "x")) == platform
