"""Git against servers that people use."""

from __future__ import annotations


def test_over_ssh(start):
    """Git reaches for a server by SSH, as ``git clone git@HOST:...`` does: here it is refused by nobody but the network."""
    box = start("git", "ls-remote", "git@127.0.0.1:team/project.git", network_mode="none")
    assert box.ended() == 128
    assert "ssh: connect to host 127.0.0.1 port 22: Connection refused" in box.errors
