"""Tags: which never move, and which a channel gives to the images of a cell."""

from __future__ import annotations

from collections import Counter
from itertools import chain, product

import pytest

from tests.desks import dated
from torchstrata.errors import MatrixError
from torchstrata.matrix import matrix
from torchstrata.registry import dated_tag
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.reference import TAG
from torchstrata.release import channels

MATRIX = matrix.load()


def cell(name):
    """Return the one cell of that name."""
    (found,) = matrix.select(MATRIX, name)
    return found


def stable(name):
    """Return the tags of the stable channel for a cell, with their images."""
    return channels.moving(MATRIX, MATRIX.channels["stable"], cell(name))


def test_an_immutable_tag_says_what_the_image_is_and_when_it_was_built():
    """Torch's patch version, CUDA, OS, flavour, day and number."""
    assert dated(cell("2.8-cu121"), "devel") == "2.8.0-cu121-debian13-devel-20261124.1"


def test_the_default_row_of_a_torch_has_an_all_in_one():
    """The other rows, and the same row on another OS, have their flavours only."""
    assert channels.images(MATRIX, cell("2.8-cu121")) == (*MATRIX.flavours, "v2.8")
    assert channels.images(MATRIX, cell("2.8-cu128")) == tuple(MATRIX.flavours)
    assert channels.images(MATRIX, cell("2.8-cu121-debian12")) == tuple(MATRIX.flavours)


def test_the_default_row_has_short_tags_too():
    """What a tag leaves out is the default."""
    found = stable("2.8-cu121")
    assert {tag for tag, image in found.items() if image == "devel"} == {"2.8-cu121-debian13-devel", "2.8-cu121-devel", "2.8-devel"}
    assert {tag for tag, image in found.items() if image == "v2.8"} == {"v2.8"}


def test_another_os_is_always_named():
    """Its images have no shorter tag than the one with the OS."""
    assert sorted(stable("2.8-cu121-debian12")) == sorted(f"2.8-cu121-debian12-{flavour}" for flavour in MATRIX.flavours)


def test_another_row_of_a_torch_names_its_cuda():
    """Only the default row is meant by the torch alone."""
    assert not {"2.8-devel", "v2.8"} & set(stable("2.8-cu128"))
    assert stable("2.8-cu128")["2.8-cu128-devel"] == "devel"


def test_latest_is_the_all_in_one_of_the_newest_torch():
    """Newest by number, so that 2.15 is after 2.8, wherever it stands in the file."""
    owners = [one.id for one in MATRIX.cells if "latest" in channels.moving(MATRIX, MATRIX.channels["stable"], one)]
    assert owners == ["2.15-cu132-debian13"]
    assert stable("2.15-cu132")["latest"] == "v2.15"


def test_nightly_tags_say_so():
    """Nobody gets a nightly image by accident."""
    tags = channels.moving(MATRIX, MATRIX.channels["nightly"], cell("2.8-cu121"))
    assert tags["nightly-2.8-cu121-devel"] == "devel"
    assert all(tag.startswith("nightly-") for tag in tags)


def test_no_tag_means_two_images():
    """Every tag of every channel and cell is a valid tag, and is there once."""
    tags = list(chain.from_iterable(channels.moving(MATRIX, *pair) for pair in product(MATRIX.channels.values(), MATRIX.cells)))
    assert [tag for tag, count in Counter(tags).items() if count > 1] == []
    assert [tag for tag in tags if not TAG.fullmatch(tag)] == []


def test_what_was_pushed_last_is_found_image_by_image():
    """Numbers count as numbers; an image that did not change has kept its older tag; other cells and versions do not count."""
    here, tags = cell("2.8-cu128"), ["latest", dated(cell("2.8-cu121"), "base", day="20261130")]
    for image, builds in {"base": ["20261124.1", "20261124.9", "20261124.10"], "devel": ["20261124.1"], "ssh": ["20261125.1"]}.items():
        tags += [f"{dated_tag.stem(here, image)}-{build}" for build in builds]
    last = {image: tag.rpartition("-")[2] for image, tag in channels.pushed(MATRIX, here, tags).items()}
    assert last == {"base": "20261124.10", "devel": "20261124.1", "ssh": "20261125.1"}
    before = {image: tag.rpartition("-")[2] for image, tag in channels.pushed(MATRIX, here, tags, PushNumber.parse("20261124.9")).items()}
    assert before == {"base": "20261124.9", "devel": "20261124.1"}


def test_new_images_enter_by_one_channel():
    """Stable takes them from there."""
    assert channels.entry(MATRIX).name == "nightly"


def test_an_unknown_channel_is_told_with_those_that_there_are():
    """The name is a matter of matrix.yaml."""
    with pytest.raises(MatrixError, match="unknown channel stabel") as caught:
        MATRIX.channel("stabel")
    assert "nightly, stable" in caught.value.fix


def test_no_channel_is_told_as_such():
    """``inv release.promote`` alone names none, which is no unknown one."""
    with pytest.raises(MatrixError, match="no channel is named"):
        MATRIX.channel("")
