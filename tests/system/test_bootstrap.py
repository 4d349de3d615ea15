"""``nox -s engine`` on a machine whose daemon answers, and on one where it is dead: in namespaces of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.overlaid import Overlaid, overlaid
from tests.waiting import until

ENSURE = "from torchstrata.building import bootstrap; from torchstrata.commands import cli\nwith cli.guarded(): print(bootstrap.ensure(print))"
INSTALL = "from torchstrata.host import apt; apt.install(['sudo'], print, unless=lambda: False)"
REBOOTED = "for each in /run /var/log /var/lib/docker /var/lib/containerd; do mkdir -p $each && mount -t tmpfs none $each; done"


@pytest.fixture
def view() -> Iterator[Overlaid]:
    """Give a view of this machine that this test may change."""
    with overlaid() as made:
        yield made


@pytest.fixture
def user(view: Overlaid) -> str:
    """Give an ordinary user there, whose sudo asks for no password."""
    view.run(INSTALL)
    name = view.add_user()
    view.root("sh", "-c", f"echo '{name} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{name}")
    return name


@pytest.fixture
def machine(view: Overlaid) -> Iterator[Overlaid]:
    """Give that view as after a reboot: same packages, empty /run, no daemon, own network."""
    view.root("sh", "-c", REBOOTED)
    with view.offline() as made:
        yield made
        for file in ("/run/docker.pid", "/run/docker/containerd/containerd.pid"):
            _end(made, file)


def _end(machine: Overlaid, file: str) -> None:
    """End a daemon of the test and wait for it; the pid may be that of another program by a stale pid file."""
    script = f"pid=$(cat {file}) && case $(readlink /proc/$pid/exe) in */dockerd|*/containerd) kill $pid && echo $pid;; esac; true"
    pid = machine.root("sh", "-c", script).strip()
    until(lambda: not pid or not Path(f"/proc/{pid}").exists(), f"the end of process {pid}")


def ensure(machine: Overlaid, user: str = "root", status: int = 0) -> list[str]:
    """Run the bootstrap and return the lines that it reports, its outcome last."""
    with machine.start(ENSURE, user=user) as done:
        output, _ = done.communicate()
    assert done.returncode == status, output
    return output.splitlines()


def test_dead_daemon_is_started_again_and_then_left_alone(machine: Overlaid) -> None:
    """With the packages there it only starts the daemon, past pid files that other programs have by now; the next run does nothing."""
    stale = f"mkdir -p /run/docker/containerd && echo {os.getpid()} > /run/docker.pid && echo {os.getpid()} > /run/docker/containerd/containerd.pid"
    machine.root("sh", "-c", stale)
    lines = ensure(machine)
    assert lines[-1] == "started"
    assert sum("that is gone" in line for line in lines) == 2
    before = machine.root("cat", "/run/docker.pid")
    again = ensure(machine)
    assert again[-1] == "nothing"
    assert "left as it is" in again[0]
    assert machine.root("cat", "/run/docker.pid") == before


def test_ordinary_user_starts_it_by_sudo(user: str, machine: Overlaid) -> None:
    """The first line says that sudo is used; whoever is not in the group docker is told the command that lets them in, and others use it."""
    refused = ensure(machine, user, status=16)
    assert refused[0] == "setting up an engine needs root: using sudo, which asks for no password"
    assert "you may not use it" in refused[-2]
    assert 'sudo usermod --append --groups docker "$USER"' in refused[-1]
    machine.root("usermod", "--append", "--groups", "docker", user)
    assert ensure(machine, user)[-1] == "nothing"
    subprocess.run([*machine.enter, "test", "-f", "/etc/torchstrata/dockerd.json"], check=True)
