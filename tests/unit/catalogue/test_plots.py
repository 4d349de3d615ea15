"""Pictures of numbers: in their frame, in proportion, and of all that there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest

from tests import showcase
from torchstrata.catalogue import measurements, plots
from torchstrata.catalogue.exhibits import ShownLayer
from torchstrata.errors import CatalogueError
from torchstrata.matrix.matrix import ROOT

KEPT = {name: (ROOT / "bench/results" / name).read_bytes() for name in measurements.TIMES}


def test_layers_stand_side_by_side_in_proportion():
    """They fill the picture, the larger is the wider, and the smallest can be seen."""
    image = showcase.catalogue(4).images[3]
    strips = plots.strips(image, ())
    assert [strip.layer for strip in strips] == list(image.layers)
    assert strips[-1].left + strips[-1].width == pytest.approx(plots.WIDTH)
    sizes = {strip.layer.size: strip.width for strip in strips}
    assert [sizes[size] for size in sorted(sizes)] == sorted(sizes.values())
    assert min(strip.width for strip in strips) > 1


@pytest.mark.parametrize("sizes", [(), (0, 0), (5,)])
def test_odd_images_have_a_picture(sizes):
    """Without layers, or where an engine tells no sizes."""
    image = replace(showcase.catalogue(1).images[0], layers=tuple(ShownLayer(digest="x", size=size) for size in sizes))
    assert len(plots.strips(image, ())) == len(sizes)


@pytest.mark.parametrize(
    ("title", "origin", "kind"),
    [
        ("CUDA maths", "payload", "cuda"),
        ("cuDNN", "payload", "cuda"),
        ("torch 2.8.0", "payload", "torch"),
        ("bytecode of base", "payload", "bytecode"),
        ("13 wheels of base: numpy 2.4.6", "payload", "wheels"),
        ("debian12: bookworm", "os", "os"),
        ("facts", "facts", "facts"),
    ],
)
def test_a_layer_is_of_a_kind(title, origin, kind):
    """By its origin and its title."""
    assert plots.kind(ShownLayer(digest="x", size=1, title=title, origin=origin), ("CUDA maths", "cuDNN")) == kind


def test_wheels_of_a_layer_are_those_that_it_names():
    """The largest first, with their bytes; names that no wheel has are words."""
    layer = ShownLayer(digest="x", size=1, origin="payload", title="3 wheels of base: numpy 2.4.6, pip 26.3, typing-extensions 4.16.0")
    assert plots.wheels_of(layer, {("numpy", "2.4.6"): 5, ("typing-extensions", "4.16.0"): 9}) == (("typing-extensions", "4.16.0", 9), ("numpy", "2.4.6", 5))


def test_curves_stay_in_their_frame():
    """A line for each flavour, a point for each release."""
    catalogue = showcase.catalogue(72)
    charts = plots.charts(catalogue)
    assert {chart.name for chart in charts} == set(showcase.CELLS)
    for chart in charts:
        points = list(chain.from_iterable(curve.points for curve in chart.curves))
        assert all(0 <= x <= plots.CHART[0] and 0 <= y <= plots.CHART[1] for x, y, _ in points)
        assert len(points) == sum(len(releases) for (cell, _, _), releases in catalogue.series.items() if cell == chart.name)


def test_one_release_is_no_curve():
    """It is told in words."""
    assert plots.charts(showcase.catalogue(5)) == ()


def test_kept_measurements_are_bars():
    """The files of the repository, as their programs have written them."""
    measurements.check(KEPT)
    groups = measurements.times(KEPT)
    bars = list(chain.from_iterable(groups))
    assert [bar.key for bar in bars] == list(chain.from_iterable(measurements.TIMES.values()))
    assert all(0 < bar.width <= 100 for bar in bars)
    assert measurements.missing(KEPT) == ()


def test_what_is_not_measured_is_named():
    """A team that has measured nothing gets a list of what it could."""
    assert measurements.missing({}) == tuple(chain.from_iterable(measurements.TIMES.values()))


@pytest.mark.parametrize("seconds", ["1", '{"command": "fast"}', '{"command": 1, "ssh_banner": {}}', '"x"', "[]"])
def test_a_damaged_file_of_measurements_is_refused(seconds):
    """In words, with its name."""
    with pytest.raises(CatalogueError, match=r"start\.json"):
        measurements.check({"start.json": f'{{"image": "x", "date": "x", "machine": "x", "seconds": {seconds}}}'.encode()})
