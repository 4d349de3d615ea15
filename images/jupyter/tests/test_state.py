"""What running services remember is a container's own, whatever it shares with others."""

from __future__ import annotations

import pytest

from tests.images.boxes import READY

JUPYTER = {"TORCHSTRATA_SERVICES": "jupyter"}
STATE = "d=/dev/shm/torchstrata-$(readlink /proc/self/ns/mnt | tr -dc 0-9)-$(id -u); cd $d && find . -type f | sort && cat jupyter.json"


def state(box):
    """Return what the state of the container's user holds."""
    done = box.run("sh", "-c", STATE)
    assert done.status == 0, done.err
    return done.out


def answers(box):
    """Return whether the services of a container answer, and who is let in with its token."""
    asked = "curl -s -o /dev/null -w %{http_code} http://127.0.0.1:8888/api/contents?token=$0"
    return box.run("torchstrata-health").out, box.run("sh", "-c", asked, box.token).out


@pytest.mark.parametrize(
    "user",
    ["2000:0", *(pytest.param(user, marks=pytest.mark.costly) for user in ("1000:0", "3000:3000"))],
)
def test_shared_temporary_directory(start, volume, user):
    """Containers of any users that share ``/tmp`` have each their own state."""
    shared = {volume: {"bind": "/tmp"}}
    first = start(environment=JUPYTER, volumes=shared)
    first.wait_for(READY)
    first.run("chmod", "1777", "/tmp", user="0:0")
    before = state(first)
    second = start(environment=JUPYTER, volumes=shared, user=user)
    second.wait_for(READY)
    assert answers(first) == answers(second) == ("jupyter: up\n", "200")
    assert state(first) == before
    assert first.token != second.token


@pytest.mark.costly
def test_shared_memory(start):
    """So have containers that share ``/dev/shm``; what one leaves is gone when it has ended, or swept by the next if it was killed."""
    first = start(environment=JUPYTER, ipc_mode="shareable")
    first.wait_for(READY)
    shared = {"environment": JUPYTER, "ipc_mode": f"container:{first.container.id}", "shm_size": None}
    second = start(**shared)
    second.wait_for(READY)
    assert answers(first) == answers(second) == ("jupyter: up\n", "200")
    second.container.stop(timeout=60)
    assert len(kept(first)) == 1
    third = start(**shared)
    third.wait_for(READY)
    third.container.kill()
    assert len(kept(first)) == 2
    fourth = start(**shared)
    fourth.wait_for(READY)
    assert len(kept(first)) == 2
    assert answers(first) == answers(fourth) == ("jupyter: up\n", "200")


def kept(box):
    """Return the states in a container's shared memory."""
    return box.run("sh", "-c", "ls -d /dev/shm/torchstrata-*").out.split()


def test_second_start_in_a_container(start):
    """``docker exec`` of the entrypoint runs a command and leaves the running services theirs; it does not start them twice."""
    box = start(environment=JUPYTER)
    box.wait_for(READY)
    before = state(box)
    assert box.run("torchstrata-entrypoint", "echo", "ran").out == "ran\n"
    refused = box.run("torchstrata-entrypoint")
    assert (refused.status, "no services: they run in this container already" in refused.err) == (78, True)
    assert state(box) == before
    assert answers(box) == ("jupyter: up\n", "200")


@pytest.mark.parametrize(
    "options",
    [
        {"ipc_mode": "none", "shm_size": None},
        {"ipc_mode": "none", "shm_size": None, "read_only": True, "tmpfs": {"/tmp": "mode=1777"}},
        {"read_only": True, "tmpfs": {"/tmp": "mode=1777"}},
    ],
    ids=["no shared memory", "read-only, no shared memory", "read-only"],
)
def test_where_there_is_room(start, options):
    """Without ``/dev/shm`` the state lies in ``/tmp``."""
    box = start(environment=JUPYTER, **options)
    box.wait_for(READY)
    assert answers(box) == ("jupyter: up\n", "200")


def test_no_room(start):
    """Where nothing can be written, one line names the places and what the system says."""
    box = start(environment=JUPYTER, ipc_mode="none", shm_size=None, read_only=True)
    assert box.ended() == 78
    assert "no services: there is no place for what they remember (" in box.errors
    assert "Read-only file system" in box.errors


def test_restart(start):
    """After ``docker restart`` there is a new state, and services answer."""
    box = start(environment=JUPYTER)
    box.wait_for(READY)
    box.container.restart(timeout=60)
    box.until(lambda: box.log.count(READY) == 2, "JupyterLab once more")
    assert box.run("torchstrata-health").out == "jupyter: up\n"


def test_server_of_a_command(start):
    """A server that the user starts keeps sockets, keys and cookies in the state as well, and other Jupyter programs find it."""
    box = start("jupyter", "server", "--port=8889")
    box.until(lambda: "8889" in box.run("jupyter", "server", "list").out, "the server")
    assert box.run("sh", "-c", "ls $HOME/.local/share/jupyter/runtime").status != 0
    assert "jpserver" in box.run("sh", "-c", "ls /dev/shm/torchstrata-*/jupyter").out
