"""Services and a workspace that cannot be written."""

from __future__ import annotations

import pytest

from tests.images.boxes import READY, mounted


@pytest.mark.parametrize(
    ("user", "mode", "said"), [("1000:0", "rw", "sudo chown -R 1000 DIRECTORY, or start with --user root"), ("1234:0", "ro", "is mounted read-only")]
)
def test_workspace_that_cannot_be_written(start, workspace, user, mode, said):
    """One line says why the workspace cannot be written and what cures it; the services work."""
    box = start(user=user, volumes=mounted(workspace, mode=mode))
    assert len([line for line in box.wait_for(READY).splitlines() if said in line]) == 1
