"""The inference server: up without Jupyter, healthy, measured, and it answers with what its variables name."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import ONE_THREAD, PROBED, mounted, stop
from tests.waiting import PATIENCE

PATIENT = ONE_THREAD | {"MOSEC_TIMEOUT": f"{1000 * PATIENCE:.0f}"}
"""For what answers about a network: on an emulated CPU twenty pictures take more than the 30 s that are usual."""

SERVED = "the server is ready"
URL = "http://127.0.0.1:8000"

DRAW = """
import sys
from PIL import Image
Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(sys.argv[1])
"""

MODULE = """
import torch
from mosec import Worker
from torch import nn

def bright():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.constant_(network[2].weight, 0)
    nn.init.constant_(network[2].bias, 0)
    return network

class Length(Worker):
    def deserialize(self, data):
        return data

    def forward(self, data):
        return [{"bytes": len(each)} for each in data]
"""

WEIGHTS = """
import sys
sys.path.insert(0, "/usr/local/lib/torchstrata")
import importlib.util, torch
from serving import model, settings
network = model.imported(settings.OF_TORCHVISION if importlib.util.find_spec("torchvision") else settings.OWN)()
torch.nn.init.constant_(network.fc.bias, -100)
network.fc.bias.data[283] = 100
torch.save(network.state_dict(), "/workspace/resnet50.pth")
"""
"""Weights of ResNet-50 that know one answer."""

SAME = """
import sys
sys.path.insert(0, "/usr/local/lib/torchstrata")
import torch, torchvision
from serving import resnet
theirs, own = torchvision.models.resnet50().eval(), resnet.resnet50().eval()
own.load_state_dict(theirs.state_dict())
pictures = torch.rand(1, 3, 64, 64)
print(torch.allclose(theirs(pictures), own(pictures), atol=1e-4))
"""

TOGETHER = """
import concurrent.futures, json, sys, urllib.error, urllib.request
good = open("/tmp/good.jpg", "rb").read()
def ask(body):
    try:
        return urllib.request.urlopen(urllib.request.Request(sys.argv[1], body), timeout=120).status
    except urllib.error.HTTPError as error:
        return error.code
bodies = [b"no picture" if number % 5 == 0 else good for number in range(20)]
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    print(json.dumps(list(pool.map(ask, bodies))))
"""


@pytest.fixture(scope="module")
def served(start_shared):
    """A container with the server as it is by default, which answers, and a picture."""
    box = start_shared(environment=PATIENT, **PROBED)
    box.wait_for(SERVED)
    assert box.run("python", "-c", DRAW, "/tmp/good.jpg").status == 0
    return box


@pytest.fixture
def workspace(tmp_path):
    """A directory to mount, with a module of a network and of a worker."""
    tmp_path.chmod(0o777)
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def ask(box, picture="/tmp/good.jpg"):
    """Return status and answer of a request."""
    done = box.run("curl", "-s", "-w", "\n%{http_code}", "--data-binary", f"@{picture}", f"{URL}/predict")
    text, _, status = done.out.rpartition("\n")
    return int(status), text


def counted(box):
    """Return how many answers the metrics count, by status."""
    lines = box.run("curl", "-s", f"{URL}/metrics").out.splitlines()
    rows = [line.split() for line in lines if line.startswith("mosec_service_throughput_total{")]
    return {labels.split('code="')[1].split('"')[0]: int(value) for labels, value in rows}


def test_health(served):
    """It is healthy for the engine, the probe and the doctor, and its port opens once it can answer."""
    assert served.is_healthy()
    assert served.run("torchstrata-health").out == "serve: up\n"
    assert "answers on port 8000" in served.run("torchstrata-doctor", "--quick").out


def test_nothing_but_the_server(served):
    """Neither Jupyter nor SSH runs, and nobody else's port is open."""
    commands = served.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
    assert "serving/__main__.py" in commands
    assert "jupyter" not in commands
    assert "sshd" not in commands


def test_answer(served):
    """A picture gets its five best classes, the best first."""
    status, text = ask(served)
    classes = json.loads(text)["classes"]
    values = [each["probability"] for each in classes]
    assert (status, len(classes)) == (200, 5)
    assert values == sorted(values, reverse=True)
    assert 0 < sum(values) <= 1


