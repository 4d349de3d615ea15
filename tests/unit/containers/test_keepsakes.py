"""What this machine remembers of a container: private, and gone with it."""

from __future__ import annotations

import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.errors import ContainerError


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Give the directory of a user's configuration of ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / ".ssh"


def test_token_is_private_and_stays(ssh):
    """A restart keeps people's bookmarks."""
    kept = Keepsakes.of("one")
    kept.make_token(1000)
    token = kept.read_token()
    kept.make_token(1000)
    assert kept.read_token() == token
    assert len(token) == 48
    assert stat.S_IMODE(kept.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.root.stat().st_mode) == 0o700


def test_containers_have_tokens_of_their_own(ssh):
    """One does not open another."""
    for name in ("one", "two"):
        Keepsakes.of(name).make_token(1000)
    assert Keepsakes.of("one").read_token() != Keepsakes.of("two").read_token()


def test_entry_stands_before_the_users_own(ssh):
    """Below a host of theirs it would count for that one alone."""
    ssh.mkdir()
    (ssh / "config").write_text("Host *.example\n    User ada\n")
    Keepsakes.of("one").add_entry("127.0.0.1", 2222)
    assert (ssh / "config").read_text() == "Include torchstrata.config\nHost *.example\n    User ada\n"
    assert (ssh / "torchstrata.config").read_text().startswith("Host one\n    HostName 127.0.0.1\n    Port 2222\n    User dev\n    HostKeyAlias one\n")


def test_entry_has_the_key_that_was_asked_for(ssh):
    """Where ssh would not look by itself."""
    Keepsakes.of("one").add_entry("127.0.0.1", 2222, "/my keys/id")
    assert (ssh / "torchstrata.config").read_text().endswith('    IdentityFile "/my keys/id"\n')


def test_entry_is_made_once(ssh):
    """A second time it is corrected; those of others, whose names begin alike, stay."""
    for name, port in [("one", 1), ("one.b", 2), ("one", 3)]:
        Keepsakes.of(name).add_entry("127.0.0.1", port)
    entries = (ssh / "torchstrata.config").read_text()
    assert [line.split()[1] for line in entries.splitlines() if "Port" in line] == ["2", "3"]
    assert [line for line in entries.splitlines() if "Host " in line] == ["Host one.b", "Host one"]
    assert (ssh / "config").read_text() == "Include torchstrata.config\n"


def test_nothing_is_left_of_a_container(ssh):
    """Token, host key and entry go; others stay."""
    for name in ("one", "two"):
        kept = Keepsakes.of(name)
        kept.make_token(1000)
        kept.know_host("ssh-ed25519 AAAA torchstrata")
        kept.add_entry("127.0.0.1", 2222)
    Keepsakes.of("one").forget()
    assert Keepsakes.of("one").read_token() is None
    assert not Keepsakes.of("one").root.exists()
    assert "Host one\n" not in (ssh / "torchstrata.config").read_text()
    assert "Host two\n" in (ssh / "torchstrata.config").read_text()
    assert Keepsakes.of("two").known_hosts.read_text() == "two ssh-ed25519 AAAA\n"


def test_entries_that_are_made_at_once_are_all_there(ssh):
    """None is lost to another that was read before it was written."""
    names = [f"desk-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: Keepsakes.of(name).add_entry("127.0.0.1", 2222), names))
    assert sorted(line for line in (ssh / "torchstrata.config").read_text().splitlines() if line.startswith("Host ")) == sorted(
        f"Host {name}" for name in names
    )
    assert (ssh / "config").read_text() == "Include torchstrata.config\n"


def test_configuration_of_ssh_stays_as_it_was_but_for_our_line(ssh):
    """Its encoding, its mode, and the link that leads to where somebody keeps it."""
    ssh.mkdir()
    own = "# B\u00fcro\nHost *.example\n".encode("latin-1")
    (ssh.parent / "dotfiles").write_bytes(own)
    (ssh.parent / "dotfiles").chmod(0o640)
    (ssh / "config").symlink_to(ssh.parent / "dotfiles")
    Keepsakes.of("one").add_entry("127.0.0.1", 2222)
    assert (ssh / "config").is_symlink()
    assert (ssh.parent / "dotfiles").read_bytes() == b"Include torchstrata.config\n" + own
    assert stat.S_IMODE((ssh / "config").stat().st_mode) == 0o640


def test_link_that_leads_to_itself_is_no_configuration_of_ssh(ssh):
    """Nothing is lost with it; the container runs by then, and its entry is not to end in a traceback."""
    ssh.mkdir()
    (ssh / "config").symlink_to("config")
    Keepsakes.of("one").add_entry("127.0.0.1", 2222)
    assert (ssh / "config").read_text() == "Include torchstrata.config\n"


def test_configuration_of_ssh_survives_a_full_disk(ssh):
    """It is written beside the old one, which goes only then."""
    ssh.mkdir()
    own = "Host *.example\n    User ada\n" * 400
    (ssh / "config").write_text(own)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(ContainerError, match="cannot be written"):
            Keepsakes.of("one").add_entry("127.0.0.1", 2222)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ssh / "config").read_text() == own


@pytest.mark.parametrize("home", [None, Path("/nowhere")])
def test_who_has_no_entry_can_forget(home, ssh, monkeypatch):
    """No other process is waited for then, nor is anything written."""
    kept = Keepsakes.of("one")
    kept.make_token(1000)
    monkeypatch.setattr("torchstrata.host.home.directory", lambda: home)
    kept.forget()
    assert list(kept.root.parent.iterdir()) == []
