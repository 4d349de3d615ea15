"""The command that everyone has seen, word for word."""

from __future__ import annotations

import re
import subprocess
import urllib.request

import pytest

from tests.checkout import Running
from tests.images.boxes import READY, Box, stop
from torchstrata.matrix import matrix

NAME = "torchstrata-all-in-one"


@pytest.fixture(scope="module")
def tag(engine, image, expected):
    """The all-in-one image of the cell, made of the layers of the image under test."""
    name = f"{matrix.load().name}:v{expected.cell.torch}"
    assert engine.images.get(name).attrs["RootFS"]["Layers"] == engine.images.get(image).attrs["RootFS"]["Layers"], f"{name} is of another build than {image}"
    return name


@pytest.fixture(scope="module")
def box(engine, tag, public_key, tmp_path_factory):
    """The container, in a terminal, in an empty directory, with a key."""
    directory = tmp_path_factory.mktemp("empty")
    command = f"docker run -it --name {NAME} -e SSH_PUBLIC_KEY='{public_key}' -p 8888:8888 -p 2222:22 -v ./workspace:/root/workspace {tag}"
    try:
        with Running.start(["script", "-qec", command, "/dev/null"], cwd=directory, stdin=subprocess.PIPE) as running:
            running.wait_for(lambda: READY in running.output, "JupyterLab")
            yield Box(engine.containers.get(NAME)), directory / "workspace"
    finally:
        subprocess.run(["docker", "rm", "-f", NAME], capture_output=True, check=False)


@pytest.mark.named
def test_jupyter_answers_with_the_printed_url(box):
    """The full URL with the token is printed once, and opens JupyterLab on the host's port 8888."""
    container, _ = box
    urls = re.findall(r"http://\S+\?token=\S+", container.log)
    assert len(urls) == 1
    assert urls[0].startswith("http://127.0.0.1:8888/")
    with urllib.request.urlopen(urls[0].replace("/lab?", "/api/status?")) as answer:
        assert answer.status == 200


@pytest.mark.named
def test_ssh_answers_and_files_belong_to_dev(box, start, client, public_key):
    """SSH answers on the host's port 2222; the directory that the engine made, and what is written there, belong to ``dev``."""
    _, workspace = box
    outside = start("sleep", "infinity", network_mode="host", user="root")
    for path in ("/tmp/good",):
        outside.put(path, client.run("cat", path).out.encode(), mode=0o600, owner=0)
    options = ("-i", "/tmp/good", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-p", "2222")
    done = outside.run("ssh", *options, "dev@127.0.0.1", "id -u; touch made; pwd", user="root")
    assert done.out.split() == ["1000", "/home/dev"] or done.out.split() == ["1000", "/workspace"], done.err
    assert outside.run("ssh", *options, "dev@127.0.0.1", "touch /workspace/made", user="root").status == 0
    assert {(workspace / name).stat().st_uid for name in (".", "made", "checkpoints", "logs", "plots", "data")} == {1000}


@pytest.mark.named
def test_nothing_runs_as_root(box):
    """After the start no process is root's."""
    container, _ = box
    rows = [line.split() for line in container.run("ps", "-eo", "uid,pid,ppid", "--no-headers").out.splitlines()]
    inside = {uid for uid, number, parent in rows if parent != "0" or number == "1"}  # what the engine runs in it, such as this ps, is the engine's
    assert inside == {"1000"}


@pytest.mark.named
def test_it_ends(box):
    """``docker stop`` need not kill it."""
    assert stop(box[0]) == 0, box[0].log
