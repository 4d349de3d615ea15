"""The workspace: the one place to mount."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted

NAMES = {"checkpoints", "data", "logs", "plots"}


def test_directories_are_made(start, workspace):
    """The usual directories are made in a mounted workspace."""
    assert start("true", user="1234:0", volumes=mounted(workspace)).ended() == 0
    assert {path.name for path in workspace.iterdir()} == NAMES


def test_nothing_is_baked_below_it(engine, image, start):
    """The image has nothing under /workspace that a mount would hide."""
    box = start(entrypoint=["sh", "-c", "ls -A /workspace | wc -l"])
    box.ended()
    assert box.container.logs(stderr=False).strip() == b"0"


def test_it_is_the_working_directory(start):
    """Commands start in the workspace."""
    box = start("pwd")
    box.ended()
    assert box.container.logs(stderr=False).strip() == b"/workspace"


def test_missing_mount_is_said(start):
    """Without a mount one line says that work will be lost."""
    box = start("true")
    box.ended()
    assert len([line for line in box.errors.splitlines() if "work will be lost" in line]) == 1


def test_mount_is_not_complained_about(start, workspace):
    """With a mount that can be written nothing is said about the workspace."""
    box = start("true", user="root", volumes=mounted(workspace))
    box.ended()
    assert "workspace" not in box.errors


@pytest.mark.parametrize(
    ("user", "mode", "said"), [("1000:0", "rw", "sudo chown -R 1000 DIRECTORY, or start with --user root"), ("1234:0", "ro", "is mounted read-only")]
)
def test_workspace_that_cannot_be_written(start, workspace, user, mode, said):
    """One line says why the workspace cannot be written and what cures it; the command runs."""
    box = start("true", user=user, volumes=mounted(workspace, mode=mode))
    assert box.ended() == 0
    assert len([line for line in box.errors.splitlines() if said in line]) == 1


@pytest.mark.parametrize("target", ["/root/workspace", "/home/dev/workspace"])
def test_mount_at_another_name(start, workspace, target):
    """A mount at a home's ``workspace`` is a mount at /workspace."""
    assert start("touch", "/workspace/seen", user="1234:0", volumes=mounted(workspace, target)).ended() == 0
    assert (workspace / "seen").exists()
