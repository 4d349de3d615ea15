"""Variables with a value that they cannot have: one line that is printable, an exit code, and nothing done."""

from __future__ import annotations

import pytest

from tests.images.boxes import refuses

WRONG = {
    "HOME": "/tmp/a:b",
    "SHELL": "/bin/no-such-shell",
    "TORCHSTRATA_SERVICES": "shh",
    "TORCHSTRATA_SECRETS": "A\x07",
    "TORCHSTRATA_CA_FILE": "../ca.pem",
    "TORCHSTRATA_REQUIRE_GPU": "maybe",
    "TORCHSTRATA_QUIET": "maybe",
    "TORCHSTRATA_HOOK_TIMEOUT": "nan",
    "TORCHSTRATA_STOP_GRACE": "inf",
}


@pytest.fixture(scope="module")
def box(start_shared):
    """A container in which starts are tried."""
    box = start_shared("sleep", "infinity")
    assert box.has_begun()
    return box


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value(box, name):
    """The start ends with status 78; its one line names the variable, and is printable."""
    refuses(box, name, WRONG[name])


def test_ports_of_services(box, expected):
    """What cannot be a port is refused for every service, by the variable that its flavour names."""
    for service in expected.services:
        refuses(box, service.variable, "65536")


def test_links_of_kubernetes(box, expected):
    """A pod beside services of the same names starts: what Kubernetes says of them is no setting."""
    done = box.run("torchstrata-entrypoint", "true", env={service.variable: f"tcp://10.0.0.1:{service.port}" for service in expected.services})
    assert done.status == 0
    assert done.err.count("is a service link of Kubernetes and is left aside") == len(expected.services)


def test_command_gets_what_was_given(box):
    """A command has the secrets that were given with it: it is what they were given for."""
    given = {"JUPYTER_TOKEN": "mine", "WANDB_API_KEY": "key", "TORCHSTRATA_SECRETS": "WANDB_*"}
    done = box.run("torchstrata-entrypoint", "sh", "-c", "echo $JUPYTER_TOKEN $WANDB_API_KEY", env=given)
    assert done.out == "mine key\n"


def test_option_behind_the_name_of_the_image(box):
    """An option of ``docker run`` in the place of the command ends the start, and prints no variable."""
    done = box.run("torchstrata-entrypoint", "--gpus=all", env={"JUPYTER_TOKEN": "sesame"})
    assert done.status == 78
    assert "'--gpus=all' is no command - options of docker run stand before the name of the image" in done.err
    assert "sesame" not in done.out + done.err


def test_lines_are_seen_at_once(box):
    """What a program prints is in the log when it is printed, not at its end, which a stop never lets come."""
    assert box.run("printenv", "PYTHONUNBUFFERED").out == "1\n"
