"""Plans over the committed matrix and locks: what a build would reuse and make, with an empty store and with a full one."""

from __future__ import annotations

import dataclasses
import io
import json
from itertools import chain

import pytest
from msgspec import structs
from rich.console import Console

from torchstrata.building import plan
from torchstrata.building.plan import Bytecode, OsPart, Planner
from torchstrata.errors import LockError, MatrixError
from torchstrata.layers import toolchain_lock
from torchstrata.layers.strata import Stratum
from torchstrata.layers.toolchain_lock import Toolchain
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.matrix import matrix
from torchstrata.store.codec import Codec
from torchstrata.store.part import Part
from torchstrata.store.store import Store

MATRIX = matrix.load()
FLAVOURS = tuple(MATRIX.flavours)


@pytest.fixture
def planner(tmp_path):
    """Plan with a store that nobody has written to."""
    return Planner(matrix=MATRIX, store=Store(tmp_path / "store"), codec=Codec())


def plan_of(planner, short, *flavours):
    """Plan one cell."""
    return planner.plan(matrix.select(MATRIX, short), flavours or FLAVOURS)


def fill(store, item, **notes):
    """Put a layer into the store as the part of ``item``."""
    with store.layer(item.title, Codec()) as writer:
        writer.directory("opt")
    store.remember(item.identity, Part(layers=(writer.layer,), notes=notes))
    return writer.layer


def _identity(item):
    return item.identity


def cuda(image):
    """Return the CUDA items of an image."""
    return [item for item in image.items if isinstance(item.source, Stratum) and item.source.kind == "cuda"]


@pytest.fixture
def same_packages(monkeypatch):
    """Let another platform have the OS packages that the default one has, as far as these are locked."""
    read = os_locks.read
    monkeypatch.setattr(os_locks, "read", lambda system, root=matrix.ROOT: read(structs.replace(system, platform="linux/amd64"), root))


@pytest.mark.usefixtures("same_packages")
def test_another_platform_shares_what_is_the_same(planner):
    """The empty environment is one part for both platforms; wheels, OS parts and stubs are not; images have names of their own here."""
    (cell,) = matrix.select(MATRIX, "2.15-cu132")
    here, there = (planner.plan([each], FLAVOURS) for each in (cell, cell.on("linux/arm64")))
    shared = {item.title for item in here.items()} & {item.title for item in there.items() if item.identity in set(map(_identity, here.items()))}
    assert {"Python 3.13 environment"} == {title for title in shared if "debian13" not in title}
    assert [image.shown for image in there.images] == [f"{image.name}-arm64" for image in here.images]
    assert [item.title for item in there.images[-1].items] != [item.title for item in here.images[-1].items]


@pytest.mark.usefixtures("same_packages")
def test_the_native_python_compiles(planner):
    """Bytecode for another platform is compiled by the default one's Python of the same version; its OS part is made, and is in no image."""
    (cell,) = matrix.select_on(MATRIX, "linux/arm64", "2.15-cu132")
    found = planner.plan([cell], ("base",))
    (image,) = found.images
    (tool,) = image.tools
    (compiled,) = (item.source for item in image.items if isinstance(item.source, Bytecode))
    assert (tool.title, tool.identity) == ("debian13 base", compiled.base)
    assert tool in found.missing()
    assert tool not in image.items
    for item in image.items:
        if isinstance(item.source, Bytecode):
            fill(planner.store, item)
    assert planner.plan([cell], ("base",)).images[0].tools == ()


@pytest.mark.usefixtures("same_packages")
def test_bytecode_that_is_found_needs_no_compiler(planner):
    """Where a registry has the bytecode, the Python that would compile it is not made."""
    (cell,) = matrix.select_on(MATRIX, "linux/arm64", "2.15-cu132")
    planned = planner.plan([cell], ("base",))
    (image,) = planned.images
    part = Part(layers=(fill(planner.store, image.items[0]),), notes={})
    assert planned.filled({image.items[0].identity: part}).images[0].tools == image.tools
    found = {item.identity: part for item in image.items if isinstance(item.source, Bytecode)}
    assert planned.filled(found).images[0].tools == ()


def test_another_python_compiles_its_own(planner, monkeypatch):
    """Where the platforms have different versions of Python, the bytecode is the emulated one's."""
    (cell,) = matrix.select_on(MATRIX, "linux/arm64", "2.15-cu132")
    read = os_locks.read
    monkeypatch.setattr(os_locks, "read", lambda system, root=matrix.ROOT: read(structs.replace(system, platform="linux/amd64"), root))
    monkeypatch.setattr(os_locks, "python_version", lambda system, *_: "3.13.5" if system.platform == "linux/amd64" else "3.13.6")
    (image,) = planner.plan([cell], ("base",)).images
    assert image.tools == ()
    assert [item.source.system for item in image.items if isinstance(item.source, Bytecode)] == [cell.os]


