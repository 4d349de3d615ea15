"""Who services run as."""

from __future__ import annotations

from tests.images.boxes import READY, mounted


def test_root_adopts_the_owner_of_the_workspace(start, workspace):
    """Started as root, services run as the owner of the mounted directory, no root process is left, files are the owner's."""
    box = start(user="root", volumes=mounted(workspace, "/root/workspace"))
    box.wait_for(READY)
    rows = [line.split()[:3] for line in box.run("ps", "-eo", "uid,ppid,pid", "--no-headers").out.splitlines()]
    assert {uid for uid, parent, process in rows if parent != "0" or process == "1"} == {"1234"}  # what the engine runs in it, such as the probe, is its own
    assert {(workspace / name).stat().st_uid for name in ("checkpoints", "logs", "plots", "data")} == {1234}
