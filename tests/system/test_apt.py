"""apt on a machine where others use it too: real installations in a view of this machine that is thrown away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.overlaid import Overlaid, overlaid

PACKAGE = "hello-traditional"
"""A package without dependencies that nobody has."""

INSTALL = """
import shutil, sys
from torchstrata.host import apt
(name,) = sys.argv[1:]
there = lambda: shutil.which("hello") is not None
print(apt.install([name], lambda line: print(line, flush=True), unless=there))
"""
HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def machine() -> Iterator[Overlaid]:
    """Give a view of this machine that this test may change."""
    with overlaid() as view:
        yield view


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_installation_waits_for_the_machines_own_updates(machine: Overlaid, lock: str) -> None:
    """While another program holds a lock, one line says so; when it lets go, the package is installed."""
    with machine.start(HOLD, lock) as holder, machine.start(INSTALL, PACKAGE) as installing:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert installing.stdout is not None
        lines = []
        while not lines or "waiting up to" not in lines[-1]:
            lines.append(installing.stdout.readline())
            assert lines[-1], lines
        holder.communicate("")
        rest, _ = installing.communicate()
    assert lock in lines[-1]
    assert rest.splitlines()[-1] == "True", rest
    assert machine.root("hello", "--version").startswith("hello")
    assert subprocess.run([sys.executable, "-c", "import shutil; exit(bool(shutil.which('hello')))"], check=True).returncode == 0


def test_sudo_without_password_installs_for_an_ordinary_user(machine: Overlaid) -> None:
    """The first line says that sudo is used; without such a sudo nothing is installed."""
    machine.run(INSTALL.replace('"hello"', '"sudo"'), "sudo")
    user = machine.add_user()
    with machine.start(INSTALL, PACKAGE, user=user) as refused:
        said, _ = refused.communicate()
    assert "needs root, and there is no sudo that asks for no password" in said
    machine.root("sh", "-c", f"echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}")
    lines = machine.run(INSTALL, PACKAGE, user=user)
    assert lines[0] == f"installing {PACKAGE} needs root: using sudo, which asks for no password"
    assert lines[-1] == "True"
    assert machine.run(INSTALL, PACKAGE, user=user) == ["False"]