def test_a_plan_writes_nothing(planner):
    """Who only asks leaves no trace, not even a directory."""
    plan_of(planner, "2.8-cu121")
    assert not planner.store.root.exists()


def test_each_image_begins_with_the_layers_of_its_parent(planner):
    """An engine that has ``base`` needs of ``devel`` only what it adds, for every cell that is locked."""
    for cell in MATRIX.cells:
        if not cell.os.bootstrap or wheel_locks.missing(cell, FLAVOURS):
            continue
        images = planner.plan([cell], FLAVOURS).images
        assert [image.flavour for image in images] == list(FLAVOURS)
        made = {image.flavour: image for image in images}
        for child in (image for image in images if MATRIX.flavours[image.flavour].parent and image.flavour != MATRIX.all_in_one):
            parent = made[MATRIX.flavours[child.flavour].parent]
            assert child.items[: len(parent.items)] == parent.items
            assert len(child.items) > len(parent.items)


def test_the_all_in_one_image_has_all_payload_below_all_os_parts(planner):
    """A fix in an OS part moves no wheel of it. It has what its parent has, and its own."""
    made = {image.flavour: image for image in plan_of(planner, "2.8-cu121").images}
    image, parent = made[MATRIX.all_in_one], made[MATRIX.flavours[MATRIX.all_in_one].parent]
    origins = [item.origin for item in image.items]
    assert origins == sorted(origins, key=("payload", "os").index)
    assert [item for item in image.items if item in parent.items and item.origin == "os"] == [item for item in parent.items if item.origin == "os"]
    assert set(map(_identity, parent.items)) < set(map(_identity, image.items))


def test_cuda_lies_lowest_and_each_flavour_ends_with_its_os_part(planner):
    """The payload comes first: CUDA, then what belongs to a Python, then what that Python compiled, then the OS."""
    kinds = [type(item.source) for item in plan_of(planner, "2.8-cu121", "base").images[0].items]
    assert kinds == [Stratum] * (len(kinds) - 2) + [Bytecode, OsPart]
    for image in plan_of(planner, "2.8-cu121").images:
        assert list(image.items[: len(cuda(image))]) == cuda(image)
        assert [item.source.lineage[-1] for item in image.items if item.origin == "os"] == list(MATRIX.with_parents(image.flavour))


def test_cuda_is_shared_by_cells_and_systems(planner):
    """2.8-cu121 and 2.8-cu128, on debian13 and debian12, have the very same CUDA items."""
    cells = ("2.8-cu121-debian13", "2.8-cu121-debian12", "2.8-cu128-debian13", "2.8-cu128-debian12")
    plans = [plan_of(planner, cell, "base") for cell in cells]
    found = {tuple(item.identity for item in cuda(one.images[0])) for one in plans}
    assert len(found) == 1
    assert all(found)


def test_cells_of_the_same_wheels_differ_in_nothing_but_facts(planner):
    """What 2.8-cu121 is served by is 2.8-cu128: no part is made twice."""
    assert plan_of(planner, "2.8-cu121").items() == plan_of(planner, "2.8-cu128").items()


def test_an_empty_store_lacks_everything(planner):
    """All wheels of the lock are to be fetched, each once, and the compiler's."""
    found = plan_of(planner, "2.8-cu121")
    assert found.missing() == found.items()
    (cell,) = matrix.select(MATRIX, "2.8-cu121")
    wheels = set(chain.from_iterable(wheel_locks.read(cell, flavour).pins for flavour in FLAVOURS))
    assert sum(item.fetch for item in found.missing()) == sum(pin.size for pin in wheels) + sum(
        pin.size for pin in toolchain_lock.read(cell.facts.nvcc.toolchain).pins
    )


@pytest.mark.parametrize(("short", "names"), [("2.8-cu121", ["cuda-12.4"]), ("2.15-cu132", ["cuda-13"]), ("2.14-cu130", ["cuda-13"]), ("2.13-cpu", [])])
def test_each_cuda_family_has_its_toolchain(planner, short, names):
    """CUDA 12's brings the compiler, CUDA 13's what its wheels lack, and a CPU cell has none."""
    assert [item.source.name for item in plan_of(planner, short).items() if isinstance(item.source, Toolchain)] == names


def test_what_the_store_holds_is_reused(planner):
    """An item that is there is not fetched, and the plan names its layers."""
    item = cuda(plan_of(planner, "2.8-cu121").images[0])[0]
    layer = fill(planner.store, item)
    again = plan_of(planner, "2.8-cu121")
    assert [one.title for one in again.items() if one.part] == [item.title]
    (entry,) = (entry for entry in plan.document(again) if entry["reuse"])
    assert entry["layers"] == [{"digest": layer.digest, "size": layer.size, "title": layer.title}]
    assert entry["fetch"] == 0


