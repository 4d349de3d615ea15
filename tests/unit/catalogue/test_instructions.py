"""What a catalogue offers to start an image with: what works, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import showcase
from tests.endpoints import endpoints
from torchstrata.catalogue import instructions
from torchstrata.containers.launchers import ELSEWHERE, RENDERERS


@pytest.mark.parametrize(
    ("flavour", "place", "lacking"),
    [
        ("jupyter", showcase.PLACE, set()),
        ("jupyter", "", set(ELSEWHERE)),
        ("serve", showcase.PLACE, {"jupyterhub"}),
        ("base", showcase.PLACE, {"jupyterhub"}),
    ],
)
def test_launchers_that_can_start_an_image(flavour, place, lacking):
    """JupyterHub starts JupyterLab; other machines pull. ``inv up`` refuses the same ones."""
    catalogue = showcase.catalogue(1, place=place)
    image = replace(catalogue.images[0], endpoints=endpoints(flavour))
    assert RENDERERS.keys() - instructions.launchers(catalogue, image).keys() == lacking
