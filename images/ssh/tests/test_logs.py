"""The log of a container with services."""

from __future__ import annotations

from tests.images.boxes import READY


def test_logs_have_prefixes(start, public_key):
    """Each service's lines are on standard output with its name."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key})
    box.wait_for(READY)
    lines = box.container.logs(stderr=False).decode().splitlines()
    assert {line.partition(" ")[0] for line in lines} == {"jupyter", "ssh", "torchstrata:"}
