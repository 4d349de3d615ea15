"""Indexes in a registry: made of what each platform's machine has pushed, only when all of it is there and fits together."""

from __future__ import annotations

import pytest

from tests import joined
from tests.distribution import Distribution
from tests.joined import BOTH, REVISION
from tests.waiting import PATIENCE
from torchstrata.errors import ImageIndexError, ImmutableTagError
from torchstrata.image import image_index, oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.matrix import matrix
from torchstrata.registry import dated_tag, platform_indexes
from torchstrata.registry.client import Manifest
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.patience import Patience
from torchstrata.registry.platform_indexes import Joiner
from torchstrata.registry.registry import Registry

REPOSITORY = "team/x"
QUICK = Patience(tries=2, first=0.01, longest=0.02, connect=PATIENCE, greeting=PATIENCE)
MATRIX = joined.several(matrix.load(), "2.13-cpu-debian12")
(CELL,) = matrix.select(MATRIX, "2.13-cpu")
MADE = dict.fromkeys(BOTH, REVISION)
STEM = f"{CELL.version}-cpu-debian12-devel"


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """Run a registry; nobody is logged in there."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Distribution(api=True).serve() as served, Registry(served.host, patience=QUICK) as client:
        yield client


@pytest.fixture
def joiner(registry):
    """Return what makes indexes there, unsigned."""
    return Joiner(registry=registry, repository=REPOSITORY)


def pushed(registry, platform, mark="one", number=1, **labels):
    """Push the devel image for a platform; return its manifest."""
    return joined.push(registry, REPOSITORY, MATRIX, CELL, "devel", platform, mark, number, **labels)


def at(registry, body):
    """Push an index by its digest; return it as a registry has it."""
    registry.put_manifest(REPOSITORY, sha256(body), body, oci.INDEX)
    return registry.manifest(REPOSITORY, sha256(body))


def test_platforms_have_tags_of_their_own():
    """No flavour can have such a name; a row of one platform has the tags that it always had."""
    (single,) = matrix.select(matrix.load(), "2.13-cpu")
    assert [dated_tag.stem(CELL, "devel", platform) for platform in BOTH] == [f"{STEM}_amd64", f"{STEM}_arm64"]
    assert dated_tag.stem(CELL, "devel") == dated_tag.stem(single, "devel", "linux/amd64") == STEM
    assert dated_tag.is_of_platform(f"{STEM}_arm64-20261124.1")
    assert not dated_tag.is_of_platform(f"{STEM}-20261124.1")
    assert not dated_tag.is_of_platform("2.13-cpu-devel")


def test_an_index_is_made_when_every_platform_is_there(registry, joiner):
    """Of what was pushed last of each; the tag is the one that the row's image had when it was one."""
    pushed(registry, "linux/amd64", "old")
    bodies = {"amd64": pushed(registry, "linux/amd64", "one", 2), "arm64": pushed(registry, "linux/arm64")}
    index = joiner.find(CELL, "devel", MADE)
    assert index == joined.index(f"{CELL.id}-devel", **bodies)
    tag = joiner.tag(CELL, "devel", index)
    joiner.put(index, tag, "2.13-cpu-devel")
    assert tag.startswith(f"{STEM}-20")
    assert registry.manifest(REPOSITORY, tag) == registry.manifest(REPOSITORY, "2.13-cpu-devel") == (index.body, oci.INDEX, index.digest)
    assert joiner.tag(CELL, "devel", index) == tag


def test_a_platform_that_was_not_pushed_is_named(registry, joiner):
    """With what to do; no tag of the row has moved."""
    pushed(registry, "linux/amd64")
    with pytest.raises(ImageIndexError, match=r"2\.13-cpu-debian12-devel was not pushed for linux/arm64") as caught:
        joiner.find(CELL, "devel", MADE)
    assert caught.value.fix == "push it from this commit: inv push 2.13-cpu --platform linux/arm64"
    assert registry.tags(REPOSITORY) == (f"{STEM}_amd64-20261124.1",)


def test_what_was_pushed_later_does_not_count_if_that_was_asked_for(registry, joiner):
    """Up to a build, as everywhere."""
    bodies = {platform.rpartition("/")[2]: pushed(registry, platform) for platform in BOTH}
    pushed(registry, "linux/arm64", "two", 2)
    assert joiner.find(CELL, "devel", MADE, until=PushNumber(day="20261124", number=1)) == joined.index(f"{CELL.id}-devel", **bodies)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"org__opencontainers__image__revision": "1" * 40}, "for linux/arm64 was made from 111111111111, and not from 222222222222"),
        ({"org__opencontainers__image__revision": None}, "for linux/arm64 was made from None"),
        ({"torchstrata__cell": "2.13-cpu-debian13"}, r"another image: its torchstrata\.cell is 2\.13-cpu-debian13"),
        ({"torchstrata__flavour": "base"}, r"another image: its torchstrata\.flavour is base, not devel"),
        ({"torchstrata__torch": "2.12.0"}, r"another image: its torchstrata\.torch is 2\.12\.0"),
    ],
)
def test_images_that_do_not_fit_together_are_refused(registry, joiner, labels, says):
    """Yesterday's image of one platform with today's of another, or an image of something else: the one that does not fit is named."""
    pushed(registry, "linux/amd64")
    pushed(registry, "linux/arm64", **labels)
    with pytest.raises(ImageIndexError, match=says):
        joiner.find(CELL, "devel", MADE)


