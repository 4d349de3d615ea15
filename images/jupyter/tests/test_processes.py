"""Supervision, stopping and memory of services."""

from __future__ import annotations

import subprocess
import threading
import uuid

import pytest

from tests.checkout import Running
from tests.images.boxes import READY, mounted, stop
from tests.waiting import until

TOKEN = "t0ken"


def busy(box, notebook, code, before=""):
    """Let a kernel run ``before`` and then ``code``; return once it comes to that."""
    code, answers = f"{before}\nopen('/tmp/started', 'w').close()\n{code}", []
    threading.Thread(target=lambda: answers.append(notebook(box, TOKEN, "kernel", code)), daemon=True).start()
    until(
        lambda: box.run("test", "-e", "/tmp/started").status == 0,
        "a kernel",
        alive=lambda: box.alive and not answers,
        state=lambda: f"{answers}\n{box.log}",
    )


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        pytest.param("", marks=pytest.mark.costly),
        pytest.param("import time; time.sleep(100000)", marks=pytest.mark.costly),
    ],
)
def test_services_stop(start, notebook, code):
    """Services end by themselves, with a kernel that is busy, too, and with status 0."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN})
    box.wait_for(READY)
    if code:
        busy(box, notebook, code)
    assert stop(box) == 0, box.log


SAVE = """
import signal, sys
def save(*_):
    open('/workspace/saved', 'w').write('yes')
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""


def test_kernels_get_sigterm(start, notebook, workspace):
    """A kernel can save its work when the container is stopped."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, user="1234:0", volumes=mounted(workspace))
    box.wait_for(READY)
    busy(box, notebook, "while True: pass", SAVE)
    assert stop(box) == 0, box.log
    assert (workspace / "saved").exists()


def test_crashed_service_is_restarted(start):
    """A service that dies is started again, and the log says so; the token is printed once."""
    box = start()
    box.wait_for(READY)
    box.run("pkill", "-9", "-f", "jupyter-lab")
    box.wait_for("jupyter was ended by signal 9; it starts again in 1 s")
    box.until(lambda: box.run("torchstrata-health").status == 0, "health")
    assert box.log.count(box.token) == 1


def test_terminal_and_ctrl_c(image):
    """With a terminal the log goes there, and Ctrl-C stops the container."""
    name = f"ctrl-c-{uuid.uuid4().hex}"
    command = ["script", "-qec", f"docker run --rm -it --name {name} --shm-size 256m {image}", "/dev/null"]
    try:
        with Running.start(command, stdin=subprocess.PIPE) as running:
            running.wait_for(lambda: READY in running.output, "JupyterLab")
            running.process.stdin.write(b"\x03")
            running.process.stdin.flush()
            assert running.ended().status == 0
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def test_memory_kill_is_explained(start, notebook):
    """When the memory limit kills a kernel, the log says so, with the limit."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, mem_limit="512m", memswap_limit="512m")
    box.wait_for(READY)
    code = "x = []\nwhile True: x.append(bytearray(1 << 24))"
    threading.Thread(target=notebook, args=(box, TOKEN, "kernel", code), daemon=True).start()
    assert "killed at the container's limit of 512 MiB" in box.wait_for("out of memory:")
