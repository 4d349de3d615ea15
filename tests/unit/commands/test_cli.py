"""Words in, one exit code out; and what listing the sessions costs."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torchstrata import errors
from torchstrata.commands import cli, verbs
from torchstrata.commands.options import BuildOptions
from torchstrata.matrix import matrix

ROOT = Path(__file__).parents[3]


def exit_code(error):
    """Return the status with which a command ends that raises ``error``."""
    with pytest.raises(SystemExit) as ended, cli.guarded():
        raise error
    return ended.value.code


def kinds(kind=errors.TorchstrataError):
    """Return every kind of error."""
    return [kind, *(below for one in kind.__subclasses__() for below in kinds(one))]


def test_an_error_is_two_lines_and_a_code(capsys):
    """A person reads what is wrong and what to do, once, on standard error."""
    assert exit_code(errors.LockError("it is wrong", fix="mend it")) == errors.LockError.code
    assert capsys.readouterr().err == "error: it is wrong\n  -> mend it\n"


def test_ctrl_c_is_status_130(capsys):
    """Shells report it so; the line says that nothing complete is lost."""
    assert exit_code(KeyboardInterrupt()) == 130
    assert "the next run goes on from there" in capsys.readouterr().err


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
    found = ended(">/dev/full", prints=prints)
    assert found.stderr.splitlines()[0] == "error: standard output cannot be written: No space left on device"
    assert (found.returncode, len(found.stderr.splitlines())) == (errors.OutputError.code, 2)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_an_error_keeps_its_code_where_nobody_reads(redirection):
    """A full disk or nothing behind either output."""
    found = ended(redirection, 'raise errors.MatrixError("it is wrong", fix="mend it")')
    assert found.returncode == errors.MatrixError.code
    assert "Traceback" not in found.stderr
    assert "2>" in redirection or found.stderr == "error: it is wrong\n  -> mend it\n"


def test_an_error_of_the_system_that_is_none_of_the_output_keeps_its_traceback():
    """It is not taken for one of standard output."""
    found = ended("", 'raise OSError(28, "No space left on device")')
    assert (found.returncode, "Traceback" in found.stderr) == (1, True)


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


def test_every_fatal_error_has_a_code_of_its_own():
    """Scripts can tell them apart, and from what shells and tools return."""
    codes = {kind: kind.code for kind in kinds() if "code" in vars(kind)}
    assert len(set(codes.values())) == len(codes)
    assert not set(codes.values()) & {0, 1, 2, *range(124, 144)}
    assert {kind for kind in kinds() if kind.__module__ == "torchstrata.errors"} == set(codes)


def build_options(monkeypatch, *words):
    """Return the options that a build gets for ``words``."""
    seen = []
    monkeypatch.setattr(verbs, "build", lambda cell, options: seen.append((cell, options)))
    cli.build("2.13-cpu-debian12", words)
    ((cell, options),) = seen
    assert cell == "2.13-cpu-debian12"
    return options


def test_words_become_options(monkeypatch):
    """Flavours can be given more than once; paths and numbers have their types."""
    words = ("--flavour", "base", "--flavour", "jupyter", "--locked", "--to", "out", "--codec", "gzip", "--level", "9")
    assert build_options(monkeypatch, *words) == BuildOptions(flavour=("base", "jupyter"), locked=True, to=Path("out"), codec="gzip", level=9)


def test_without_words_everything_is_built(monkeypatch):
    """The defaults: all flavours, into the engine, zstd."""
    assert build_options(monkeypatch) == BuildOptions(flavour=(), locked=False, to=None, codec="zstd", level=None)


def test_pushing_is_building_without_an_engine(monkeypatch):
    """The same options, but those of an engine; a build with ``--push`` does both."""
    seen = []
    monkeypatch.setattr(verbs, "build", lambda cells, options: seen.append((cells, options)))
    asked = BuildOptions(flavour=("base",), locked=True, to=None, codec="gzip", level=None, registry="registry.example/team", names=True)
    cli.push("2.13-cpu", asked)
    assert seen == [("2.13-cpu", dataclasses.replace(asked, push=True, load=False))]
    built = build_options(monkeypatch, "--push")
    assert (built.push, built.load, built.registry) == (True, True, None)


@pytest.mark.parametrize("words", [("--nope",), ("--codec", "lzma"), ("--level", "much"), ("stray",)])
def test_words_that_mean_nothing_are_refused(words, capsys):
    """The parser says what is wrong and exits with 2, as every command does."""
    with pytest.raises(SystemExit) as ended:
        cli.build("2.13-cpu-debian12", words)
    assert ended.value.code == 2
    assert "nox -s build-2.13-cpu-debian12 --" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status"), [(("--help",), 0), (("--nope",), 2)])
def test_an_option_of_the_session_that_locks_is_no_cell(words, status, capsys):
    """Its help says what it takes, as that of other sessions does."""
    with pytest.raises(SystemExit) as ended:
        cli.lock_cells(words)
    assert ended.value.code == status
    assert "nox -s lock -- [-h] [CELL ...]" in "".join(capsys.readouterr())


def test_libraries_stay_quiet(monkeypatch):
    """Nox shows every message that a library logs; ours do not log what people should not read."""
    build_options(monkeypatch)
    assert all(not logging.getLogger(name).isEnabledFor(logging.INFO) for name in cli.CHATTY)


def test_listing_imports_no_library_of_the_work():
    """``nox -l`` reads the matrix and nothing else, so that it stays quick."""
    heavy = ("docker", "httpx2", "requests", "rich", "installer", "zstandard", "filelock", "unearth")
    program = f"import sys; from torchstrata.commands import cli; cli.cells(); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


def listed(*words):
    """Return what nox lists."""
    env = {**os.environ, "NOX_SCRIPT_MODE": "none"}
    return subprocess.run([sys.executable, "-m", "nox", *words, "--list"], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_nox_lists_a_session_for_every_cell():
    """Each once, by its short id on the default OS; tags choose among them."""
    sessions = {session["session"]: session for session in json.loads(listed("--json"))}
    verbs_of_cells = [name for name in sessions if name.startswith(("build-", "test-", "push-"))]
    assert verbs_of_cells == [f"{verb}-{cell.names[0]}" for cell in matrix.load().cells for verb in ("build", "test")]
    for cell in matrix.load().cells:
        assert sessions[f"build-{cell.names[0]}"]["tags"] == ["build", f"torch-{cell.torch}", cell.cuda, cell.os.id]
    assert sessions["build-2.8-cu121"]["description"] == "Build the images of 2.8-cu121-debian13."
    assert {"engine", "lock", "lint", "unit", "system", "tests"} <= set(sessions)


def test_the_list_of_sessions_can_be_read():
    """It fits on two screens, each session on one line of them, and says which run by themselves."""
    lines = listed().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 140
    assert [line.split()[1] for line in lines if line.startswith("* ")] == ["lint", "unit"]


@pytest.mark.parametrize("said", ["\x1b[2J\x1b[H5 images in 2.0 s", "one\ntwo\nthree", "\u202eevil", "x" * 100_000, "\ud800", "\u2028"])
def test_an_error_is_two_lines_whatever_it_quotes(said, capsys):
    """What a registry or an index has said moves no cursor and begins no line."""
    with pytest.raises(SystemExit) as ended, cli.guarded():
        raise errors.RegistryError(f"the registry says {said}", fix=f"do not {said}")
    lines = capsys.readouterr().err.split("\n")
    assert ended.value.code == errors.RegistryError.code
    assert (len(lines), lines[0][:24], lines[1][:11]) == (3, "error: the registry says", "  -> do not")
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
