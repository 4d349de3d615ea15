"""What torchstrata itself needs: names in pyproject.toml, versions and hashes in two locks, and nox in an environment of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from torchstrata import environment
from torchstrata.errors import LockError
from torchstrata.locks import requirements
from torchstrata.matrix.matrix import ROOT

FILES = ("pyproject.toml", *requirements.LOCKS)
INVOKE = re.compile(r"^invoke==(?P<version>\S+) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


@pytest.fixture
def root(tmp_path):
    """Return a directory with pyproject.toml and both locks."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def edit(path: Path, old: str | re.Pattern[str], new: str) -> None:
    """Replace a text that must be there."""
    text, count = re.subn(old, new, path.read_text())
    assert count
    path.write_text(text)


def bump(path: Path) -> None:
    """Move invoke as Dependabot's updater of requirements files does: version and hashes of that package, nothing else."""
    edit(path, INVOKE, "invoke==9.9.9 \\\\\\n" + "    --hash=sha256:" + "a" * 64 + "\\n")


def test_pyproject_and_locks_agree():
    """Every name has one version with hashes, and both locks have the same."""
    assert requirements.check(ROOT) == []


def test_a_bot_may_move_a_package(root):
    """It edits all files that have the package, and is done: nothing else must follow."""
    for name in requirements.LOCKS:
        bump(root / name)
    assert requirements.check(root) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("requirements.txt", INVOKE, "", "requirements.txt has no invoke"),
        ("requirements-dev.txt", r"^pytest==(?:.*\\\n)*.*\n", "", "requirements-dev.txt has no pytest"),
        ("requirements.txt", r"(?m)^invoke==\S+", "invoke==9.9.9", "invoke is 9.9.9 in requirements.txt, "),
        ("requirements.txt", INVOKE, "invoke==3.0.3\n", "requirements.txt: invoke==3.0.3 is not pinned"),
        ("pyproject.toml", r'"invoke"', '"invoke>=99"', "requirements-dev.txt has no invoke>=99"),
    ],
)
def test_what_does_not_agree_is_named(root, name, old, new, what):
    """With the verb that mends it."""
    edit(root / name, re.compile(old, re.MULTILINE) if isinstance(old, str) else old, new)
    problems = requirements.check(root)
    assert what in "\n".join(problem.what for problem in problems)
    assert {problem.fix for problem in problems} == {"run: inv lock --tool"}


def test_this_environment_has_what_the_lock_says():
    """So what is tested is what everybody gets."""
    assert environment.missing() == []


def test_another_version_is_missing(root):
    """Then nox goes on in an environment of its own; a package that other systems need is not missing."""
    bump(root / "requirements.txt")
    assert environment.missing(root / "requirements.txt") == ["invoke==9.9.9"]


NOX = (sys.executable, "-m", "nox", "--list")


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout, in so far as nox needs it, whose lock wants a package that is not there."""
    for name in ("noxfile.py", "requirements.txt", "torchstrata"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "requirements.txt").write_text("a-package-that-is-not-there==1 --hash=sha256:" + "a" * 64 + "\n")
    return tmp_path


def test_where_a_package_cannot_be_had_nox_says_so(checkout):
    """In two lines, whatever nox itself would make of it, and the next call begins anew."""
    settings = {**os.environ, "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}
    ended = subprocess.run(NOX, cwd=checkout, env=settings, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "noxfile.py: the packages of requirements.txt cannot be installed: see above\n  -> " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((checkout / ".nox/locked").glob("*/complete"))


def test_a_lock_that_is_not_there_is_told(monkeypatch, tmp_path, capsys):
    """With the command that brings it back."""
    monkeypatch.setattr(environment, "LOCK", tmp_path / "requirements.txt")
    with pytest.raises(SystemExit) as ended:
        environment.enter(["-l"])
    assert ended.value.code == LockError.code
    assert capsys.readouterr().err.endswith("  -> run: git checkout HEAD -- requirements.txt\n")


def test_what_another_user_has_made_serves(monkeypatch, tmp_path):
    """As after ``sudo nox -s engine``: the lock may belong to root, which is no matter once the environment is complete."""
    entered = []
    monkeypatch.setattr(environment, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environment, "missing", lambda: ["invoke==9.9.9"])
    monkeypatch.setattr(os, "execv", lambda program, words: entered.append(program))
    made = tmp_path / environment.name()
    Path(f"{made}.lock").mkdir()  # which nobody can lock, not even root
    made.mkdir()
    (made / "complete").touch()
    environment.enter(["-l"])
    assert entered == [made / "bin/python"]


def test_a_checkout_that_cannot_be_written_to_is_told_in_two_lines(checkout):
    """Nox would show where in its own code that happened."""
    (checkout / ".nox").touch()  # no directory, so that root cannot write to it either
    ended = subprocess.run(NOX, cwd=checkout, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"noxfile.py: {checkout}/.nox")
    assert ended.stderr.splitlines()[1].startswith("  -> use a clone of your own; or ")
    assert len(ended.stderr.splitlines()) == 2


def test_who_ends_an_installation_ends_it_all(checkout):
    """What installs would go on, and be in the way of the next call."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        address = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        settings = {**os.environ, "UV_DEFAULT_INDEX": address, "PIP_INDEX_URL": address, "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(NOX, cwd=checkout, env=settings, stderr=subprocess.PIPE, text=True) as nox:
            asking, _ = index.accept()
            nox.send_signal(signal.SIGTERM)
            said = nox.communicate()[1]
        with asking:
            while asking.recv(1 << 16):  # ends when the one that asks has ended
                pass
    assert nox.returncode == 130
    assert said.endswith("interrupted; the next call installs them anew\n")
    assert "Traceback" not in said


def test_a_lock_that_a_merge_has_left_is_told_in_two_lines(checkout):
    """By nox, which reads it first, and by the check of locks."""
    (checkout / "requirements.txt").write_text("<<<<<<< HEAD\ninvoke==3.0.3\n=======\n")
    ended = subprocess.run(NOX, cwd=checkout, check=False, capture_output=True, text=True)
    said = "requirements.txt has a line that is no requirement: <<<<<<< HEAD\n  -> run: git checkout HEAD -- requirements.txt"
    assert (ended.returncode, ended.stderr) == (11, f"error: {said}\n")
    with pytest.raises(LockError, match="no requirement: <<<<<<< HEAD"):
        list(environment.read(checkout / "requirements.txt"))


def test_uv_is_the_locked_one():
    """It resolves the images' locks, so another one might write other locks."""
    assert metadata.version("uv") in (ROOT / "requirements.txt").read_text()
