"""What people mount beside the workspace: caches, settings and servers of editors below home, data anywhere."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import mounted

TARGETS = {
    "/home/dev/.cache/huggingface": "/home/dev/.cache/made",
    "/home/dev/.config/gcloud": "/home/dev/.config/made",
    "/home/dev/.local/share/jupyter": "/home/dev/.local/bin/made",
    "/home/dev/.vscode-server/extensions": "/home/dev/.vscode-server/bin",
    "/data": "/data/made",
}
"""Where people mount a volume, and what is written beside it."""

WRITE = 'touch "$1/probe" && mkdir "$2" && echo both'


@pytest.fixture
def root_made(tmp_path):
    """A directory of the host that the engine will make for a bind mount: empty, and root's."""
    return tmp_path / "made"


@pytest.fixture
def root_makes(start, root_made):
    """Make a directory in it as root: ``root_makes("name")``."""

    def make(name):
        assert start("-p", f"/given/{name}", entrypoint=["mkdir"], user="0:0", volumes=mounted(root_made, "/given")).ended() == 0

    return make


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("user", ["1000:0", "12345:0", "0:0"])
def test_new_volume(start, volume, target, user):
    """A new volume can be written, and so can its parent, whoever the container runs as."""
    box = start("sh", "-c", WRITE, "sh", target, TARGETS[target], user=user, volumes={volume: {"bind": target}})
    assert box.ended() == 0, box.log
    assert "cannot be written" not in box.errors


@pytest.mark.parametrize("user", ["1000:0", "0:0"])
def test_keys_of_ssh(start, tmp_path, user):
    """With a mounted ``authorized_keys``, ``known_hosts`` can be written beside it."""
    (tmp_path / "keys").write_text("")
    box = start("touch", "/home/dev/.ssh/known_hosts", user=user, volumes=mounted(tmp_path / "keys", "/home/dev/.ssh/authorized_keys", "ro"))
    assert box.ended() == 0, box.log


@pytest.mark.parametrize("target", ["/data", "/datasets", "/home/dev/some/where", "/mnt/disk", "/srv/a/b"])
def test_root_hands_over_what_the_engine_made(start, root_made, target):
    """Where a container starts as root, an empty mount of root's is the user's, and so are the parents that the engine has made."""
    beside = f"{target}/../made" if target.count("/") > 2 and target != "/mnt/disk" else f"{target}/made"
    box = start("sh", "-c", WRITE, "sh", target, beside, user="0:0", volumes=mounted(root_made, target))
    assert box.ended() == 0, box.log
    assert root_made.stat().st_uid == 1000


@pytest.mark.parametrize("target", ["/etc/keep", "/usr/local/share/keep", "/root/.config", "/opt/cuda/lib", "/var/keep"])
def test_root_keeps_what_is_the_system_s(start, root_made, target):
    """No mount becomes the user's where root looks for programs, libraries or settings."""
    assert start("true", user="0:0", volumes=mounted(root_made, target)).ended() == 0
    assert root_made.stat().st_uid == 0


def test_root_keeps_what_has_content(start, root_made, root_makes):
    """A mount with content stays whose it is."""
    root_makes("kept")
    assert start("true", user="0:0", volumes=mounted(root_made, "/data")).ended() == 0
    assert {path.stat().st_uid for path in (root_made, root_made / "kept")} == {0}


def test_root_keeps_what_holds_a_mount(start, root_made, root_makes, volume):
    """A directory of the host stays root's where another mount hides what is in it."""
    root_makes("hidden/content")
    assert start("true", user="0:0", volumes=mounted(root_made, "/data") | {volume: {"bind": "/data/hidden"}}).ended() == 0
    assert {path.stat().st_uid for path in (root_made, root_made / "hidden", root_made / "hidden/content")} == {0}


def test_root_keeps_what_lies_in_a_volume(start, root_made, root_makes, volume):
    """Nor does a user get a directory of root's by putting it, in a volume, where a mount has its parent."""
    root_makes("parent/inner")
    box = start("touch", "/workspace/parent/inner/first", user="0:0", volumes=mounted(root_made, "/workspace") | {volume: {"bind": "/workspace/parent/inner"}})
    assert box.ended() == 0, box.log
    assert (root_made / "parent").stat().st_uid == 0


def test_root_keeps_what_only_root_may_read(start, volume):
    """Nor by giving a private directory of root's in its home the name of a parent."""
    box = start("sleep", "infinity", user="0:0", volumes={volume: {"bind": "/home/dev/deep/er"}})
    assert box.has_begun()
    assert box.run("sh", "-c", "mkdir -p /home/dev/secret/er && chmod 0700 /home/dev/secret", user="0:0").status == 0
    assert box.run("sh", "-c", "cd /home/dev && mv deep old && mv secret deep", user="1000:0").status == 0
    box.container.restart()
    assert box.has_begun()
    assert box.run("stat", "-c", "%u", "/home/dev/deep", user="0:0").out.strip() == "0"


def test_new_file_system(start, root_made, root_makes):
    """A file system that has just been made has ``lost+found``, and is empty for all that."""
    root_makes("lost+found")
    assert start("touch", "/data/first", user="0:0", volumes=mounted(root_made, "/data")).ended() == 0


