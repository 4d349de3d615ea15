"""The examples run, on a CPU in their tiny form."""

from __future__ import annotations

import pytest

EXAMPLES = "/usr/local/share/torchstrata/examples"


@pytest.fixture
def box(start):
    """A container with room to train in."""
    return start("sleep", "infinity", tmpfs={"/workspace": "mode=1777"}, shm_size="1g")


@pytest.mark.vision
def test_resnet50(box):
    """ResNet-50 classifies four images; without a network one line says that the weights are left out."""
    done = box.run("python", f"{EXAMPLES}/resnet50_inference.py")
    assert done.status == 0, done.err
    assert "(4, 3, 224, 224)" in done.out
    assert done.out.count("image ") == 4


def test_ddp_trains_and_resumes(box):
    """Two processes train together, save checkpoints, and a second start goes on from there."""
    first = box.run("python", f"{EXAMPLES}/ddp_train.py", "--epochs", "2", "--processes", "2")
    second = box.run("python", f"{EXAMPLES}/ddp_train.py", "--epochs", "3", "--processes", "2", "--recompute")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "starting" in first.out
    assert "resuming after epoch 2" in second.out
    assert box.run("test", "-s", "/workspace/checkpoints/ddp.pt").status == 0


@pytest.mark.vision
def test_notebook_and_its_export(box):
    """The notebook runs from top to bottom, leaves model, logs and plots, and becomes HTML and PDF."""
    run = [
        "jupyter",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--output-dir",
        "/workspace",
        "--output",
        "done.ipynb",
        f"{EXAMPLES}/defect_detection.ipynb",
    ]
    done = box.run(*run, env={"DEFECTS_TINY": "1"})
    assert done.status == 0, done.err[-2000:]
    for path in ("checkpoints/defects.pt", "plots/defects-curves.png", "plots/defects-confusion.png"):
        assert box.run("test", "-s", f"/workspace/{path}").status == 0, path
    assert box.run("sh", "-c", "ls /workspace/logs/defects-*/events*").status == 0
    assert box.run("torchstrata-export", "/workspace/done.ipynb").status == 0
    assert box.run("head", "-c5", "/workspace/done.pdf").out == "%PDF-"
    assert "confusion" in box.run("cat", "/workspace/done.html").out
