"""The grids: every reason agrees with what the matrix itself refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest

from tests import showcase
from torchstrata.catalogue import grid
from torchstrata.catalogue.strings import Speaker
from torchstrata.errors import MatrixError
from torchstrata.matrix import compat, matrix
from torchstrata.matrix.matrix import MATRIX

TEXT = MATRIX.read_text(encoding="utf-8")
ROWS = [cell for cell in showcase.MATRIX.cells if cell.is_default_os]
SAY = Speaker(language="en")


def refused(short: str, system: str) -> bool:
    """Return whether the matrix takes a row on that OS alone."""
    cell = next(cell for cell in ROWS if cell.short == short)
    serves = f"serves: {cell.cuda}, " if cell.cuda != cell.wheels else ""
    head, _, tail = TEXT.partition("\nrows:\n")
    rest = tail[tail.index("\nstrata:") :]
    row = f'  - {{torch: "{cell.torch}", cuda: {cell.wheels}, {serves}default: true, companions: [], os: [{system}]}}\n'
    try:
        matrix.of(f"{head}\nrows:\n{row}{rest}")
    except MatrixError:
        return True
    return False


@pytest.mark.parametrize("system", showcase.MATRIX.systems)
@pytest.mark.parametrize("row", ROWS, ids=lambda cell: cell.short)
def test_an_os_is_impossible_where_the_matrix_refuses_it(row, system):
    """And only there."""
    reason = grid.obstacle(row, showcase.MATRIX.systems[system])
    assert (reason is not None) == refused(row.short, system)
    if reason:
        assert system in SAY.reason(reason)


def test_every_cell_with_images_is_in_the_grid():
    """With the newest image of each flavour, the worst verdict and the sizes."""
    catalogue = showcase.catalogue(2 * sum(len(showcase.images(showcase.cell_named(name))) for name in showcase.CELLS))
    boxes = {box.name: box for box in chain.from_iterable(line.boxes for line in grid.by_system(catalogue).lines)}
    assert {name for name, box in boxes.items() if box.state == "images"} == set(showcase.CELLS)
    box = boxes["2.13-cpu-debian12"]
    assert [image.image for image in box.images] == [*showcase.MATRIX.flavours, "v2.13"]
    assert box.verdict == "failed"
    assert box.sizes[0] < box.sizes[1]
    assert boxes["2.15-cu132-ubuntu22.04"].reason.key == "why.python"
    assert boxes["2.13-cpu-debian13"].state == "open"
    assert boxes["2.10-cu128-debian13"].state == "unpublished"


def test_images_of_a_cell_that_the_matrix_lost_stay_in_the_grid():
    """A registry keeps what was released of it."""
    catalogue = showcase.catalogue(5)
    lost = replace(catalogue.images[0], labels={**catalogue.images[0].labels, "torchstrata.cell": "2.1-cu118-debian11"})
    lines = {line.name: line for line in grid.by_system(replace(catalogue, images=(lost, *catalogue.images))).lines}
    assert [box.state for box in lines["2.1-cu118"].boxes if box.name.endswith("debian11")] == ["images"]


@pytest.mark.parametrize("line", grid.by_cuda(showcase.MATRIX).lines, ids=lambda line: line.name)
def test_a_cuda_is_impossible_where_upstream_has_no_build(line):
    """Unless the matrix serves it by another one; what is not offered as upstream has it has a reason."""
    own = {cell.short for cell in showcase.MATRIX.cells if cell.cuda == cell.wheels}
    for box in line.boxes:
        variant = box.name.partition("-")[2]
        published = variant in compat.torch(line.name).builds
        offered = any(cell.short == box.name for cell in showcase.MATRIX.cells)
        assert (box.state == "impossible") == (not published and not offered and variant not in compat.torch(line.name).unknown_builds)
        assert (box.reason is None) == (box.name in own)
        if box.state == "impossible":
            assert variant in SAY.reason(box.reason)


def test_a_cell_that_other_wheels_serve_says_so():
    """``2.8-cu121`` has no build of upstream's."""
    boxes = {box.name: box for box in chain.from_iterable(line.boxes for line in grid.by_cuda(showcase.MATRIX).lines)}
    assert boxes["2.8-cu121"].state == "offered"
    assert "cu128" in SAY.reason(boxes["2.8-cu121"].reason)
