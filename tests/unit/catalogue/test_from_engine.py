"""Which images of an engine a catalogue shows."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest

from torchstrata.catalogue.from_engine import EngineReader

OURS = {"CreatedBy": "torchstrata facts"}


@pytest.mark.parametrize(
    ("history", "is_ours"), [([OURS], True), ([{"CreatedBy": "USER 1000:0"}, OURS], False), ([{"CreatedBy": ""}, OURS], False), ([], False)]
)
def test_images_that_somebody_has_derived(history, is_ours):
    """They have our labels, but are not what those say; ``docker commit`` names no command."""
    api = SimpleNamespace(history=lambda identity: history)
    reader = EngineReader(matrix=None, store=None, now=dt.datetime.now(dt.UTC), engine=SimpleNamespace(client=SimpleNamespace(api=api)))
    assert reader._is_composed("sha256:a") is is_ours
