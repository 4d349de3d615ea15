"""The server's variables with a value that they cannot have."""

from __future__ import annotations

import pytest

from tests.images.boxes import refuses

WRONG = {
    "SERVE_PORT": "65536",
    "SERVE_MODEL": "resnet50",
    "SERVE_WORKER": "module:",
    "SERVE_SIZE": "8",
    "SERVE_BATCH": "0",
    "SERVE_WAIT": "-1",
    "SERVE_WORKERS": "two",
    "SERVE_DECODERS": "65",
    "SERVE_TOP": "1001",
}


@pytest.fixture(scope="module")
def box(start_shared):
    """A container in which starts are tried."""
    box = start_shared("sleep", "infinity")
    assert box.has_begun()
    return box


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value(box, name):
    """The start ends with status 78, for a command, too; its one line names the variable and is printable."""
    refuses(box, name, WRONG[name])


@pytest.mark.parametrize("name", ["SERVE_WEIGHTS", "SERVE_LABELS"])
def test_a_file_that_is_not_there(start, name):
    """Nothing is served in its place: one line names it and says what to do, and the container ends."""
    box = start(environment={name: "/models/none"})
    assert box.ended() == 78
    assert f"serve does not start: {name}=/models/none cannot be read: No such file or directory" in box.log
    assert "Traceback" not in box.log