def test_root_follows_no_link(start, tmp_path, root_made):
    """A link that a user has put into its home leads no start of root's to anything: neither to what is the system's nor to other files."""
    home = tmp_path / "home"
    (home / "x").mkdir(parents=True)
    (home / "x/link").symlink_to("/etc")
    box = start("stat", "-c", "%u", "/etc", "/usr", user="0:0", volumes=mounted(home, "/home/dev") | mounted(root_made, "/home/dev/x/link/keep"))
    box.ended()
    assert "1000" not in box.container.logs(stderr=False).decode().split()


def test_what_is_left_is_named(start, root_made):
    """Where nobody is root, the start names what cannot be written below home, and the doctor all; its cure cures."""
    volumes = mounted(root_made, "/home/dev/deep/er")
    box = start("sleep", "infinity", volumes=volumes)
    assert box.has_begun()
    line = "/home/dev/deep /home/dev/deep/er cannot be written by 1000:0"
    assert box.errors.count(f"torchstrata: {line} - docker exec -u 0 CONTAINER /usr/local/bin/torchstrata-doctor --hand-over") == 1
    rows = json.loads(box.run("torchstrata-doctor", "--quick", "--json").out)
    (row,) = [row for row in rows if row["subject"] == "mounts"]
    assert (row["severity"], row["what"]) == ("warning", line)
    assert box.run(*row["fix"].split(" CONTAINER ")[1].split(), user="0:0").status == 0
    assert box.run("mkdir", "/home/dev/deep/er/made").status == 0


def test_cure_follows_no_link(start, root_made):
    """What a user puts where the cure leads gives it nothing: its parent renamed, a link in the mount's place."""
    box = start("sleep", "infinity", volumes=mounted(root_made, "/home/dev/deep/er"))
    assert box.has_begun()
    assert box.run("sh", "-c", "cd /home/dev && mv deep old && mkdir deep && ln -s /etc deep/er").status == 0
    box.run("/usr/local/bin/torchstrata-doctor", "--hand-over", user="0:0")
    assert box.run("stat", "-c", "%u", "/etc").out.strip() == "0"
    assert root_made.stat().st_uid == 1000


def test_what_has_content_is_cured_outside(start, root_made, root_makes):
    """What the start would not hand over, the doctor does not either: it names what does."""
    root_makes("kept")
    box = start("sleep", "infinity", volumes=mounted(root_made, "/home/dev/deep"))
    assert box.has_begun()
    assert "/home/dev/deep cannot be written by 1000:0 - docker run --rm -u 0 --entrypoint /bin/chown -v SOURCE:/x IMAGE 1000:0 /x" in box.errors
    assert box.run("/usr/local/bin/torchstrata-doctor", "--hand-over", user="0:0").status == 1
    assert root_made.stat().st_uid == 0


def test_mount_in_root_s_home(start, volume):
    """Who mounts a cache where other images have it, in root's home, is told where it belongs."""
    box = start("true", volumes={volume: {"bind": "/root/.cache/huggingface"}})
    assert box.ended() == 0
    assert "/root/.cache/huggingface is mounted in root's home, which nobody uses here - mount it at /home/dev/.cache/huggingface" in box.errors


def test_data_for_reading(start, root_made):
    """Data that is mounted read-only is nobody's mistake."""
    box = start("torchstrata-doctor", "--quick", "--json", volumes=mounted(root_made, "/data", "ro"))
    box.ended()
    rows = json.loads(box.container.logs(stderr=False))
    assert [row["severity"] for row in rows if row["subject"] == "mounts"] == ["ok"]


MAKE = "touch made && stat -c %u . .."


@pytest.mark.parametrize("working", ["/job", "/home/dev/a/job", "/srv/a/job"])
def test_root_hands_over_the_working_directory(start, working):
    """A working directory that the engine has made is the user's where the container starts as root; its parents stay as they are."""
    box = start("sh", "-c", MAKE, user="0:0", working_dir=working)
    assert box.ended() == 0, box.log
    assert box.container.logs(stderr=False).decode().split() == ["1000", "0"]


@pytest.mark.parametrize("working", ["/etc/job", "/usr/share", "/mnt"])
def test_root_keeps_the_working_directory_of_the_system(start, working):
    """Nothing below the system's directories is handed over, nor what images share."""
    box = start("stat", "-c", "%u", ".", user="0:0", working_dir=working)
    assert (box.ended(), box.container.logs(stderr=False).decode()) == (0, "0\n")


def test_working_directory_is_cured(start):
    """Where nobody is root the start names a working directory that the engine has made, with what cures it."""
    box = start("sleep", "infinity", working_dir="/a/job")
    assert box.has_begun()
    line = "/a/job cannot be written by 1000:0 - docker exec -u 0 CONTAINER /usr/local/bin/torchstrata-doctor --hand-over"
    assert box.errors.count(f"torchstrata: {line}\n") == 1
    assert box.run("/usr/local/bin/torchstrata-doctor", "--hand-over", user="0:0").status == 0
    assert box.run("touch", "made").status == 0
