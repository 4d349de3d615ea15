"""Supervision, stopping and memory of services."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from tests.images.boxes import READY, mounted, stop, until

TOKEN = "t0ken"


def busy(box, notebook, code):
    """Let a kernel run ``code``; return once it does."""
    code = f"open('/tmp/started', 'w').close()\n{code}"
    threading.Thread(target=notebook, args=(box, TOKEN, "kernel", code), daemon=True).start()
    assert until(lambda: box.run("test", "-e", "/tmp/started").status == 0)
    time.sleep(0.5)


@pytest.mark.serial
@pytest.mark.parametrize("code", ["", "while True: pass", "import time; time.sleep(1000)"])
def test_services_stop_within_two_seconds(start, notebook, code):
    """Services end before the engine, which waits 2 s, would kill them, with a kernel that is busy, too, and with status 0."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN})
    box.wait_for(READY)
    if code:
        busy(box, notebook, code)
    assert stop(box) == 0


@pytest.mark.serial
def test_kernels_get_sigterm(start, notebook, workspace):
    """A kernel can save its work when the container is stopped."""
    code = (
        "import signal, sys\ndef save(*_):\n    open('/workspace/saved', 'w').write('yes'); sys.exit(0)\nsignal.signal(signal.SIGTERM, save)\nwhile True: pass"
    )
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, user="1234:0", volumes=mounted(workspace))
    box.wait_for(READY)
    busy(box, notebook, code)
    assert stop(box) == 0
    assert (workspace / "saved").exists()


def test_crashed_service_is_restarted(start):
    """A service that dies is started again, and the log says so; the token is printed once."""
    box = start()
    box.wait_for(READY)
    box.run("pkill", "-9", "-f", "jupyter-lab")
    box.wait_for("jupyter was ended by signal 9; it starts again in 1 s")
    assert until(lambda: box.run("torchstrata-health").status == 0)
    assert box.log.count(box.token) == 1


@pytest.mark.serial
def test_terminal_and_ctrl_c(image):
    """With a terminal the log goes there, and Ctrl-C stops the container."""
    name = f"ctrl-c-{time.monotonic_ns()}"
    run = ["script", "-qec", f"docker run --rm -it --name {name} --shm-size 256m {image}", "/dev/null"]
    process = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        seen = b""
        while READY.encode() not in seen:
            seen += process.stdout.readline()
        process.stdin.write(b"\x03")
        process.stdin.flush()
        assert process.wait(10) == 0
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        process.kill()


def test_memory_kill_is_explained(start, notebook):
    """When the memory limit kills a kernel, the log says so, with the limit."""
    box = start(environment={"JUPYTER_TOKEN": TOKEN}, mem_limit="512m", memswap_limit="512m")
    box.wait_for(READY)
    code = "x = []\nwhile True: x.append(bytearray(1 << 24))"
    threading.Thread(target=notebook, args=(box, TOKEN, "kernel", code), daemon=True).start()
    assert "killed at the container's limit of 512 MiB" in box.wait_for("out of memory:")
