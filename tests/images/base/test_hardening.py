"""Locked-down hosts: every restriction that a policy may ask for."""

from __future__ import annotations

import pytest

from tests.images.boxes import READY, SSH_READY

LOCKED = {
    "read-only": {"read_only": True, "tmpfs": {"/tmp": "mode=1777"}},
    "no capabilities": {"cap_drop": ["ALL"]},
    "no new privileges": {"security_opt": ["no-new-privileges"]},
    "no network": {"network_mode": "none"},
}
LOCKED["all at once"] = {name: value for options in list(LOCKED.values()) for name, value in options.items()}


@pytest.mark.parametrize("restriction", LOCKED)
@pytest.mark.parametrize("user", ["1000:0", "12345:0"])
def test_services(start, public_key, restriction, user):
    """Jupyter and SSH work, and the probe finds them up."""
    box = start(user=user, environment={"SSH_PUBLIC_KEY": public_key}, **LOCKED[restriction])
    box.wait_for(READY)
    box.wait_for(SSH_READY)
    assert box.run("torchstrata-health").out.splitlines() == ["jupyter: up", "ssh: up"]


@pytest.mark.parametrize("restriction", LOCKED)
def test_command(start, restriction):
    """A command runs."""
    box = start("sh", "-c", "whoami; touch ~/file && echo home", **LOCKED[restriction])
    assert box.ended() == 0
    assert box.container.logs(stderr=False).decode().split() == ["dev", "home"]


def test_nowhere_to_write(start):
    """Without anything that can be written a command still runs, and one line names the cure."""
    box = start("echo", "ran", read_only=True)
    assert box.ended() == 0
    assert b"ran" in box.container.logs(stderr=False)
    assert "/tmp cannot be written: no services, no names for users - add --tmpfs /tmp" in box.errors
