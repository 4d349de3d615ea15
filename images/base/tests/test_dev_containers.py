"""Dev Containers, as VS Code and ``@devcontainers/cli`` start them: another entrypoint, the user by name, the host's uid."""

from __future__ import annotations

import json
import os

import pytest

from tests.images.boxes import mounted

RENUMBER = r"""
set -e
EXISTING_USER=$(awk -F: -v id=$2 '$3 == id {print $1}' /etc/passwd); EXISTING_GROUP=$(awk -F: -v id=$3 '$3 == id {print $1}' /etc/group)
OLD_GID=$(awk -F: -v name=$1 '$1 == name {print $4}' /etc/passwd); NEW_GID=$3
test -z "$EXISTING_USER"
test -z "$EXISTING_GROUP" || NEW_GID=$OLD_GID
/bin/sed -i -e "s/\($1:[^:]*:\)[^:]*:[^:]*/\1$2:$NEW_GID/" /etc/passwd
test $OLD_GID = $NEW_GID || /bin/sed -i -e "s/\([^:]*:[^:]*:\)$OLD_GID:/\1$NEW_GID:/" /etc/group
/bin/chown -R $2:$NEW_GID /home/dev
"""
"""What the CLI's ``updateUID.Dockerfile`` does as root to an image before it starts it: the user, and the group that is the user's, get the host's numbers."""

USE = """
set -e
cd /workspaces/project && touch made
touch ~/made && mkdir -p ~/.vscode-server/bin ~/.cache/made
touch /opt/venv/made && python -c 'import torch'
touch /data/made
stat -c %g /etc/passwd; id -un; echo $HOME
"""


@pytest.fixture
def told(inspect):
    """What the image tells Dev Containers."""
    (told,) = json.loads(inspect["Config"]["Labels"]["devcontainer.metadata"])
    return told


def test_metadata(told):
    """The image says who its user is, by the name that the CLI renumbers, and that zombies are reaped."""
    assert told == {"containerUser": "dev", "remoteUser": "dev", "updateRemoteUserUID": True, "init": True}


@pytest.fixture
def renumbered(derive, told, tmp_path):
    """Make the image that the CLI makes for a user of the host: ``renumbered(uid, gid)``."""
    (tmp_path / "renumber").write_text(RENUMBER)
    words = f"sh /renumber {told['remoteUser']}"
    return lambda uid, gid: derive(f"FROM IMAGE\nUSER 0:0\nCOPY renumber /\nRUN {words} {uid} {gid}\nUSER 1000:0\n", context=tmp_path)


@pytest.fixture
def project(start, tmp_path):
    """Make a project of a user of the host: ``project(uid, gid)``; it becomes the tests' own at the end."""
    directory = tmp_path / "project"
    directory.mkdir()

    def give(uid, gid):
        box = start("-R", f"{uid}:{gid}", "/given", entrypoint=["chown"], user="0:0", network_mode="none", volumes=mounted(directory, "/given"))
        assert box.ended() == 0, box.log
        return directory

    yield give
    give(os.geteuid(), os.getegid())


@pytest.mark.costly
@pytest.mark.parametrize("owner", [(996, 996), (999, 100), (1001, 1001)], ids=str)
def test_user_of_any_host(start, told, renumbered, project, owner):
    """Whatever number the user has on the host, also a system's: project, home and packages can be written, and group 0 keeps its number."""
    directory = project(*owner)
    volumes = mounted(directory, "/workspaces/project")
    box = start("-c", USE, entrypoint=["/bin/sh"], user=told["containerUser"], image=renumbered(*owner), volumes=volumes)
    assert box.ended() == 0, box.log
    assert box.container.logs(stderr=False).decode().split() == ["0", "dev", "/home/dev"]
    assert (directory / "made").stat().st_uid == owner[0]
