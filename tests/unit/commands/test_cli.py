"""How a command ends: two lines, one exit code."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from torchstrata import errors
from torchstrata.commands import cli, verbs
from torchstrata.commands.verbs import VERBS

ROOT = Path(__file__).parents[3]
GOING_ON = {"attest", "join", "lock", "mirror", "nightly", "push", "sizes", "try-os"}
"""Verbs whose next run goes on where the last one stopped."""


def exit_code(error):
    """Return the status with which a command ends that raises ``error``."""
    with pytest.raises(SystemExit) as ended, cli.guarded():
        raise error
    return ended.value.code


def test_an_error_is_two_lines_and_a_code(capsys):
    """A person reads what is wrong and what to do, once, on standard error."""
    assert exit_code(errors.LockError("it is wrong", fix="mend it")) == errors.LockError.code
    assert capsys.readouterr().err == "error: it is wrong\n  -> mend it\n"


def test_ctrl_c_is_status_130(capsys):
    """Shells report it so; the line says that nothing complete is lost."""
    assert exit_code(KeyboardInterrupt()) == 130
    assert "the next run goes on from there" in capsys.readouterr().err


AT_THE_BEGINNING_OF_A_GUARD = """
import contextlib, os, signal, sys
from torchstrata.commands import cli, verbs
cli.answer_interrupts()
def trace(frame, event, _):
    entering = frame.f_code is contextlib._GeneratorContextManager.__enter__.__code__
    if entering and event == "return" and frame.f_locals["self"].gen.gi_code.co_name == "guarded":
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGTERM)
    return trace
