"""The doctor in a container with services."""

from __future__ import annotations

import json

from tests.images.boxes import READY


def test_jupyter_is_looked_at(start):
    """The doctor finds Jupyter up."""
    box = start()
    box.wait_for(READY)
    rows = json.loads(box.run("torchstrata-doctor", "--quick", "--json").out)
    assert [row["severity"] for row in rows if row["subject"] == "jupyter"] == ["ok"]
