"""``nox -s engine`` on a machine whose daemon answers, and on one where it is dead: in namespaces of its own, as root."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[2]
ENSURE = "from torchstrata.engines import bootstrap; print(bootstrap.ensure(print))"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[list[str]]:
    """Give the start of a command line that runs on a "machine" as after a reboot: same packages, empty /run, no daemon, own network."""
    (tmp_path / "data").mkdir()
    hold = f"mount -t tmpfs none /run && mount --bind {tmp_path}/data /var/lib/docker && mount -t tmpfs none /var/log && echo up && exec sleep 600"
    with subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", hold], stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"up\n"
        enter = ["nsenter", "--target", str(keeper.pid), "--net", "--mount"]
        yield enter
        for file in ("/run/docker.pid", "/run/docker/containerd/containerd.pid"):
            _end(subprocess.run([*enter, "cat", file], capture_output=True, text=True, check=False).stdout)
        keeper.kill()


def _end(pid: str) -> None:
    """End a daemon of the test and wait for it; the pid may be that of another program by a stale pid file."""
    program = Path(f"/proc/{pid.strip() or 'none'}/exe")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if program.readlink().name in {"dockerd", "containerd"}:
            os.kill(int(pid), signal.SIGTERM)
            until(lambda: not program.exists(), f"the end of process {pid.strip()}")


def ensure(machine: list[str]) -> list[str]:
    """Run the bootstrap and return the lines that it reports, its outcome last."""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*machine, sys.executable, "-c", ENSURE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_dead_daemon_is_started_again_and_then_left_alone(machine: list[str]) -> None:
    """With the packages there it only starts the daemon, past pid files that other programs have by now; the next run does nothing."""
    stale = f"mkdir -p /run/docker/containerd && echo {os.getpid()} > /run/docker.pid && echo {os.getpid()} > /run/docker/containerd/containerd.pid"
    subprocess.run([*machine, "sh", "-c", stale], check=True)
    lines = ensure(machine)
    assert lines[-1] == "started"
    assert sum("that is gone" in line for line in lines) == 2
    before = subprocess.run([*machine, "cat", "/run/docker.pid"], capture_output=True, check=True).stdout
    again = ensure(machine)
    assert again[-1] == "nothing"
    assert "left as it is" in again[0]
    assert subprocess.run([*machine, "cat", "/run/docker.pid"], capture_output=True, check=True).stdout == before
