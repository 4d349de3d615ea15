"""The example notebook runs, on a CPU in its tiny form. It takes long, so it is a module of its own, beside which others run."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import ONE_THREAD

EXAMPLES = "/usr/local/share/torchstrata/examples"


@pytest.mark.vision
def test_notebook(start):
    """The notebook runs from top to bottom and leaves model, logs and plots, in files and in itself."""
    box = start("sleep", "infinity", tmpfs={"/workspace": "mode=1777"}, shm_size="1g")
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
    done = box.run(*run, env=ONE_THREAD | {"DEFECTS_TINY": "1"})
    assert done.status == 0, done.err[-2000:]
    for path in ("checkpoints/defects.pt", "plots/defects-curves.png", "plots/defects-confusion.png"):
        assert box.run("test", "-s", f"/workspace/{path}").status == 0, path
    assert box.run("sh", "-c", "ls /workspace/logs/defects-*/events*").status == 0
    shown = [output.get("data", {}) for cell in json.loads(box.run("cat", "/workspace/done.ipynb").out)["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) >= 2  # the curves and the confusion matrix
