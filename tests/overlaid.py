"""A view of this machine in which anything may be installed: what is written there lies in memory, and is gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Final

from torchstrata.host import superuser

ROOT: Final = Path(__file__).parents[1]
USER: Final = "tester"

SETUP: Final = """\
set -eu
mount -t tmpfs none "$1"
chmod 755 "$1"
for each in etc usr var opt root; do
    mkdir -m 755 -p "$1/$each/upper" "$1/$each/work"
    mount -t overlay -o "lowerdir=/$each,upperdir=$1/$each/upper,workdir=$1/$each/work" overlay "/$each"
done
mkdir -m 1777 "$1/tmp"
echo up
exec cat
"""
"""The upper directories open ``/root`` to everybody, there only, so that other users can run this interpreter."""


@dataclass(frozen=True)
class Overlaid:
    """The view.

    :param enter: the start of command lines that run in it as root.
    :param scratch: a directory that exists there only, for everybody.
    """

    enter: tuple[str, ...]
    scratch: Path

    def root(self, *command: str | Path) -> str:
        """Run a command as root and return its output."""
        return subprocess.run([*self.enter, *command], check=True, capture_output=True, text=True).stdout

    def start(self, code: str, *words: str, user: str = "root", env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start Python code, with this checkout's package, as a user."""
        variables = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.scratch), **(env or {})}
        kept = {name: os.environ[name] for name in ("PATH", "http_proxy", "https_proxy", "no_proxy", "APT_CONFIG") if name in os.environ}
        assigned = (f"{name}={value}" for name, value in (kept | variables).items())
        switch = () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        home = f"HOME={self.scratch}/{user}"
        command = [*self.enter, *switch, "env", "-i", home, f"USER={user}", *assigned, sys.executable, "-c", code, *words]
        return subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, code: str, *words: str, user: str = "root", env: Mapping[str, str] | None = None) -> list[str]:
        """Run Python code to its good end and return the lines of its output."""
        with self.start(code, *words, user=user, env=env) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, output
        return output.splitlines()

    @contextmanager
    def offline(self) -> Iterator[Overlaid]:
        """Give the same view in a network of its own, which has nothing but an address of loopback that is down."""
        with subprocess.Popen([*self.enter, "unshare", "--net", "sh", "-c", "echo up; exec cat"], stdin=PIPE, stdout=PIPE, text=True) as keeper:
            pid = _keeping(keeper)
            yield Overlaid(superuser.command("nsenter", f"--target={pid}", "--mount", "--net"), self.scratch)
            keeper.communicate()

    def add_user(self) -> str:
        """Make an ordinary user with a home and with subordinate ids; return the name."""
        self.root("useradd", "--create-home", "--home-dir", self.scratch / USER, USER)
        return USER


@contextmanager
def overlaid() -> Iterator[Overlaid]:
    """Make the view, as root or by sudo, and take it away."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        command = superuser.command("unshare", "--mount", "sh", "-c", SETUP, "sh", folder)
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as keeper:
            pid = _keeping(keeper)
            yield Overlaid(superuser.command("nsenter", f"--target={pid}", "--mount"), Path(folder, "tmp"))
            keeper.communicate()


def _keeping(keeper: subprocess.Popen[str]) -> int:
    """Return, once all is set up, the process that keeps the namespaces: sudo stays the parent of what it starts."""
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "up\n"
    pid = keeper.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid
