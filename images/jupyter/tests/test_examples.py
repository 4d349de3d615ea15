"""The examples run, on a CPU in their tiny form."""

from __future__ import annotations

import pytest

from tests.images.boxes import ONE_THREAD

EXAMPLES = "/usr/local/share/torchstrata/examples"

LONGEST = "300"
"""Seconds after which training hangs, as it did once at its end (the example says why)."""


@pytest.mark.vision
def test_resnet50(start):
    """ResNet-50 classifies four images; without a network one line says that the weights are left out."""
    done = start("sleep", "infinity", network_mode="none").run("python", f"{EXAMPLES}/resnet50_inference.py", env=ONE_THREAD)
    assert done.status == 0, done.err
    assert "(4, 3, 224, 224)" in done.out
    assert done.out.count("pretrained weights left out") == 1
    assert done.out.count("image ") == 4


PRETRAINED = """
import runpy, sys, torch, torchvision
from pathlib import Path
weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
network = torchvision.models.resnet50(weights=None)
torch.nn.init.constant_(network.fc.bias, -100)
network.fc.bias.data[283] = 100
place = Path(torch.hub.get_dir(), "checkpoints")
place.mkdir(parents=True)
torch.save(network.state_dict(), place / weights.url.rsplit("/", 1)[1])
print(weights.meta["categories"][283])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Puts weights that know one answer where torch.hub keeps what it has downloaded, and runs a program."""


@pytest.mark.vision
def test_resnet50_uses_pretrained_weights(start):
    """Weights that can be had decide the answer, and nothing says that they are left out."""
    done = start("sleep", "infinity", network_mode="none").run("python", "-c", PRETRAINED, f"{EXAMPLES}/resnet50_inference.py", env=ONE_THREAD)
    assert done.status == 0, done.err
    answer = done.out.splitlines()[0]
    assert done.out.count(f": {answer} (100.0%)") == 4
    assert "left out" not in done.out


@pytest.mark.costly
def test_ddp_trains_and_resumes(start):
    """Two processes train together and save checkpoints; a second start goes on from there, with as many processes as it has."""
    box = start("sleep", "infinity", tmpfs={"/workspace": "mode=1777"}, shm_size="1g")
    train = ("timeout", "--kill-after=5", LONGEST, "python", f"{EXAMPLES}/ddp_train.py")
    first = box.run(*train, "--processes", "2", "--epochs", "1", env=ONE_THREAD)
    second = box.run(*train, "--processes", "1", "--epochs", "2", "--recompute", env=ONE_THREAD)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "starting" in first.out
    assert "resuming after epoch 1" in second.out
    assert box.run("test", "-s", "/workspace/checkpoints/ddp.pt").status == 0
