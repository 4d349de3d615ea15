"""Sessions of nox: a failure is that of its session, names of cells that do not exist are answered. By nox itself."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torchstrata.commands import sessions
from torchstrata.matrix import matrix

NOXFILE = f"""\
import os, signal, sys
sys.path.insert(0, {str(matrix.ROOT)!r})
import nox
from torchstrata import errors, process
from torchstrata.commands import cli, sessions

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it, as nohup does
process.end_as_by_ctrl_c()

def _make(name, work):
    nox.session(sessions.part(lambda session: work()), name=name, venv_backend="none")

def _stale():
    with cli.guarded():
        raise errors.StaleLockError("the mirror dropped it", fix="lock it anew")

def _interrupted():
    with cli.guarded():
        os.kill(os.getpid(), signal.SIGINT)

def _ended_by(name):
    with cli.guarded():
        process.run("sh", "-c", f"kill -{{name}} $PPID; sleep 600; touch survived")

def _wrong():
    1 / 0

for name, work in dict(stale=_stale, interrupted=_interrupted, wrong=_wrong, left=sys.exit, good=lambda: print("good ran")).items():
    _make(name, work)
for name in ("TERM", "HUP"):
    _make(name, lambda name=name: _ended_by(name))

def _share(session):
    sessions.share_environment(session, "-r", "nothing.txt")
    session.run("python", "-c", "import sys; print('runs in', sys.prefix)")

for name in ("first", "second"):
    nox.session(sessions.part(_share), name=name, venv_backend="none")

@nox.session(venv_backend="none")
@sessions.part
def tidying(session):
    sessions.run(session, sys.executable, "tidying.py")

for name, code in dict(survivor="sys.exit(28)", died="os.kill(os.getpid(), 9)").items():
    work = lambda session, code=code: sessions.run(session, sys.executable, "-c", "import os, sys; " + code)
    nox.session(sessions.part(work), name=name, venv_backend="none")

@nox.session(venv_backend="none")
@sessions.part
@sessions.wordless
def wordless(session):
    print("worked")

@nox.session(venv_backend="none")
@sessions.part
def every(session):
    for name in ("stale", "good", "wrong"):
        session.notify(name)
"""
"""Sessions that end in every way."""


TIDYING = """\
import pathlib, signal, sys, time
try:
    print("begun", flush=True)
    while True:
        signal.pause()
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path("tidied").touch()
    sys.exit(1)
"""
"""A program that takes a second to tidy up."""


def run_nox(*words: str, cwd: Path, **more: str) -> tuple[int, str]:
    """Run nox; return its status and what it printed."""
    env = {**os.environ, "NO_COLOR": "1", **more}
    done = subprocess.run([sys.executable, "-m", "nox", *words], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path):
    """Give a directory whose sessions end in every way."""
    (tmp_path / "noxfile.py").write_text(NOXFILE)
    (tmp_path / "nothing.txt").touch()
    return tmp_path


@pytest.mark.parametrize(("name", "status"), [("stale", 20), ("survivor", 28), ("died", 1), ("interrupted", 130), ("TERM", 130), ("HUP", 130), ("left", 0)])
def test_the_only_session_of_a_call_keeps_its_exit_code(project, name, status):
    """What a script sees is the code of the error, also of a program's, 130 after Ctrl-C or a request to end, and 0 where leaving was no failure."""
    assert run_nox("-s", name, cwd=project)[0] == status


@pytest.mark.parametrize(
    ("words", "status", "said", "works"),
    [
        (("wordless",), 0, "", True),
        (("wordless", "--", "--help"), 0, "usage: nox -s wordless -- [-h]", False),
        (("wordless", "--", "-h"), 0, "usage: nox -s wordless -- [-h]", False),
        (("wordless", "good", "--", "--help"), 0, "usage: nox -s wordless -- [-h]", False),
        (("wordless", "--", "--nope"), 2, "error: unrecognized arguments: --nope\n  -> nox -s wordless -- --help", False),
        (("wordless", "good", "--", "--locked"), 0, "good ran", True),
    ],
)
def test_a_session_without_options_does_not_work_where_help_was_asked_for(project, words, status, said, works):
    """Who looks what a session takes wants no engine set up; beside others it leaves their options to them."""
    ended, output = run_nox("-s", *words, cwd=project)
    assert (ended, said in output, "worked" in output) == (status, True, works)


def test_every_session_reads_its_words_or_takes_none():
    """None does its work where only its help was asked for. Its text tells, since trying it could set up an engine."""
    tree = ast.parse((matrix.ROOT / "noxfile.py").read_text(encoding="utf-8"))
    texts = {node.name: ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "@sessions.part" in ast.unparse(node)}
    assert {"engine", "soak", "house"} <= set(texts)
    assert [name for name, text in texts.items() if not any(word in text for word in ("posargs", "_tier(", "@sessions.wordless"))] == []


