"""What is secret does not leave a container: not by ``docker commit``, not through other processes."""

from __future__ import annotations

import contextlib
import json

import docker.errors
import pytest

from tests.images.boxes import READY, SSH_READY
from torchstrata.verification import leftovers

TOKEN = "s3cret-token-of-this-test"

SEARCH = """
import json, sys
found = []
for path in json.load(sys.stdin):
    try:
        content = open(path, "rb").read()
    except (IsADirectoryError, FileNotFoundError):
        continue
    found += [path] if any(part in content for part in (sys.argv[1].encode(), sys.argv[2].encode(), b"PRIVATE KEY")) else []
    found += [path] if any(part in path for part in ("cookie_secret", "notebook_secret", "authorized_keys", "jpserver", "ssh_host_")) else []
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def running(start_shared, public_key, notebook):
    """A container with both services, which has been used."""
    box = start_shared(environment={"SSH_PUBLIC_KEY": public_key, "JUPYTER_TOKEN": TOKEN})
    box.wait_for(READY)
    box.wait_for(SSH_READY)
    notebook(box, TOKEN, "kernel", "print(1)")
    contents = f"http://127.0.0.1:8888/api/contents/made.ipynb?token={TOKEN}"
    document = json.dumps({"type": "notebook", "content": {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}})
    assert box.run("curl", "-sf", "-X", "PUT", "-d", document, contents).status == 0
    return box


@pytest.fixture(scope="module")
def committed(engine, running):
    """The image that ``docker commit`` makes of it while it runs, without the variables that its owner has given."""
    image = running.container.commit(
        "torchstrata-committed", "test", changes=["ENV JUPYTER_TOKEN=", "ENV SSH_PUBLIC_KEY="], conf={"Labels": leftovers.labels()}
    )
    yield image.id
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.images.remove(image.id, force=True)


def test_commit_takes_no_secret(running, public_key):
    """No file that the container has written on its layer has a token, a key, a cookie's secret or a private key."""
    changed = [row["Path"] for row in running.container.diff()]
    assert "/workspace/made.ipynb" in changed
    running.put("/tmp/search.py", SEARCH.encode())
    done = running.run("/usr/bin/python3", "/tmp/search.py", TOKEN, public_key.split()[1], stdin=json.dumps(changed).encode())
    assert json.loads(done.out) == [], done.err


@pytest.fixture
def copies(start, committed, public_key):
    """Two containers of the committed image, the second as another user."""
    boxes = [start(image=committed, user=user, environment={"SSH_PUBLIC_KEY": public_key}) for user in ("1000:0", "2000:0")]
    for box in boxes:
        box.wait_for(READY)
        box.wait_for(SSH_READY)
    return boxes


@pytest.mark.costly
def test_copies_have_their_own_secrets(running, copies, client):
    """Containers of a committed image, as any user, have tokens and host keys of their own."""
    keys = {frozenset(line.split()[2] for line in client.run("ssh-keyscan", box.address).out.splitlines() if line[0] != "#") for box in (running, *copies)}
    assert len(keys) == 3
    assert len(set.intersection(*map(set, keys))) == 0
    assert len({TOKEN, *(box.token for box in copies)}) == 3


def test_export_is_what_commit_takes(running, engine):
    """``docker export`` sees mounts as empty directories: shared memory is not in it."""
    assert [path for path in (row["Path"] for row in running.container.diff()) if path.startswith("/dev/shm/")] == []
    assert engine.containers.get(running.container.id).attrs["HostConfig"]["ShmSize"] > 0


ENVIRONMENTS = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c"


@pytest.mark.parametrize("user", ["1000:0", "4242:4242"])
def test_processes_show_no_secret(running, user, ssh):
    """Neither the container's user, by SSH, nor another one sees the token in an environment or a command line."""
    pattern = f"'[s]{TOKEN[1:]}'"
    shown = (
        ssh(running, f"{ENVIRONMENTS} {pattern}").out
        if user == "1000:0"
        else running.run("sh", "-c", f"{ENVIRONMENTS} {pattern}", user=user, env={"JUPYTER_TOKEN": ""}).out
    )
    assert shown.strip() == "0"


def test_another_user_sees_no_state(running):
    """Another user of the container may ask the probe, and read nothing of the state."""
    assert running.run("torchstrata-health", user="4242:4242").out.splitlines() == ["jupyter: up", "ssh: up"]
    for name in ("jupyter.json", "authorized_keys", "ssh/ssh_host_ed25519_key", "jupyter/jupyter_cookie_secret"):
        assert running.run("sh", "-c", f"cat /dev/shm/torchstrata-*/{name}", user="4242:4242").status != 0
    assert running.run("sh", "-c", "ls /dev/shm/torchstrata-*/", user="4242:4242").status != 0


def test_log_shows_the_token_once(running):
    """The log has the address with the token, for whoever may read the log, and no second time."""
    assert running.log.count(TOKEN) == 1


@pytest.mark.parametrize(
    "user",
    ["1000:0", *(pytest.param(user, marks=pytest.mark.costly) for user in ("3000:3000", "0:0"))],
)
def test_no_root_over_ssh(start, public_key, ssh, user):
    """A session of SSH gives nobody more than the container's user has."""
    box = start(environment={"SSH_PUBLIC_KEY": public_key, "TORCHSTRATA_SERVICES": "ssh"}, user=user)
    box.wait_for(SSH_READY)
    planted = 'for d in /tmp/.torchstrata /dev/shm/torchstrata-*; do mkdir -p $d; echo "eve::4242:4242::/tmp:/bin/bash" >>$d/passwd; echo "root::$(id -u):0::/:/bin/sh" >>$d/passwd; done'
    for attack in ("echo | su root -c id", "su eve -c id", "sg shadow -c id", "passwd -d root", "cat /etc/shadow"):
        assert ssh(box, f"{planted}; {attack}").status != 0, attack
    assert ssh(box, "id", "-u").out.strip() == {"0:0": "1000"}.get(user, user.split(":")[0])
