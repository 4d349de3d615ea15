"""What the doctor says of packages that lack files, and of what a user has named; root's terminal while it runs."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from container import doctor, health, notices, services, state, workspace

from tests.waiting import PATIENCE


@pytest.fixture
def venv(tmp_path):
    """An environment with two packages that share a file, as OpenCV's do."""
    site = tmp_path / "lib/python3.13/site-packages"
    for name in ("opencv_python_headless", "opencv_python"):
        info = site / f"{name}-5.0.dist-info"
        info.mkdir(parents=True)
        (info / "RECORD").write_text(f"cv2/__init__.py,,\ncv2/__pycache__/gone.pyc,,\n{info.name}/RECORD,,\n")
    (site / "cv2").mkdir()
    (site / "cv2/__init__.py").touch()
    return tmp_path


def test_packages_that_are_whole(venv):
    """Packages with all their files are well; bytecode may be missing."""
    assert [(finding.severity, finding.what) for finding in doctor.packages(venv)] == [(doctor.GOOD, f"2 in {venv}, all with their files")]


def test_package_that_lost_files(venv):
    """After the removal of one of two that share files, the doctor names the other, and what puts it right."""
    site = venv / "lib/python3.13/site-packages"
    (site / "cv2/__init__.py").unlink()
    (site / "opencv_python-5.0.dist-info/RECORD").unlink()
    (found,) = doctor.packages(venv)
    assert (found.severity, found.fix) == (doctor.WARNING, "pip install --force-reinstall --no-deps opencv_python_headless==5.0")
    assert found.what.startswith("opencv_python_headless 5.0 lacks 1 of its files")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"\xff\xfe,,\n"), lambda path: (path.unlink(), path.mkdir())])
def test_package_whose_list_is_damaged(venv, damage):
    """A list of files that is no text, or cannot be read, is a finding as well, with the same cure."""
    damage(venv / "lib/python3.13/site-packages/opencv_python-5.0.dist-info/RECORD")
    (found,) = doctor.packages(venv)
    assert (found.severity, found.fix) == (doctor.WARNING, "pip install --force-reinstall --no-deps opencv_python==5.0")


def test_package_with_a_name_to_paste(venv):
    """What a user has called a package is one word of the command, whatever it holds."""
    (venv / "lib/python3.13/site-packages/opencv_python-5.0.dist-info").rename(venv / "lib/python3.13/site-packages/$(id)-5.0.dist-info")
    (found,) = doctor.packages(venv)
    assert found.fix == "pip install --force-reinstall --no-deps '$(id)==5.0'"


def test_what_a_user_has_named_is_printable(monkeypatch, tmp_path, capsys):
    """Neither a finding nor a service that a user has named moves the cursor or begins a line."""
    assert doctor._text(doctor.Finding("a\n", doctor.WARNING, "b\x1b[2J", "c\r")).splitlines() == [
        f"{'warning':8} {'a' + chr(92) + 'n':17} b{chr(92)}x1b[2J",
        f"{'':27}-> c{chr(92)}r",
    ]
    monkeypatch.setattr(state, "of_container", lambda: tmp_path)
    (tmp_path / "services.json").write_text(json.dumps([services.Service("x\x1b[2J", 1, "http", refused="y\nz")._asdict()]))
    assert health.main([]) == 1
    assert capsys.readouterr().out == f"x{chr(92)}x1b[2J: y{chr(92)}nz\n"


APART = """
import fcntl, os, sys, termios
from container import privilege
privilege.part()
sys.stdout.write("\\x1b[2J" + os.readlink("/proc/self/fd/0") + str([os.isatty(number) for number in range(3)]) + "\\n")
try:
    open("/dev/tty")
except OSError as error:
    sys.exit(error.errno)
"""


def test_nothing_of_root_s_terminal():
    """What goes on as the user has no terminal to type in for root; what it prints is passed on printable, and its exit status as it is."""
    child, terminal = pty.fork()
    if not child:
        os.execve(sys.executable, [sys.executable, "-c", APART], {"PYTHONPATH": os.pathsep.join(sys.path)})
    with os.fdopen(terminal, "rb") as file:
        assert file.readline() == b"\\x1b[2J/dev/null[False, False, False]\r\n"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6