def test_random_weights_are_said(served):
    """Where no weights can be had, one line says so and how to give some."""
    lines = [line for line in served.log.splitlines() if "answers are random" in line]
    assert len(lines) <= 1
    assert bool(lines) != served.run("sh", "-c", "ls /home/dev/.cache/torch/hub/checkpoints/resnet50*").out.startswith("/")
    assert all("SERVE_WEIGHTS" in line for line in lines)


def test_a_broken_picture_harms_no_other(served):
    """Of requests at one time, those with a picture are answered, the others get status 400."""
    done = served.run("python", "-c", TOGETHER, f"{URL}/predict")
    assert json.loads(done.out) == [400 if number % 5 == 0 else 200 for number in range(20)]


@pytest.mark.parametrize("body", ["GIF89a", "%!PS-Adobe"])
def test_no_picture(served, body):
    """What is no picture gets status 400 and a reason."""
    served.put("/tmp/none", body.encode())
    status, text = ask(served, "/tmp/none")
    assert status == 400
    assert "not a picture" in text


def test_metrics(served):
    """Prometheus gets the number of answers by status, which grows with each."""
    before = counted(served)
    assert ask(served)[0] == 200
    assert counted(served)["200"] == before.get("200", 0) + 1


def test_weights_and_labels_decide(start, workspace):
    """ResNet-50 answers by the file of weights that was mounted, in the words of the file of labels."""
    maker = start("sleep", "infinity", volumes=mounted(workspace))
    assert maker.run("python", "-c", WEIGHTS).status == 0
    (workspace / "labels.txt").write_text("".join(f"class {number}\n" for number in range(1000)))
    box = start(volumes=mounted(workspace), environment=PATIENT | {"SERVE_WEIGHTS": "/workspace/resnet50.pth", "SERVE_LABELS": "/workspace/labels.txt"})
    assert "answers are random" not in box.wait_for(SERVED)
    box.run("python", "-c", DRAW, "/tmp/good.jpg")
    best = json.loads(ask(box)[1])["classes"][0]
    assert (best["index"], best["label"]) == (283, "class 283")
    assert best["probability"] > 0.99


def test_own_network(start, workspace):
    """A network of a mounted module is served by its name alone, on another port."""
    box = start(volumes=mounted(workspace), environment=PATIENT | {"SERVE_MODEL": "mine:bright", "SERVE_PORT": "8080", "SERVE_TOP": "2"})
    assert "http://127.0.0.1:8080/predict" in box.wait_for(SERVED)
    box.run("python", "-c", DRAW, "/tmp/good.jpg")
    done = box.run("curl", "-s", "--data-binary", "@/tmp/good.jpg", "http://127.0.0.1:8080/predict")
    assert [each["probability"] for each in json.loads(done.out)["classes"]] == [0.5, 0.5]


def test_own_worker(start, workspace):
    """A worker of a mounted module takes the place of the network: bodies and answers are its own."""
    box = start(volumes=mounted(workspace), environment=PATIENT | {"SERVE_WORKER": "mine:Length"})
    box.wait_for(SERVED)
    box.put("/tmp/words", b"seven!!")
    assert json.loads(ask(box, "/tmp/words")[1]) == {"bytes": 7}


def test_network_that_cannot_be_loaded(start):
    """The log says why in one line, and the container is not healthy."""
    box = start(environment=PATIENT | {"SERVE_MODEL": "nowhere:network"})
    assert "nowhere:network cannot be loaded: ModuleNotFoundError" in box.wait_for("it starts again in")
    assert box.run("torchstrata-health").status == 1
    assert "Traceback" not in box.log


def test_stop(start, workspace):
    """A stop is no kill, and leaves nothing running."""
    box = start(volumes=mounted(workspace), environment=PATIENT | {"SERVE_MODEL": "mine:bright"})
    box.wait_for(SERVED)
    assert stop(box) == 0


@pytest.mark.vision
def test_same_network(shared):
    """The network of images without torchvision takes torchvision's weights and gives its answers."""
    done = shared.run("python", "-c", SAME, env=PATIENT)
    assert (done.status, done.out) == (0, "True\n"), done.err
