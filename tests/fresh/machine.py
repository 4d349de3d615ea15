"""A machine: a root file system that runs with namespaces, control groups and a network of its own. Nothing of it stays.

Its network is slirp4netns, which is a process of the host like any other: the host's interfaces, forwarding and firewall
stay as they are, and an engine inside has a bridge of its own. Wheels come in nearly as fast as the host gets them
(112 MB/s of 122).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.fresh import cgroups
from tests.fresh.cgroups import Groups
from torchstrata import process
from torchstrata.errors import CommandError

BOOT: Final = Path(__file__).with_name("boot")
BOUND: Final = ("setpriv", "--pdeathsig", "KILL")
"""The beginning of a command line whose rest ends with this process, however that ends."""

NAMESPACES: Final = ("mount", "uts", "ipc", "net", "pid", "cgroup")
RESOLVER: Final = "10.0.2.3"
"""Where slirp4netns passes questions on to the host's resolver."""

ADDRESS: Final = "10.0.2.100"
"""Its own, which slirp4netns gives it."""

INTERFACE: Final = ("--configure", "--mtu=65520", "--disable-host-loopback")
PATHS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine that is up.

    :param root: its root file system, seen from the host.
    :param init: its first process, seen from the host.
    """

    root: Path
    init: int
    groups: Groups

    def inside(self, *words: str) -> tuple[str, ...]:
        """Return the command line that runs ``words`` in it as root, with no variable of the host."""
        enter = ("nsenter", "--target", str(self.init), *(f"--{name}" for name in NAMESPACES), "--root", "--wd=/")
        return (*BOUND, *self.groups.joining(), *enter, "--", "env", "--ignore-environment", f"PATH={PATHS}", *words)

    def login(self, user: str, line: str) -> tuple[str, ...]:
        """Return the command line that gives ``line`` to a login shell of ``user``."""
        return self.inside("su", "--login", user, "--command", line)

    def follow(self, user: str, line: str, on_line: process.LineSink) -> int:
        """Run ``line`` in a login shell of ``user`` and return its status.

        :param on_line: called with each line of output, from two threads.
        """
        return process.follow(*self.login(user, line), on_line=on_line)

    def check(self, *words: str, stdin: bytes | None = None) -> str:
        """Run ``words`` as root, which the administrator of the machine would do, and return what they print.

        :raises Failed: they failed.
        """
        return process.run(*self.inside(*words), stdin=stdin)


@contextlib.contextmanager
def running(root: Path, name: str, shown: Mapping[Path, Path] = MappingProxyType({})) -> Iterator[Machine]:
    """Start a machine, and at the end kill all that runs in it.

    :param root: its root file system; what it changes there stays.
    :param name: of its control groups.
    :param shown: directories of the host that it sees, unchangeable, and where.
    :raises CommandError: this host cannot make namespaces, or lacks a program.
    """
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    with cgroups.groups(name) as groups, _booted(root, groups, shown) as init, _connected(init, groups):
        yield Machine(root=root, init=init, groups=groups)


def trouble() -> str | None:
    """Return why no machine can be started here; None where nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "only root can make its namespaces"
    try:
        process.run("unshare", *(f"--{name}" for name in NAMESPACES), "--fork", "mount", "--make-rprivate", "/")
        with cgroups.groups(f"torchstrata-fresh-{os.getpid()}"):
            pass
    except CommandError as error:
        return f"its namespaces cannot be made: {error.what}"
    except OSError as error:
        return f"its control groups cannot be made: {error}"
    return None if os.access("/dev/net/tun", os.W_OK) else "there is no /dev/net/tun for its network"


@contextlib.contextmanager
def _booted(root: Path, groups: Groups, shown: Mapping[Path, Path]) -> Iterator[int]:
    """Run :file:`boot` as the first process of new namespaces, yield its number once it is up, and kill it."""
    separate = ("unshare", *(f"--{name}" for name in NAMESPACES), "--fork", "--kill-child", "--")
    places = "".join(f"{path}\t{place}\n" for path, place in shown.items())
    given = {"ROOT": str(root), "HIERARCHIES": groups.hierarchies, "SHOWN": places, "PATH": PATHS}
    command = [*BOUND, *groups.joining(), *separate, str(BOOT)]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True) as outer:
        try:
            assert outer.stdout is not None
            assert outer.stderr is not None
            if outer.stdout.readline() != "up\n":
                why = outer.stderr.read().strip().splitlines()[-1:] or ["it does not say why"]
                raise CommandError(
                    f"a machine cannot be started here: {why[0]}",
                    fix="run it as root of a host that may make namespaces",
                )
            (init,) = _children(outer)
            yield init
        finally:
            for init in _children(outer) or [outer.pid]:
                os.kill(init, signal.SIGKILL)  # the kernel then ends all others of its namespace
            outer.wait()


def _children(program: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


@contextlib.contextmanager
def _connected(init: int, groups: Groups) -> Iterator[None]:
    """Give the machine a network for as long as it runs."""
    ready, tell = os.pipe()
    command = [
        *BOUND,
        *groups.joining(),
        process.find("slirp4netns"),
        *INTERFACE,
        f"--ready-fd={tell}",
        str(init),
        "tap0",
    ]
    with subprocess.Popen(command, pass_fds=[tell], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as network:
        os.close(tell)
        try:
            assert network.stderr is not None
            with os.fdopen(ready, "rb") as answer:
                if answer.read(1) != b"1":
                    raise CommandError(
                        f"slirp4netns: {network.stderr.read().decode().strip()}",
                        fix="check that /dev/net/tun is there",
                    )
            yield
        finally:
            network.send_signal(signal.SIGTERM)
