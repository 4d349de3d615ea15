"""What a push calls images of rows of one platform and of several, and which indexes it makes of them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.joined import BOTH
from tests.released import compose
from torchstrata.attestations import made, remote
from torchstrata.attestations.record import decode
from torchstrata.building.assembly import Composed
from torchstrata.image import runtime
from torchstrata.image.compose import CONFIG, canonical, sha256
from torchstrata.image.image_index import ImageIndex, PlatformImage

STEM = "2.8.0-cu121-debian13"


@pytest.fixture
def single(store, tmp_path) -> Composed:
    """Compose an image of a row of one platform."""
    return compose(store, tmp_path / "wheels")


def on(one: Composed, platform: str, user: str = runtime.DEV) -> Composed:
    """Return an image as it would be for a platform, in a row of two."""
    system, _, architecture = platform.partition("/")
    told = json.loads(one.image.config)
    config = canonical({**told, "os": system, "architecture": architecture, "config": {**told["config"], "User": user}})
    manifest = {**json.loads(one.image.manifest), "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)}}
    image = dataclasses.replace(one.image, config=config, manifest=canonical(manifest))
    cell = dataclasses.replace(one.plan.cell, platforms=BOTH).on(platform)
    return dataclasses.replace(one, plan=dataclasses.replace(one.plan, cell=cell), image=image)


def test_an_image_of_a_row_of_one_platform_has_the_tag_that_it_always_had(single):
    """And makes no index."""
    assert remote.stem(single) == f"{STEM}-base"
    assert remote.indexes([single]) == ()


@pytest.mark.parametrize(("user", "image"), [(runtime.DEV, "base"), (runtime.ROOT, "v2.8")])
def test_images_of_several_platforms_have_tags_of_their_own(single, user, image):
    """By what their configs say; the one that starts as root is the all-in-one, whatever engines call it."""
    assert [remote.stem(on(single, platform, user)) for platform in BOTH] == [f"{STEM}-{image}_amd64", f"{STEM}-{image}_arm64"]


def test_an_index_is_made_of_what_was_pushed_for_all_platforms(single):
    """One platform alone waits for the other; each image of a cell has an index of its own."""
    images = [on(single, platform) for platform in BOTH]
    rooted = on(single, "linux/amd64", runtime.ROOT)
    listed = tuple(PlatformImage(platform=remote.platform_of(one), digest=one.image.digest, size=len(one.image.manifest)) for one in images)
    ((cell, image, index),) = remote.indexes([*images, rooted])
    assert (cell.id, image, index) == (single.plan.cell.id, "base", ImageIndex(name="2.8-cu121-debian13-base", images=listed))
    assert remote.indexes([images[1]]) == ()


def test_a_record_names_the_platforms_of_its_row(single, store):
    """One of a row of one platform says nothing of that, and so has the bytes that it always had."""
    record = made.record_of(_made(single, store))
    assert (record.platform, record.platforms) == ("linux/amd64", ())
    assert "platforms" not in json.loads(record.encode())
    several = made.record_of(_made(on(single, "linux/arm64"), store))
    assert (several.platform, several.platforms) == ("linux/arm64", BOTH)
    assert decode(several.encode()) == several


def _made(one: Composed, store) -> made.Made:
    parts = {item.identity: item.part for item in one.plan.items if item.part}
    source = made.SourceRepository(revision="2" * 40)
    return made.Made(composed=one, parts=parts, inventories={}, source=source, os_lock="1", os_lock_date="2026-11-24", os_image="x", codec="x")