def test_a_failed_session_says_its_two_lines_and_nothing_of_where_it_failed(project):
    """The error is for people: no traceback."""
    _, output = run_nox("-s", "stale", "good", cwd=project)
    assert "error: the mirror dropped it\n  -> lock it anew\n" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("words", [("stale", "good", "wrong"), ("every",)])
def test_a_failed_session_does_not_end_the_call(project, words):
    """The others run, be they asked for or notified by one; the summary has all, and the status is that of nox."""
    status, output = run_nox("-s", *words, cwd=project)
    assert status == 1
    assert "good ran" in output
    assert "Session stale aborted: exit code 20" in output
    assert [line.split(":")[0].split()[-1] for line in output.splitlines() if "> * " in line][-3:] == ["stale", "good", "wrong"]


def test_ctrl_c_ends_the_call(project):
    """Who interrupts one session wants none of the others."""
    status, output = run_nox("-s", "interrupted", "good", cwd=project)
    assert (status, "good ran" in output) == (128 + signal.SIGINT, False)


def test_a_program_can_tidy_up_after_ctrl_c(project):
    """Else containers would stay. As a terminal does, the signal goes to all of the group."""
    (project / "tidying.py").write_text(TIDYING)
    command = [sys.executable, "-m", "nox", "-s", "tidying"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True) as nox:
        assert "begun\n" in iter(nox.stdout.readline, "")
        os.killpg(nox.pid, signal.SIGINT)
    assert nox.returncode == 128 + signal.SIGINT
    assert (project / "tidied").exists()


def test_sessions_share_an_environment(project):
    """It is brought up to date once in a call, and what they run comes from it."""
    status, output = run_nox("-s", "first", "second", cwd=project)
    assert status == 0, output
    assert output.count("install") == 1
    places = [line for line in output.splitlines() if line.startswith("runs in ")]
    assert places == [f"runs in {project}/.nox/{sessions.SHARED}"] * 2


@pytest.mark.parametrize("words", [("-s", "build-2.9-cu999"), ("--session=test-2.9-cu999",), ("-e", "lint", "build-2.9-cu999", "--", "--locked")])
def test_a_cell_that_does_not_exist(words, capfd):
    """It is answered in two lines, with the nearest cells and the guide to new ones."""
    with pytest.raises(SystemExit) as ended:
        sessions.check_sessions(words, "")
    assert ended.value.code == 10
    output = "".join(capfd.readouterr())
    assert len(output.splitlines()) == 2
    assert output.startswith("error: no cell matches 2.9-cu999: upstream never published torch 2.9 for cu999\n  -> nearest: ")
    assert "docs/adding.md" in output


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("build-cpu", "build-2."),
        ("test-v2.8", "test-2."),
        ("build-gpu", "build-2."),
        ("bild-2.8-cu121", "build-2.8-cu121"),
    ],
)
def test_a_name_without_a_version_is_a_cell_too(name, nearest, capsys):
    """It is answered with the nearest cells, too; a verb that does not exist with the sessions that the cell has."""
    with pytest.raises(SystemExit) as ended:
        sessions.check_sessions(["-s", name], "")
    assert ended.value.code == 10
    assert f"nearest: {nearest}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("-k", "build and cu9"), ("-t", "cu121", "build-9"), ("--keywords", "cpu", "-s", "lint"), ("-s", "lint", "--", "build-x")])
def test_words_that_name_no_session_are_left_to_nox(words):
    """Keywords, tags, and what a session gets."""
    sessions.check_sessions(words, "")


@pytest.mark.parametrize("option", ["-k", "--keywords"])
@pytest.mark.parametrize("name", ["build-2.99", "build-cpu", "test-2.8-cu121"])
def test_a_session_is_no_keyword(option, name, capsys):
    """Nox would subtract, and run every session where the difference is not 0, the one that sets up an engine too."""
    with pytest.raises(SystemExit) as ended:
        sessions.check_sessions([option, name], "")
    assert ended.value.code == 10
    assert f"-> nox -s {name};" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "variable"), [(("-s", "build-2.9-cu999"), {}), ((), {"NOXSESSION": "lint,build-2.9-cu999"})])
def test_nox_runs_nothing_where_a_cell_does_not_exist(words, variable):
    """Be it named by an option or by the variable: the two lines are all that it prints."""
    status, output = run_nox(*words, cwd=matrix.ROOT, **variable)
    assert status == 10
    assert len(output.splitlines()) == 2


def test_the_session_that_pushed(capfd):
    """Who knows it from before learns what it has become."""
    with pytest.raises(SystemExit) as ended:
        sessions.check_sessions(["-s", "push-2.8-cu121"], "")
    assert ended.value.code == 10
    output = "".join(capfd.readouterr())
    assert "nox -s build-2.8-cu121 -- --push" in output
    assert "inv push 2.8-cu121" in output


def test_the_full_name_of_a_default_cell_runs():
    """It is not listed, since the short one is."""
    status, output = run_nox("-s", "build-2.8-cu121-debian13", "--", "--help", cwd=matrix.ROOT)
    assert (status, "Build the images of 2.8-cu121-debian13." in output) == (0, True)
