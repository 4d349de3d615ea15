"""Services on locked-down hosts."""

from __future__ import annotations

import pytest

from tests.images.boxes import LOCKED, READY, SSH_READY


@pytest.mark.parametrize(
    ("user", "restriction"),
    [("12345:0", "all at once"), *(pytest.param("1000:0", restriction, marks=pytest.mark.costly) for restriction in LOCKED)],
)
def test_services(start, public_key, user, restriction):
    """Jupyter and SSH work, and the probe finds them up."""
    box = start(user=user, environment={"SSH_PUBLIC_KEY": public_key}, **LOCKED[restriction])
    box.wait_for(READY)
    box.wait_for(SSH_READY)
    assert box.run("torchstrata-health").out.splitlines() == ["jupyter: up", "ssh: up"]