@pytest.mark.parametrize(
    ("base", "devel", "counts"),
    [
        ({}, {}, True),
        (None, {}, False),
        ({"drift": "git 1 -> 2"}, {}, False),
        ({"drift": "git 1 -> 2"}, {"drift": "git 1 -> 2"}, True),
        ({"drift": "git 1 -> 2"}, {"drift": "git 1 -> 2", "over": "the layer"}, True),
        ({"drift": "git 1 -> 2"}, {"drift": "git 1 -> 2", "over": "another"}, False),
        ({"drift": "git 1 -> 2"}, {"over": "the layer"}, True),
        ({}, {"drift": "git 1 -> 2", "over": "another"}, False),
    ],
)
def test_an_os_part_counts_over_what_it_was_made_over_alone(planner, base, devel, counts):
    """Were the lower one made again with other packages, the image would hold files that no package list tells of."""
    items = {item.source.lineage[-1]: item for item in plan_of(planner, "2.13-cpu", "devel").items() if item.origin == "os"}
    if base is not None:
        layer = fill(planner.store, items["base"], **base)
        devel = {name: layer.diff_id if value == "the layer" else value for name, value in devel.items()}
    fill(planner.store, items["devel"], **devel)
    assert (items["devel"].title not in [one.title for one in plan_of(planner, "2.13-cpu", "devel").missing()]) == counts


def test_a_drifted_os_part_does_not_count_if_only_locked_will_do(planner):
    """A part of other versions than the lock's is reused, unless ``--locked`` was asked for."""
    item = next(item for item in plan_of(planner, "2.13-cpu").items() if item.origin == "os")
    fill(planner.store, item, drift="git 1 -> 2")
    assert item.title not in [one.title for one in plan_of(planner, "2.13-cpu").missing()]
    strict = dataclasses.replace(planner, locked=True)
    assert item.title in [one.title for one in plan_of(strict, "2.13-cpu").missing()]


def test_another_codec_reuses_nothing(planner):
    """Layers compressed otherwise have other digests, so that they are other parts."""
    other = dataclasses.replace(planner, codec=Codec(name="gzip", level=6))
    assert not {item.identity for item in plan_of(planner, "2.13-cpu").items()} & {item.identity for item in plan_of(other, "2.13-cpu").items()}


def test_a_flavour_brings_its_parents(planner):
    """Whoever asks for ``jupyter`` gets what it is built on, in order, and nothing above."""
    assert [image.flavour for image in plan_of(planner, "2.13-cpu", "jupyter").images] == ["base", "devel", "jupyter"]
    assert [image.name for image in plan_of(planner, "2.13-cpu", "base").images] == ["2.13-cpu-debian12-base"]


def test_an_unknown_flavour_is_refused(planner):
    """The error names those that there are."""
    with pytest.raises(MatrixError, match="unknown flavour nope") as caught:
        plan_of(planner, "2.13-cpu", "nope")
    assert "base, devel, jupyter, ssh" in caught.value.fix


def test_a_cell_that_nobody_has_locked_is_refused(planner, monkeypatch):
    """The error says whose index has its wheels; a plan locks nothing."""
    monkeypatch.setattr(wheel_locks, "path_of", lambda cell, flavour: f"nowhere/{cell.build}/{flavour}.lock")
    with pytest.raises(LockError, match="PyTorch's own index"):
        plan_of(planner, "2.8-cu126")


def test_locks_of_which_the_parents_are_newer_are_refused(planner, monkeypatch):
    """As a kill between two files leaves them: images would have two versions of a package. The error says what ends it."""
    known = wheel_locks.read

    def older(cell, flavour):
        lock = known(cell, flavour)
        return dataclasses.replace(lock, pins=lock.pins[1:]) if flavour == "devel" else lock

    monkeypatch.setattr(wheel_locks, "read", older)
    with pytest.raises(LockError, match=r"devel\.lock does not contain .* of its parent") as caught:
        plan_of(planner, "2.13-cpu")
    assert caught.value.fix == "run: inv lock 2.13-cpu"


def test_table_and_document_show_every_item_once(planner):
    """Both have one row for each run of layers, under the first image that needs it; the document is plain JSON."""
    found = plan_of(planner, "2.8-cu121")
    document = plan.document(found)
    assert [entry["identity"] for entry in document] == [item.identity for item in found.items()]
    assert json.loads(json.dumps(document)) == document
    assert plan.table(found).row_count == len(document)


def test_the_table_says_reuse_or_make(planner):
    """A row has the size that is reused, or says that it is made and what is to be fetched for it."""
    item = cuda(plan_of(planner, "2.8-cu121").images[0])[0]
    fill(planner.store, item)
    out = io.StringIO()
    Console(file=out, width=200).print(plan.table(plan_of(planner, "2.8-cu121", "base")))
    rows = {line.split("  ")[1].strip(): line for line in out.getvalue().splitlines()}
    assert "yes" not in next(line for title, line in rows.items() if title == item.title)
    assert sum("yes" in line for line in rows.values()) == len(rows) - 2
