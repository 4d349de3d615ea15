"""What benchmarks of hardening (CIS for Debian and for Docker) ask of an image's files and accounts, looked at as root."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import PROBES

PROBE = PROBES / "baseline.py"


@pytest.fixture(scope="module")
def baseline(start_shared):
    """What the probe of the container's files and accounts has found."""
    box = start_shared("sleep", "infinity", network_mode="none")
    assert box.has_begun()
    done = box.run("/usr/bin/python3", "-I", "-", user="0:0", stdin=PROBE.read_bytes())
    assert done.status == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize(
    "check",
    [
        "writable by anybody",
        "directory without sticky bit",
        "without owner",
        "of the system, writable by others than root",
        "capabilities",
        "preloaded",
        "world-readable secrets",
        "keys and logins",
        "caches of packages",
        "links of the system to what a user may write",
    ],
)
def test_files(baseline, check):
    """No file of the image is of this kind."""
    assert baseline["files"][check] == []


@pytest.mark.parametrize("check", ["empty password", "password", "password in passwd", "second root", "twice", "legacy entry", "without group", "login shell"])
def test_accounts(baseline, check):
    """No account is of this kind: nobody has a password, and nobody but the user, root and sync has a shell."""
    assert baseline["accounts"][check] == []


@pytest.mark.parametrize("check", ["empty", "relative", "writable by anybody"])
def test_path(baseline, check):
    """No directory on PATH is one where somebody else could put a program."""
    assert baseline["path"][check] == []


def test_rights_of_account_files(baseline):
    """Only root changes accounts, only root and its group shadow see passwords."""
    assert baseline["modes"] == {"/etc/passwd": "644 0", "/etc/group": "644 0", "/etc/shadow": "640 0", "/etc/gshadow": "640 0", "/tmp": "1777 0"}


@pytest.mark.parametrize("package", ["cron", "at", "telnetd", "rsh-server", "tftpd", "nis", "xinetd", "sudo", "avahi-daemon", "exim4-base", "rpcbind"])
def test_packages(baseline, package):
    """No package brings what a container has no use for and an attacker has."""
    assert package not in baseline["packages"]
