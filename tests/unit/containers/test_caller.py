"""Who wants a container: whom it runs as, where it works, and whom SSH lets in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from torchstrata.containers import caller
from torchstrata.containers.caller import HostUser
from torchstrata.errors import ContainerError, WorkspaceError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFta me"
NOBODY = 65534


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Give the caller a home with ``.ssh``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("uid", "rootless", "owner", "user"),
    [(1234, False, 77, "1234:0"), (0, False, 77, "77:0"), (0, False, 0, "1000:0"), (1234, True, 1234, "0:0"), (0, True, 0, "0:0")],
)
def test_whom_a_container_runs_as(uid, rootless, owner, user):
    """The caller, so that files are theirs; never root, but where that is the caller."""
    assert HostUser(uid=uid, rootless=rootless).user(owner) == user


def test_workspace_is_made_for_who_works_in_it(tmp_path):
    """With its parents."""
    with HostUser(uid=os.geteuid()).workspace(tmp_path / "a" / "b") as path:
        assert path == tmp_path / "a" / "b"
        assert path.stat().st_uid == (os.geteuid() or caller.DEV_UID)


def test_what_was_made_goes_again_where_it_was_for_nothing(tmp_path):
    """An empty directory is nobody's work."""
    with pytest.raises(KeyboardInterrupt), HostUser(uid=os.geteuid()).workspace(tmp_path / "a" / "b"):
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []


def test_what_a_container_makes_at_its_start_is_nobodys_work(tmp_path):
    """The usual directories of a workspace, all of them empty."""

    def start(path):
        for name in ("data/raw", "logs", "plots"):
            (path / name).mkdir(parents=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), HostUser(uid=os.geteuid()).workspace(tmp_path / "a") as path:
        start(path)
    assert [*tmp_path.iterdir()] == []


def test_empty_directories_that_were_there_stay(tmp_path):
    """Somebody has made them, perhaps for what is to come: in the workspace, or where a link in a new one leads."""
    (old := tmp_path / "old" / "data").mkdir(parents=True)
    old.parent.chmod(0o777)

    def fail(path):
        if path != old.parent:
            (path / "data").symlink_to(old.parent)
        raise KeyboardInterrupt

    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt), HostUser(uid=os.geteuid()).workspace(tmp_path / name) as path:
            fail(path)
    assert old.is_dir()


def test_what_was_there_stays(tmp_path):
    """Whatever happens; and what somebody has put into a new one."""

    def work(path):
        (path / "work").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), HostUser(uid=os.geteuid()).workspace(tmp_path / "a") as path:
        work(path)
    assert (tmp_path / "a" / "work").exists()


@pytest.mark.parametrize(("asked", "means"), [("~/data", "{home}/data"), ("/srv/x y", "/srv/x y"), ("work/deep", "work/deep"), ("ünï", "ünï")])
def test_what_a_workspace_means(home, asked, means):
    """Shells leave ``--workspace=~/data`` as it is; a file that starts a container elsewhere needs a relative one as it is."""
    assert str(caller.place(Path(asked))) == means.format(home=home)


@pytest.mark.parametrize("asked", ["a\nb", "~nobody-here/x"])
def test_what_no_file_can_name_is_no_workspace(asked):
    """A line end would begin a line of the file."""
    with pytest.raises(WorkspaceError):
        caller.place(Path(asked))


@pytest.mark.parametrize("place", ["/proc/nothing/here", "/dev/null", "/etc/passwd/below", "file", "link"])
def test_what_cannot_be_a_workspace(place, tmp_path):
    """It is refused in a line, with another way; nothing is made where a link leads."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    what = "no directory, or a link to none" if place in {"file", "link"} else None
    with pytest.raises(WorkspaceError, match=what) as refused, HostUser(uid=os.geteuid()).workspace(tmp_path / place):
        pass
    assert "--workspace" in refused.value.fix
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("directory", "fits"),
    [((0, 0, 0o755), False), ((0, 0, 0o775), True), ((0, NOBODY, 0o775), False), ((0, NOBODY, 0o777), True), ((1000, NOBODY, 0o700), True)],
)
def test_root_asks_for_somebody_else(directory, fits, tmp_path, monkeypatch):
    """Root's own rights say nothing of the container's user, who has group 0."""
    owner, group, mode = directory
    found = os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    monkeypatch.setattr(type(tmp_path), "stat", lambda *_, **__: found)
    person = HostUser(uid=0)
    if not fits:
        with pytest.raises(WorkspaceError, match="cannot be written by user 1000"):
            person._check(tmp_path)
    else:
        assert person._check(tmp_path) is None


def test_cure_of_a_workspace_can_be_pasted(tmp_path, monkeypatch):
    """Whatever its path has in it."""
    place = tmp_path / "my work"
    place.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WorkspaceError) as refused:
        HostUser(uid=1234)._check(place)
    assert f"sudo chown 1234 '{place}'; or" in refused.value.fix


def test_keys_are_those_that_ssh_offers(home):
    """The best first; files that hold none are passed over, as ssh does."""
    (home / ".ssh" / "id_rsa.pub").write_text("ssh-rsa AAAA me\n")
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{KEY}\n")
    (home / ".ssh" / "id_ecdsa.pub").write_bytes(b"\xff\xfe")
    assert caller.public_keys(None) == (KEY, "ssh-rsa AAAA me")


def test_no_key_is_no_mistake(home):
    """SSH is off then."""
    assert caller.public_keys(None) == ()


@pytest.mark.parametrize("content", ["-----BEGIN OPENSSH PRIVATE KEY-----\n", "word\n", "", "ssh-rsa \x1b[31m\n", None])
def test_file_without_a_public_key_is_refused(content, home):
    """Above all a private one, which goes nowhere; and one that is not there, which somebody has named."""
    if content is not None:
        (home / "key").write_text(content)
    with pytest.raises(ContainerError, match="cannot be read" if content is None else "holds no public key"):
        caller.public_keys(home / "key")


def test_private_key_of_a_public_one(home):
    """It lies beside it, or an agent has it; of those that ssh finds by itself nothing is said."""
    folder = home / "keys"
    folder.mkdir()
    for name in ("mine", "mine.pub", "agent.pub"):
        (folder / name).touch()
    found = [caller.identity(asked) for asked in (None, folder / "mine.pub", folder / "agent.pub")]
    assert found == ["", str(folder / "mine"), str(folder / "agent.pub")]
