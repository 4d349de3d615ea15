"""Composing a plan's images from their parts: order, facts, names, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os

import pytest
from rich.console import Console

from tests import tars
from tests.parts import CELL, CODEC, MATRIX, os_part, plan
from torchstrata.building.assembly import Builder
from torchstrata.building.plan import Plan
from torchstrata.errors import ComposeError
from torchstrata.image import runtime
from torchstrata.matrix import matrix
from torchstrata.progress import PlainReporter
from torchstrata.store.store import Store

FLAVOURS = MATRIX.with_parents(MATRIX.all_in_one)
CHAIN = MATRIX.lineage("devel")


@pytest.fixture
def builder(tmp_path):
    """Return a builder without an engine, with a store of its own."""
    return Builder(matrix=MATRIX, store=Store(tmp_path / "store"), codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO())))


@pytest.fixture
def composed(builder):
    """Compose all flavours of a cell; each has one OS part."""
    items = [os_part(builder.store, {f"etc/{flavour}": flavour.encode()}, FLAVOURS[: count + 1]) for count, flavour in enumerate(FLAVOURS)]
    return builder.build(plan(*items, flavours=FLAVOURS, per_flavour=1))


def config(one):
    """Return the config of a composed image."""
    return json.loads(one.image.config)


def test_each_flavour_gets_its_name_and_the_last_one_the_short_one_too(composed):
    """The all-in-one of the default row is known as ``v<torch>`` as well."""
    names = [f"{MATRIX.name}:{CELL.short}-{flavour}" for flavour in FLAVOURS]
    assert [one.tags for one in composed] == [*((name,) for name in names), (f"{MATRIX.name}:v{CELL.torch}",)]


def test_another_platform_takes_no_name_of_this_one(builder):
    """Its images are told by the end of their names, by their config, and by a label that those of the default platform do not have."""
    items = [os_part(builder.store, {f"etc/{flavour}": flavour.encode()}, FLAVOURS[: count + 1]) for count, flavour in enumerate(FLAVOURS)]
    there = dataclasses.replace(CELL, platforms=("linux/amd64", "linux/arm64")).on("linux/arm64")
    given = plan(*items, flavours=FLAVOURS, per_flavour=1)
    composed = builder.build(Plan(images=tuple(dataclasses.replace(image, cell=there) for image in given.images)))
    names = [f"{MATRIX.name}:{CELL.short}-{flavour}-arm64" for flavour in FLAVOURS]
    assert [one.tags for one in composed] == [*((name,) for name in names), (f"{MATRIX.name}:v{CELL.torch}-arm64",)]
    assert {config(one)["architecture"] for one in composed} == {"arm64"}
    assert {config(one)["config"]["Labels"]["torchstrata.platform"] for one in composed} == {"linux/arm64"}
    assert {one.loadable.platform for one in composed} == {"linux/arm64"}


def test_the_default_platform_has_no_label(composed):
    """So that its images stay what they were."""
    assert not any("torchstrata.platform" in config(one)["config"]["Labels"] for one in composed)


def test_the_named_variant_has_the_same_layers_and_starts_as_root(composed):
    """``v2.8`` costs a config; its entrypoint drops root."""
    *_, last, named = composed
    assert named.image.layers == last.image.layers
    assert (config(last)["config"]["User"], config(named)["config"]["User"]) == (runtime.DEV, runtime.ROOT)
    assert named.image.digest != last.image.digest


def test_facts_are_the_top_layer_and_the_only_one_of_an_image_alone(composed):
    """Below it each image is a prefix of its child."""
    for one, child in itertools.pairwise(composed[:4]):
        assert one.image.layers[-1].title == "facts"
        assert one.image.layers[:-1] == child.image.layers[: len(one.image.layers) - 1]
    assert len({one.image.layers[-1].digest for one in composed[:4]}) == 4


def test_facts_layer_holds_what_the_runtime_tells(builder, composed):
    """The files are those of the runtime's description, owned by root, readable for all."""
    layer = composed[0].image.layers[-1]
    with tars.opened(builder.store, layer) as archive:
        files = {member.name: (member.uid, member.mode, json.load(archive.extractfile(member))) for member in archive if member.name.endswith(".json")}
    others = runtime.alternatives(builder.matrix, composed[0].plan.cell)
    told = {"labels": config(composed[0])["config"]["Labels"], "packages": {}, "alternatives": others}
    assert files == {f"{runtime.ETC}/image.json": (0, 0o644, told)}