def test_both_may_be_older_than_what_is_checked_out(registry, joiner):
    """Then both must be pushed again; what each is made from need not be the same, since each has locks of its own."""
    for platform in BOTH:
        pushed(registry, platform)
    with pytest.raises(ImageIndexError, match="for linux/amd64 was made from 222222222222, and not from 333333333333"):
        joiner.find(CELL, "devel", dict.fromkeys(BOTH, "3" * 40))
    pushed(registry, "linux/arm64", "two", 2, org__opencontainers__image__revision="1" * 40)
    assert set(joiner.find(CELL, "devel", {**MADE, "linux/arm64": "1" * 40}).digests) == set(BOTH)


def test_an_image_under_another_platforms_tag_is_refused(registry, joiner):
    """It says itself what it is for."""
    body = pushed(registry, "linux/amd64")
    registry.put_manifest(REPOSITORY, f"{STEM}_arm64-20261124.1", body, MANIFEST)
    with pytest.raises(ImageIndexError, match="for linux/arm64 is an image for linux/amd64"):
        joiner.find(CELL, "devel", MADE)


def test_attachments_come_before_tags(registry):
    """A tag never names an index that is not signed yet."""
    seen = []

    def attach(client, repository, index):
        seen.append((client.find(repository, index.digest).digest, client.find(repository, "tag")))

    index = joined.index("x", **{platform.rpartition("/")[2]: pushed(registry, platform) for platform in BOTH})
    Joiner(registry=registry, repository=REPOSITORY, attach=attach).put(index, "tag")
    assert seen == [(index.digest, None)]
    assert registry.find(REPOSITORY, "tag").digest == index.digest


def test_a_dated_tag_never_moves(registry, joiner):
    """Nothing is sent then, neither the index nor another tag."""
    body = pushed(registry, "linux/amd64")
    registry.put_manifest(REPOSITORY, f"{STEM}-20261124.1", body, MANIFEST)
    index = joined.index("x", amd64=body, arm64=pushed(registry, "linux/arm64"))
    with pytest.raises(ImmutableTagError):
        joiner.put(index, f"{STEM}-20261124.1", "other")
    assert registry.find(REPOSITORY, index.digest) is registry.find(REPOSITORY, "other") is None


def test_images_of_an_index_are_what_it_says(registry):
    """Each is fetched and compared."""
    bodies = {platform.rpartition("/")[2]: pushed(registry, platform) for platform in BOTH}
    images = platform_indexes.images(registry, REPOSITORY, at(registry, joined.index("x", **bodies).body), "x")
    assert images == {f"linux/{name}": Manifest(body, MANIFEST, sha256(body)) for name, body in bodies.items()}


def test_a_child_that_is_gone_is_a_platform_that_is_gone(registry):
    """The index is still there, and whole to look at."""
    bodies = {platform.rpartition("/")[2]: pushed(registry, platform) for platform in BOTH}
    index = at(registry, joined.index("x", **bodies).body)
    registry.remove(REPOSITORY, sha256(bodies["arm64"]))
    with pytest.raises(ImageIndexError, match=f"x has no image for linux/arm64 any more: {sha256(bodies['arm64'])} is gone"):
        platform_indexes.images(registry, REPOSITORY, index, "x")


def test_a_foreign_child_is_refused(registry):
    """An image for another platform than the index says: a node would fail to run it."""
    body = pushed(registry, "linux/amd64")
    index = at(registry, joined.index("x", amd64=body, arm64=pushed(registry, "linux/amd64", "two", 2)).body)
    with pytest.raises(ImageIndexError, match="for linux/arm64, and it is for linux/amd64"):
        platform_indexes.images(registry, REPOSITORY, index, "x")


def test_a_child_of_another_size_is_refused(registry):
    """Clients trust sizes before they fetch."""
    body = pushed(registry, "linux/amd64")
    image = image_index.PlatformImage(platform="linux/amd64", digest=sha256(body), size=len(body) + 1)
    with pytest.raises(ImageIndexError, match="as what it is not"):
        platform_indexes.images(registry, REPOSITORY, at(registry, image_index.compose([image])), "x")


def test_a_nested_index_is_refused(registry):
    """Also one that is listed as an image."""
    body = pushed(registry, "linux/amd64")
    inner = at(registry, joined.index("x", amd64=body).body)
    image = image_index.PlatformImage(platform="linux/arm64", digest=inner.digest, size=len(inner.body))
    with pytest.raises(ImageIndexError, match="as what it is not"):
        platform_indexes.images(registry, REPOSITORY, at(registry, image_index.compose([image])), "x")
    nested = canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [{"mediaType": oci.INDEX, "digest": inner.digest, "size": len(inner.body)}]})
    with pytest.raises(ImageIndexError, match="lists another index"):
        platform_indexes.images(registry, REPOSITORY, at(registry, nested), "x")
