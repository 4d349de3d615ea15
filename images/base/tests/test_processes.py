"""Init, stopping, hooks."""

from __future__ import annotations

import pytest

from tests.images.boxes import PROBED, mounted, stop
from tests.waiting import PATIENCE

ORPHAN = "sleep 100000$"


def test_orphans_are_reaped(start):
    """200 orphaned children leave no zombie."""
    box = start("sleep", "infinity")
    assert box.run("sh", "-c", "for i in $(seq 200); do (sleep 100000 >/dev/null 2>&1 &) ; done").status == 0
    box.until(lambda: box.run("pgrep", "-fc", ORPHAN).out == "200\n", "200 orphans")
    assert box.run("pkill", "-f", ORPHAN).status == 0
    box.until(lambda: box.run("sh", "-c", "ps -eo stat | grep -c ^Z").out.strip() == "0", "the end of all zombies")


@pytest.mark.parametrize("command", [("sleep", "infinity"), ("sh", "-c", "sleep infinity"), ("python", "-c", "import time; time.sleep(1000)")])
def test_command_is_stopped(start, command):
    """A command gets SIGTERM through the init; the engine need not kill it."""
    box = start(*command)
    assert box.has_begun()
    assert stop(box) == 143, box.log


def test_status_of_a_command(start):
    """The exit status of a command is the container's."""
    assert start("sh", "-c", "exit 7").ended() == 7


def test_command_replaces_services(start):
    """With a command there are no services."""
    box = start("sleep", "infinity")
    box.until(lambda: box.run("pgrep", "-x", "sleep").status == 0, "the command")
    assert box.run("pgrep", "--parent", "1", "--list-name").out.split()[1:] == ["sleep"]
    assert box.run("pgrep", "-f", "jupyter-lab|sshd").status == 1


HOOKS = {
    "10-good": (b"#!/bin/sh\necho hook ran as $(id -u)\n", 0o755, "hook ran as 1000"),
    "20-fails": (b"#!/bin/sh\nexit 3\n", 0o755, "20-fails failed with status 3; the start goes on"),
    "40-plain": (b"echo no\n", 0o644, "40-plain is not executable (chmod +x) and was left out; the start goes on"),
    "50-nonsense": (b"\x7fnonsense\n", 0o755, "50-nonsense cannot be started: Exec format error"),
}


@pytest.mark.parametrize("target", ["/etc/torchstrata/start.d", "/home/dev/.config/torchstrata/start.d"])
def test_hooks(start, tmp_path, target):
    """Hooks run in order; one that fails or cannot run is named in one line, and the command runs."""
    for name, (content, mode, _) in HOOKS.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    tmp_path.chmod(0o755)
    box = start("echo", "command ran", volumes=mounted(tmp_path, target, "ro"), environment={"TORCHSTRATA_HOOK_TIMEOUT": str(PATIENCE)})
    assert box.ended() == 0
    assert box.container.logs(stderr=False) == b"command ran\n"
    for _, _, said in HOOKS.values():
        assert len([line for line in box.errors.splitlines() if said in line]) == 1, said


HANGING = "#!/bin/sh\necho hook hangs\nexec sleep 100000\n"


def hang(directory):
    """Put a hook that hangs into a directory; return the option that mounts it."""
    (directory / "hang").write_text(HANGING)
    (directory / "hang").chmod(0o755)
    directory.chmod(0o755)
    return mounted(directory, "/etc/torchstrata/start.d", "ro")


def test_hook_that_hangs(start, tmp_path):
    """A hook that hangs is stopped in time and named in one line, and the command runs."""
    box = start("echo", "command ran", volumes=hang(tmp_path), environment={"TORCHSTRATA_HOOK_TIMEOUT": "2"})
    assert box.ended() == 0
    assert box.container.logs(stderr=False) == b"command ran\n"
    assert box.errors.count("hang did not end in 2 s and was stopped; the start goes on") == 1


WAITING = "kill -TERM $$; exec torchstrata-entrypoint sleep infinity"
"""Starts the entrypoint with a signal that has come before it; a shell that nobody has told to block it would end."""


@pytest.mark.parametrize("user", ["1000:0", "0:0"])
def test_stop_at_the_very_start(start, user):
    """SIGTERM that has come before the entrypoint could take it is not lost: it ends the container."""
    box = start(entrypoint=["env", "--block-signal=TERM", "sh", "-c", WAITING], user=user)
    assert box.ended() == 143


def test_stop_during_a_hook(start, tmp_path):
    """A container that is stopped while a hook hangs ends by itself, without waiting for the hook."""
    box = start("true", volumes=hang(tmp_path), environment={"TORCHSTRATA_HOOK_TIMEOUT": "100000"})
    box.wait_for("hook hangs")
    assert stop(box) == 143, box.log


def test_command_is_healthy(start):
    """An image that runs a command is healthy while it runs, for the engine as for the probe."""
    box = start("sleep", "infinity", **PROBED)
    assert box.run("torchstrata-health").status == 0
    assert box.is_healthy()