sys.settrace(trace)
verbs.run(["--list"])
"""


def test_an_interruption_at_the_beginning_of_a_guard_is_told():
    """The guard has begun and catches nothing yet; Invoke, which caught it, ended with 1 and without a word."""
    done = subprocess.run([sys.executable, "-c", AT_THE_BEGINNING_OF_A_GUARD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (errors.INTERRUPTED, "", f"\n{cli.BETWEEN}\n")


DROPPED_BETWEEN = """
import os, signal, time
from torchstrata.commands import cli
cli.answer_interrupts()
class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
Gone()
time.sleep(60)
"""


def test_an_interruption_that_comes_again_is_told_once():
    """Python drops the first one's end, as it does while modules are imported, but not the line that was written."""
    done = subprocess.run([sys.executable, "-c", DROPPED_BETWEEN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (errors.INTERRUPTED, f"\n{cli.BETWEEN}\n")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_each_verb_says_what_is_true_after_ctrl_c(verb, monkeypatch, capsys):
    """Only what builds, pushes or locks goes on from where it was."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "function", lambda _: interrupted)
    with pytest.raises(SystemExit) as stopped:
        verbs.work(verb.work, None, interrupted=verb.interrupted)
    assert stopped.value.code == errors.INTERRUPTED
    assert capsys.readouterr().err == f"\n{verb.interrupted}\n"
    assert (verb.interrupted == cli.INTERRUPTED) == (verb.name in GOING_ON)


def test_a_verb_that_waits_for_a_registry_is_interrupted_in_its_own_words(tmp_path):
    """By a real signal, while it waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        words = (sys.executable, "-m", "invoke", "up", "2.13-cpu", "--k8s", "--registry", where)
        env = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
        with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
            assert f"waiting for {where}, " in up.stderr.readline()
            up.send_signal(signal.SIGINT)
            out, err = up.communicate()
    assert (up.returncode, out, err) == (errors.INTERRUPTED, "", f"\n{verbs.STARTED}\n")


def ended(redirection, raises="", prints="word"):
    """Return the status and both outputs of a process that prints and then raises, as a shell redirects it."""
    script = f"""
from torchstrata import errors
from torchstrata.commands import cli
with cli.guarded():
    print({prints!r})
    {raises or "pass"}
"""
    words = ("sh", "-c", f'"$1" -c "$2" {redirection}', "sh", sys.executable, script)
    return subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": ""}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("prints", ["word", "long" * 10_000], ids=["word", "long"])
def test_a_full_disk_behind_standard_output_is_an_error(prints):
    """Whether it shows at once or only when all is written out."""
    process = ended(">/dev/full", prints=prints)
    assert process.stderr.splitlines()[0] == "error: standard output cannot be written: No space left on device"
    assert (process.returncode, len(process.stderr.splitlines())) == (errors.OutputError.code, 2)


@pytest.mark.parametrize("prints", ["print('word', flush=True)", "progress.say('word')"])
def test_a_pipe_that_nobody_reads_any_more_is_an_error(prints):
    """Whoever prints: rich by itself ends a program with 1, and without a word."""
    script = f"from torchstrata.commands import cli\nfrom torchstrata import progress\nwith cli.guarded(): {prints}"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert process.stderr.splitlines()[0] == "error: standard output cannot be written: Broken pipe"
    assert (process.returncode, len(process.stderr.splitlines())) == (errors.OutputError.code, 2)


def test_nobody_can_be_asked_without_standard_input():
    """Python has none then, which cannot say that it is no terminal."""
    assert ended("<&-", "import sys; sys.exit(int(sys.stdin.isatty()))").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_escaped(encoding):
    """A path, or the dots of a table that is cut, on a machine whose locale is no UTF-8."""
    script = "from torchstrata.commands import cli\nfrom torchstrata import progress\nwith cli.guarded(): progress.plain_console().print('/data/中…')"
    env = os.environ | {"PYTHONIOENCODING": encoding}
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout == "/data/\\u4e2d\\u2026\n"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_an_error_keeps_its_code_where_nobody_reads(redirection):
    """A full disk or nothing behind either output."""
    process = ended(redirection, 'raise errors.MatrixError("it is wrong", fix="mend it")')
    assert process.returncode == errors.MatrixError.code
    assert "Traceback" not in process.stderr
    assert "2>" in redirection or process.stderr == "error: it is wrong\n  -> mend it\n"


def test_an_error_of_the_system_that_is_none_of_the_output_keeps_its_traceback():
    """It is not taken for one of standard output."""
    process = ended("", 'raise OSError(28, "No space left on device")')
    assert (process.returncode, "Traceback" in process.stderr) == (1, True)


def test_a_mistake_of_the_program_keeps_its_traceback():
    """What no person can mend is not made to look like it."""
    with pytest.raises(ZeroDivisionError), cli.guarded():
        raise ZeroDivisionError


def test_a_crash_in_a_library_leaves_every_thread_s_traceback():
    """A process that dies of a signal cannot say why afterwards: it says before where its threads are."""
    script = """
import ctypes, threading
from torchstrata.commands import cli

def waits():
    threading.Event().wait()

threading.Thread(target=waits, daemon=True).start()
with cli.guarded():
    ctypes.string_at(0)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in ended.stderr
    assert "in waits" in ended.stderr
    assert "in string_at" in ended.stderr


def test_libraries_stay_quiet():
    """Nox shows every message that a library logs; ours do not log what people should not read, nor warn before an error of ours."""
    with warnings.catch_warnings(record=True) as said:
        cli.hush()
        warnings.warn_explicit("docker-credential-x not installed", UserWarning, "store.py", 21, module="docker.credentials.store")
        warnings.warn_explicit("told", UserWarning, "x.py", 1, module="torchstrata.x")
    assert [str(warning.message) for warning in said] == ["told"]
    assert all(not logging.getLogger(name).isEnabledFor(logging.INFO) for name in cli.CHATTY)


@pytest.mark.parametrize("said", ["\x1b[2J\x1b[H5 images in 2.0 s", "one\ntwo\nthree", "\u202eevil", "x" * 100_000, "\ud800", "\u2028"])
def test_an_error_is_two_lines_whatever_it_quotes(said, capsys):
    """What a registry or an index has said moves no cursor and begins no line."""
    with pytest.raises(SystemExit) as ended, cli.guarded():
        raise errors.RegistryError(f"the registry says {said}", fix=f"do not {said}")
    lines = capsys.readouterr().err.split("\n")
    assert ended.value.code == errors.RegistryError.code
    assert (len(lines), lines[0][:24], lines[1][:11]) == (3, "error: the registry says", "  -> do not")
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
