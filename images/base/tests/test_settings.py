"""Variables with a value that they cannot have: one line that is printable, an exit code, and nothing done."""

from __future__ import annotations

import pytest

WRONG = {
    "HOME": "/tmp/a:b",
    "SHELL": "/bin/no-such-shell",
    "JUPYTER_PORT": "65536",
    "SSH_PORT": "22\x1b[2J",
    "JUPYTER_BASE_URL": "/a.b+c/",
    "JUPYTER_TOKEN": "a\rb",
    "JUPYTER_TOKEN_FILE": "token",
    "JUPYTER_PASSWORD_HASH": "open sesame",
    "JUPYTER_CERT_FILE": "cert.pem",
    "JUPYTER_KEY_FILE": "/key-without-certificate.pem",
    "SSH_POST_QUANTUM_ONLY": "perhaps",
    "TORCHSTRATA_SERVICES": "jupyter shh",
    "TORCHSTRATA_SECRETS": "A\x07",
    "TORCHSTRATA_CA_FILE": "../ca.pem",
    "TORCHSTRATA_REQUIRE_GPU": "maybe",
    "TORCHSTRATA_JUPYTER_OPEN": "maybe",
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
    """The start ends with status 78; its one line names the variable, is printable, and quotes no secret."""
    done = box.run("torchstrata-entrypoint", "touch", f"/tmp/{name}", env={name: WRONG[name]})
    (line,) = done.err.splitlines()
    assert (done.status, line.isprintable()) == (78, True)
    assert line.startswith(f"torchstrata: {name}")
    assert "sesame" not in line
    assert box.run("test", "-e", f"/tmp/{name}").status == 1


def test_links_of_kubernetes(box):
    """A pod beside services named ``ssh`` and ``jupyter`` starts: what Kubernetes says of them is no setting."""
    done = box.run("torchstrata-entrypoint", "true", env={"SSH_PORT": "tcp://10.0.0.1:22", "JUPYTER_PORT": "tcp://10.0.0.2:8888"})
    assert done.status == 0
    assert done.err.count("is a service link of Kubernetes and is left aside") == 2


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
