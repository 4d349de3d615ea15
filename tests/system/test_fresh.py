"""Machines of their own: what is inside is apart from the host, and nothing of them stays, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import circumstances, machine, rootfs, visiting
from tests.fresh.__main__ import bring
from tests.fresh.cases import Wishes
from tests.fresh.options import FreshOptions
from tests.fresh.readme import Commands
from tests.waiting import until
from torchstrata.matrix.matrix import ROOT

SHOWN = ("/usr", "/etc/alternatives", "/etc/pam.d", "/etc/security")
"""What a root file system borrows from this host, so that no mirror is needed."""

HARNESS = """
import pathlib, sys
from tests.fresh import machine, rootfs, visiting
from tests.system.test_fresh import furnish
with visiting.interrupted_once(), rootfs.place(pathlib.Path(sys.argv[1]), 64_000_000 if sys.argv[2] == "disk" else None) as root:
    furnish(root)
    with machine.running(root, root.parent.name, {pathlib.Path(path): pathlib.Path(path) for path in sys.argv[3:]}) as at:
        at.check("sh", "-c", "truncate -s 1M /file && losetup -f /file")
        at.check("sh", "-c", "setsid sleep 7654 > /dev/null 2>&1 & mount -t tmpfs none /mnt; mkdir -p /sys/fs/cgroup/*/within")
        print(root, at.init, flush=True)
        at.follow("root", "sleep 7653", print)
"""


@pytest.fixture(scope="module", autouse=True)
def able():
    """These tests need what makes machines."""
    if why := machine.trouble():
        pytest.skip(why)
    bring(FreshOptions())


def furnish(root):
    """Make a root file system of directories, links and the accounts of root."""
    for name in ("proc", "sys", "dev", "run", "tmp", "mnt", "etc", "root"):
        (root / name).mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    texts = {
        "hostname": "apart\n",
        "passwd": "root:x:0:0::/root:/bin/sh\n",
        "group": "root:x:0:\n",
        "shadow": "root:*:1::::::\n",
    }
    for name, text in texts.items():
        (root / "etc" / name).write_text(text)


def shown():
    """Return what a machine of these tests sees of the host."""
    return {Path(path): Path(path) for path in SHOWN if Path(path).is_dir()}


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """Yield a machine."""
    with rootfs.place(tmp_path_factory.mktemp("machines"), None) as root:
        furnish(root)
        with machine.running(root, root.parent.name, shown()) as up:
            yield up


def test_its_processes_are_its_own(at):
    """It sees its first process, which reaps, and what runs just now; none of the host's."""

    def names():
        return sorted(at.check("sh", "-c", "cat /proc/[0-9]*/comm").split())

    at.check("sh", "-c", "sh -c 'sleep 0.1 &'")
    until(lambda: names() == ["sh", "sleep"], "the end of what nobody waited for", state=names)


@pytest.mark.parametrize("name", ["mnt", "uts", "ipc", "net", "pid", "cgroup"])
def test_its_namespaces_are_its_own(at, name):
    """No daemon in it can meet one of the host's."""
    inside = at.check("readlink", f"/proc/self/ns/{name}").strip()
    assert inside != str(Path(f"/proc/self/ns/{name}").readlink())


def test_its_network_is_one_interface_beside_the_loopback(at):
    """The host's interfaces are not there, and the way out is not one of them."""
    assert set(at.check("ls", "/sys/class/net").split()) == {"lo", "tap0"}
    assert not Path("/sys/class/net/tap0").exists()


def test_what_it_is_shown_cannot_be_changed(at):
    """The host's directories are safe from root inside."""
    status = at.follow("root", "touch /usr/something", lambda line: None)
    assert status != 0
    assert not Path("/usr/something").exists()


def test_it_has_no_variable_of_the_host(at, monkeypatch):
    """Whatever the caller has set stays outside."""
    monkeypatch.setenv("SOMETHING_OF_THE_HOST", "1")
    lines = []
    assert at.follow("root", "env", lines.append) == 0
    assert "SOMETHING_OF_THE_HOST" not in "".join(lines)


def test_its_processor_time_is_counted(at):
    """Also that of a program which nobody waits for."""
    before = at.groups.cpu_seconds()
    at.check("sh", "-c", "sh -c 'left=1000000; while [ $left -gt 0 ]; do left=$((left - 1)); done' & wait")
    assert at.groups.cpu_seconds() - before > 0.1


def test_a_failed_command_tells_its_status(at):
    """The status is the command's own."""
    assert at.follow("root", "exit 22", lambda line: None) == 22


def test_apt_locks_are_held(at):
    """A second program cannot take a lock of apt while the first one has them, and can afterwards."""
    for lock in circumstances.LOCKS:
        (at.root / lock.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    take = f'python3 -c \'import fcntl; fcntl.lockf(open("{circumstances.LOCKS[0]}", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)\''
    with circumstances.apt_held(at, 600):
        assert at.follow("root", take, lambda line: None) == 1
    assert at.follow("root", take, lambda line: None) == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("disk", ["disk", "directory"])
def test_nothing_stays(tmp_path, ending, disk):
    """Interrupted, a machine leaves nothing on the host; killed, no process, and the rest until the next one is made.

    A control group can only be removed when no process is left in it, and with its last process a namespace is gone.
    """
    words = [sys.executable, "-c", HARNESS, str(tmp_path), disk, *map(str, shown())]
    nothing = traces(tmp_path, 0)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as harness:
        assert harness.stdout.readline(), harness.stderr.read()
        files, groups, loops, mounts = traces(tmp_path, harness.pid)
        assert all(processes(group) for group in groups)
        assert (len(files), bool(groups), bool(mounts)) == (1, True, disk == "disk")
        assert loops != nothing[2]
        harness.send_signal(ending)
        harness.wait()
    if ending == signal.SIGKILL:
        until(lambda: not any(processes(group) for group in groups), "the end of all processes")
        rootfs.sweep(tmp_path)
    assert traces(tmp_path, harness.pid) == nothing


def test_the_commands_can_run_on_this_machine(monkeypatch, tmp_path):
    """Where no machine can be made they run here, in a new environment, until one fails; its status is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    commands = Commands(install="python --version", first="test -n $VIRTUAL_ENV && exit 22", second="true")
    visit = visiting.here(commands, Wishes(), verbose=False)
    assert [row.status for row in visit.rows] == [0, 0, 22]
    assert "Python 3" in visit.log.read_text()


def traces(place, owner):
    """Return the files, control groups, loop devices and mounts of machines below ``place`` that ``owner`` cares for."""
    groups = list(Path("/sys/fs/cgroup").rglob(f"{rootfs.PREFIX}{owner}-*"))
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
    listing = ["losetup", "--list", "--noheadings", "--output", "NAME"]
    loops = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    return list(place.iterdir()), groups, loops, mounts


def processes(group):
    """Return the processes of a control group and of those in it."""
    return "".join(path.read_text() for path in group.rglob("cgroup.procs")).split()
