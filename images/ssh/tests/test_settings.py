"""Variables of SSH with a value that they cannot have."""

from __future__ import annotations

import pytest

from tests.images.boxes import refuses

WRONG = {"SSH_PORT": "22\x1b[2J", "SSH_POST_QUANTUM_ONLY": "perhaps"}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value(start, name):
    """The start ends with status 78, for a command, too; its one line names the variable, and is printable."""
    box = start("sleep", "infinity")
    assert box.has_begun()
    refuses(box, name, WRONG[name])
