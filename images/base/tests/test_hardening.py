"""Locked-down hosts: every restriction that a policy may ask for."""

from __future__ import annotations

import pytest

from tests.images.boxes import LOCKED


@pytest.mark.parametrize("restriction", LOCKED)
def test_command(start, restriction):
    """A command runs."""
    box = start("sh", "-c", "whoami; touch ~/file && echo home", **LOCKED[restriction])
    assert box.ended() == 0
    assert box.container.logs(stderr=False).decode().split() == ["dev", "home"]


def test_nowhere_to_write(start):
    """Without anything that can be written a command still runs, and one line names the cure."""
    box = start("echo", "ran", read_only=True)
    assert box.ended() == 0
    assert b"ran" in box.container.logs(stderr=False)
    assert "/tmp cannot be written: user 1000 has no home (Read-only file system) - add --tmpfs /tmp:exec" in box.errors