def test_directories_of_the_library_path_are_root_s(builder):
    """With CUDA the facts layer gives them to root, with all above them, and leaves what is in them."""
    of_root = runtime.directories(matrix.select(MATRIX, "2.8-cu121")[0])
    layer = builder._facts({f"{runtime.ETC}/image.json": "{}"}, of_root).layers[0]
    with tars.opened(builder.store, layer) as archive:
        found = [(member.name, member.uid, member.gid, member.mode) for member in archive if member.name.startswith("opt")]
    assert found == [("opt", 0, 0, 0o755), ("opt/cuda", 0, 0, 0o755), ("opt/cuda/lib", 0, 0, 0o755)]
    assert runtime.directories(matrix.select(MATRIX, "2.13-cpu")[0]) == ()


def test_a_drifted_image_says_so(builder):
    """In its label and in its facts, from what the part of its own flavour notes; its parent, which is as locked, says nothing."""
    below = os_part(builder.store, {"etc/base": b"x"})
    above = os_part(builder.store, {"etc/devel": b"x"}, FLAVOURS[:2])
    above = dataclasses.replace(above, part=dataclasses.replace(above.part, notes={"drift": "git 1 -> 2, less (not locked) -> 3"}))
    base, devel = builder.build(plan(below, above, flavours=FLAVOURS[:2], per_flavour=1))[:2]
    assert (base.drift, config(base)["config"]["Labels"].get(runtime.DRIFT)) == ((), None)
    assert config(devel)["config"]["Labels"][runtime.DRIFT] == "git 1 -> 2, less (not locked) -> 3"
    told = runtime.files(runtime.describe(CELL, CHAIN, devel.plan.lock, "x", drift=devel.drift), devel.plan.lock, [], CHAIN, devel.drift)
    assert json.loads(told[f"{runtime.ETC}/image.json"])["drift"] == [
        {"package": "git", "locked": "1", "found": "2"},
        {"package": "less", "locked": None, "found": "3"},
    ]
    plain = runtime.files(runtime.describe(CELL, CHAIN, devel.plan.lock, "x"), devel.plan.lock, [], CHAIN)
    assert "drift" not in plain[f"{runtime.ETC}/image.json"]


def test_composing_twice_gives_the_same_bytes(builder, composed):
    """The second build finds the facts layer in the store as well."""
    items = [image.plan.items[-1] for image in composed[:4]]
    again = builder.build(plan(*items, flavours=FLAVOURS, per_flavour=1))
    assert [one.image for one in again] == [one.image for one in composed]


def test_a_row_that_is_not_the_default_has_no_short_name(builder):
    """Only one cell of a torch can be ``v<torch>``."""
    item = os_part(builder.store, {"etc/x": b"x"})
    other = next(cell for cell in MATRIX.cells if cell.torch == CELL.torch and not cell.named)
    whole = dataclasses.replace(plan(item).images[0], lineage=FLAVOURS, cell=other)
    made = list(builder.assemble(whole, {item.identity: item.part}, "unknown"))
    assert [one.tags for one in made] == [(f"{MATRIX.name}:{other.names[0]}-ssh",)]


def test_an_os_part_that_hides_the_payload_is_refused(builder):
    """Composition checks the listings of the very layers."""
    with pytest.raises(ComposeError, match="belongs to the payload"):
        builder.build(plan(os_part(builder.store, {"opt/venv/bin/python": b""})))


def test_a_build_marks_its_parts_as_used(builder, composed):
    """Pruning takes last what was used last, also where nothing was made."""
    used = {item.identity for item in itertools.chain.from_iterable(one.plan.items for one in composed)}
    paths = [builder.store.root / "parts" / f"{identity}.json" for identity in used]
    for path in paths:
        os.utime(path, (1, 1))
    builder.build(Plan(images=tuple(one.plan for one in composed)))
    assert all(path.stat().st_mtime > 1 for path in paths)