PRINTING = """
import os, sys
from container import privilege
privilege.part()
print("x" * 200_000)  # more than a pipe holds: it is being passed on
os.write(int(sys.argv[1]), b"!")
while True:
    print("line")
"""


def test_an_interrupt_ends_what_goes_on_as_the_user():
    """Who ends root's program ends the user's part, though that has a session of its own; also while it prints."""
    for _ in range(5):
        reader, writer = os.pipe()
        words = [sys.executable, "-c", PRINTING, str(writer)]
        running = subprocess.Popen(words, stdout=subprocess.DEVNULL, pass_fds=(writer,), env={"PYTHONPATH": os.pathsep.join(sys.path)})
        os.close(writer)
        with running, os.fdopen(reader, "rb") as file:
            assert file.read(1) == b"!"
            running.send_signal(signal.SIGINT)
            assert running.wait(PATIENCE) == 137


def test_no_thread_for_what_goes_on_as_the_user():
    """Where no thread can be started the user's part ends, and one line says why."""
    broken = "from unittest import mock; from container import privilege as p; p.threading.Thread.start = mock.Mock(side_effect=RuntimeError); "
    script = f"{broken}p.part(); p.signal.pause()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (137, b"", f"torchstrata: {' - '.join(notices.NO_THREAD)}\n")


@pytest.mark.parametrize("tell", [notices.warn, notices.inform])
def test_messages_have_an_end(capsys, tell):
    """A name of any length is cut within a message; what is said of it stays, before it and behind."""
    tell(f"LANG={'x' * 100_000}\x1b: no such locale")
    said = capsys.readouterr().err
    assert (said.startswith("torchstrata: LANG=xxx"), said.endswith("xxx\\x1b: no such locale\n"), len(said) < 1020) == (True, True, True)


def test_long_name_leaves_the_cure(capsys):
    """The cure stands whole behind a long name, in the log and in the doctor's text."""
    notices.warn("x" * 100_000, "do this")
    assert capsys.readouterr().err.endswith("xxx - do this\n")
    assert len(doctor._text(doctor.Finding("a", doctor.WARNING, "x" * 100_000, "do this"))) < 1100


@pytest.mark.parametrize(("flags", "writable", "said"), [(0, True, "can be written"), (os.ST_NOEXEC, True, "torch.compile"), (0, False, "cannot be written")])
def test_temporary_files(monkeypatch, tmp_path, flags, writable, said):
    """A place of temporary files that is mounted noexec is named with what fails there, and so is one that cannot be written."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(doctor.os, "access", lambda *_: writable)
    monkeypatch.setattr(doctor.os, "statvfs", lambda _: os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, flags, 0)))
    (found,) = doctor.temporary()
    severity = doctor.GOOD if writable and not flags else doctor.WARNING
    assert (found.severity, said in found.what, str(tmp_path) in found.what, "exec" in found.fix) == (severity, True, True, severity != doctor.GOOD)


@pytest.mark.parametrize(
    ("script", "severity", "what"), [("print('all is well')", doctor.GOOD, "all is well"), ("assert False, 'wrong'", doctor.ERROR, "wrong")]
)
def test_a_test_of_torch_that_fails_is_an_error(monkeypatch, tmp_path, script, severity, what):
    """What Python ends with where an assertion fails is no warning: torch does not work."""
    monkeypatch.setattr(doctor, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(doctor, "PROBES", tmp_path)
    (tmp_path / "smoke.py").write_text(script)
    (finding,) = doctor.torch()
    assert (finding.severity, finding.what.removeprefix("AssertionError: ")) == (severity, what)


@pytest.fixture
def full_disk():
    """No file of this process grows beyond a megabyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_workspace_without_room(monkeypatch, tmp_path):
    """A workspace that takes no more is a finding, with what cures it; nothing of the attempt is left."""
    monkeypatch.setattr(workspace, "WORKSPACE", tmp_path)
    found = list(doctor.disk())[-1]
    assert (found.subject, found.severity, "32 MiB cannot be written: File too large" in found.what) == ("disk", doctor.ERROR, True)
    assert "make room" in found.fix
    assert list(tmp_path.iterdir()) == []
