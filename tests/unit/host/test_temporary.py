"""Temporary directories: gone with their run, or with the next one, whatever is in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import script
from tests.waiting import PATIENCE
from torchstrata.errors import DiskFullError, StoreError
from torchstrata.host import leavings, temporary
from torchstrata.host.leavings import Leaving

DIE = """
import os, signal, sys
from torchstrata.host import temporary
with temporary.directory() as directory:
    (directory / "large").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Let temporary directories lie in a directory of this test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    temporary._sweep.cache_clear()
    yield tmp_path / f"torchstrata-{os.geteuid()}"
    temporary._sweep.cache_clear()


def die(place: Path) -> None:
    """Have another process killed that has a temporary directory."""
    ended = subprocess.run([sys.executable, "-c", DIE], env={**os.environ, "TMPDIR": str(place.parent)}, check=False)
    assert ended.returncode == -signal.SIGKILL


def left(place: Path) -> list[str]:
    """Return what lies there, but for the lock that orders those who look."""
    return sorted(path.name for path in (place / "runs").iterdir() if path.name != "claim")


def test_a_directory_goes_with_its_block(place):
    """Nothing is left of it."""
    with temporary.directory() as directory:
        (directory / "deep" / "file").mkdir(parents=True)
    assert left(place) == []


def test_a_directory_goes_with_a_block_that_is_interrupted(place):
    """As by Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), temporary.directory():
        raise KeyboardInterrupt
    assert left(place) == []


def test_the_next_run_removes_what_a_killed_one_has_left(place):
    """Not what a living one has."""
    with temporary.directory() as kept:
        die(place)
        die(place)
        temporary._sweep.cache_clear()
        with temporary.directory():
            assert len(left(place)) == 4
        assert kept.is_dir()
    assert left(place) == []


def test_programs_of_a_killed_run_end_before_its_directory_goes(place):
    """One that has the directory as its temporary one would go on to write there."""
    die(place)
    (killed,) = (path for path in (place / "runs").iterdir() if path.is_dir())
    sleeping = [sys.executable, "-c", f"import time; print(1, flush=True); time.sleep({PATIENCE})"]
    with subprocess.Popen(sleeping, env={**os.environ, "TMPDIR": str(killed / "work")}, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout.readline() == b"1\n"
        temporary._sweep.cache_clear()
        with temporary.directory():
            assert orphan.wait(PATIENCE) == -signal.SIGKILL
    assert left(place) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_others_may_pass_and_nothing_else(place, umask):
    """Users of a namespace must reach what mmdebstrap works on; nobody else may list or write there, nor hold the lock."""
    before = os.umask(umask)
    try:
        with temporary.directory() as directory:
            modes = {path.name: path.stat().st_mode & 0o777 for path in (place, place / "runs", directory, place / "runs" / "claim")}
    finally:
        os.umask(before)
    assert modes == {place.name: 0o711, "runs": 0o711, directory.name: 0o711, "claim": 0o600}


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("/")])
def test_what_somebody_else_put_there_is_refused(place, make):
    """Another user may make a file or a link of that name first: nothing is written through it."""
    make(place)
    with pytest.raises(StoreError, match="not a directory of yours"), temporary.directory():
        pass


def test_a_full_disk_is_told(place):
    """Whatever writes there."""
    with pytest.raises(DiskFullError, match="no space") as told, temporary.directory():
        raise OSError(28, "No space left on device")
    assert "TMPDIR" in told.value.fix


def test_full_disks_everywhere_are_told(monkeypatch, tmp_path):
    """Python looks for a directory that takes a file, and finds none."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(DiskFullError, match="no directory for temporary files") as told:
        temporary.own()
    assert "TMPDIR" in told.value.fix


def test_what_is_in_an_engine_goes_before_the_directory(place, tmp_path, monkeypatch):
    """While the engine does not answer the directory stays, and with it the list."""
    script(tmp_path / "docker", f'echo "$@" >> "{tmp_path}/asked"\n[ ! -e "{tmp_path}/silent" ]')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "silent").touch()
    with temporary.directory() as directory:
        Leaving.of("container", "one").listed(directory)
    assert directory.is_dir()
    (tmp_path / "silent").unlink()
    temporary._sweep.cache_clear()
    with temporary.directory():
        assert not directory.exists()
    assert (tmp_path / "asked").read_text() == "rm --force --volumes -- one\n" * 2


@pytest.mark.parametrize("program", ["exec sleep 1000", "echo removal of container one is already in progress >&2\nexit 1"], ids=["silent", "at it"])
def test_an_engine_that_does_not_end_is_not_waited_for(tmp_path, monkeypatch, program):
    """Whoever cleans up may hold what other runs need; the list stays for a later one."""
    monkeypatch.setattr(leavings, "SECONDS", 0.5)
    script(tmp_path / "docker", program)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Leaving.of("container", "one").listed(tmp_path)
    assert not leavings.removed(tmp_path)


def test_a_removal_that_has_begun_is_waited_for(tmp_path, monkeypatch):
    """An engine removes a container that ends by itself, and refuses to do so twice; a second look finds it gone."""
    monkeypatch.setattr(leavings, "PAUSE", 0)
    begun = "Error response from daemon: removal of container one is already in progress"
    gone = "Error response from daemon: No such container: one"
    script(tmp_path / "docker", f'[ -e "{tmp_path}/again" ] && echo "{gone}" >&2 || echo "{begun}" >&2\n> "{tmp_path}/again"\nexit 1')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Leaving.of("container", "one").listed(tmp_path)
    assert leavings.removed(tmp_path)


def test_what_is_in_another_engine_stays(place, tmp_path, monkeypatch):
    """Only a run that uses the same engine can remove it."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    Leaving.of("image", "one").listed(tmp_path)
    monkeypatch.delenv("DOCKER_HOST")
    assert not leavings.removed(tmp_path)


@pytest.mark.parametrize("line", [b'{"kind": "container", "name"', b'{"kind": "container", "name"\n', b"\xff\n", b'{"kind": "host"}\n'])
def test_a_damaged_list_is_no_reason_to_stop(tmp_path, line):
    """A line that was cut short was written before anything was made."""
    (tmp_path / leavings.LIST).write_bytes(line)
    assert leavings.removed(tmp_path)


@pytest.mark.parametrize("name", ["plain", "ä", "with space", "tab\there", "back\\slash", "\udcff"])
def test_a_mount_below_is_seen_whatever_its_name(tmp_path, monkeypatch, name):
    """What was not seen would be removed through the mount. The kernel writes some bytes in octal, all others as they are."""
    point = tmp_path / name / "dev"
    octal = {ord(" "): b"\\040", ord("\t"): b"\\011", ord("\n"): b"\\012", ord("\\"): b"\\134"}
    written = b"".join(octal.get(byte, bytes([byte])) for byte in os.fsencode(point))
    table = tmp_path / "mountinfo"
    table.write_bytes(b"24 1 0:22 / / rw - ext4 /dev/vda rw\n25 24 0:23 / " + written + b" rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(temporary, "MOUNTS", table)
    assert temporary.mounts(tmp_path) == (str(point),)
    assert temporary.mounts(tmp_path / "other") == ()
