"""What sessions of cells are given, and what listing all sessions costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from torchstrata.commands import build, sessions
from torchstrata.commands.options import BuildOptions, PushOptions
from torchstrata.errors import MatrixError
from torchstrata.matrix import matrix

ROOT = Path(__file__).parents[3]


def build_options(monkeypatch, *words):
    """Return the options that a build gets for ``words``."""
    seen = []
    monkeypatch.setattr(build, "build", lambda cell, options: seen.append((cell, options)))
    sessions.build("2.13-cpu-debian12", words)
    ((cell, options),) = seen
    assert cell == "2.13-cpu-debian12"
    return options


WORDS = ("--flavour", "base", "--flavour", "jupyter", "--locked", "--to", "out", "--codec", "gzip")
OPTIONS = BuildOptions(flavour=("base", "jupyter"), locked=True, to=Path("out"), codec="gzip")


@pytest.mark.parametrize(("words", "options"), [(WORDS, OPTIONS), ((), BuildOptions())], ids=["words", "none"])
def test_words_become_options(monkeypatch, words, options):
    """Flavours can be given more than once; paths and numbers have their types; without words everything is built."""
    assert build_options(monkeypatch, *words) == options


def test_pushing_is_building_without_an_engine(monkeypatch):
    """The same options, but those of an engine; a build with ``--push`` does both."""
    seen = []
    monkeypatch.setattr(build, "build", lambda cells, options: seen.append((cells, options)))
    build.push(PushOptions(cells=("2.13-cpu", "2.8-*"), flavour=("base",), locked=True, gzip=True, registry="registry.example/team", names=True))
    asked = BuildOptions(flavour=("base",), locked=True, codec="gzip", registry="registry.example/team", names=True, push=True, load=False)
    assert seen == [("2.13-cpu,2.8-*", asked)]
    built = build_options(monkeypatch, "--push")
    assert (built.push, built.load, built.registry) == (True, True, None)


@pytest.mark.parametrize("words", [("--nope",), ("--codec", "lzma"), ("stray",)])
def test_words_that_mean_nothing_are_refused(words, capsys):
    """The parser says what is wrong and exits with 2, as every command does."""
    with pytest.raises(SystemExit) as ended:
        sessions.build("2.13-cpu-debian12", words)
    assert ended.value.code == 2
    assert "nox -s build-2.13-cpu-debian12 --" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status"), [(("--flavour", "nope"), MatrixError.code), (("--gpu", "maybe"), 2), (("--help",), 0)])
def test_nothing_is_installed_for_tests_that_cannot_be(words, status):
    """What tests need is 700 MB on a new machine."""
    with pytest.raises(SystemExit) as ended:
        sessions.verify("2.13-cpu-debian12", words, lambda: pytest.fail("it was prepared"))
    assert ended.value.code == status


@pytest.mark.parametrize(("words", "status", "said"), [(("--help",), 0, "usage: nox -s lock -- [-h] "), (("--nope",), 2, "nox -s lock -- --help")])
def test_an_option_of_the_session_that_locks_is_no_cell(words, status, said, capsys):
    """Its help says what it takes, as that of other sessions does."""
    with pytest.raises(SystemExit) as ended:
        sessions.lock(words)
    assert ended.value.code == status
    assert said in "".join(capsys.readouterr())


def test_listing_imports_no_library_of_the_work():
    """``nox -l`` reads the matrix and nothing else, so that it stays quick."""
    heavy = ("docker", "httpx2", "requests", "rich", "installer", "zstandard", "filelock", "unearth")
    program = f"import sys; from torchstrata.commands import sessions; sessions.cells(); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


def listed(*words):
    """Return what nox lists."""
    env = {**os.environ, "NOX_SCRIPT_MODE": "none"}
    return subprocess.run([sys.executable, "-m", "nox", *words, "--list"], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_nox_lists_a_session_for_every_cell():
    """Each once, by its short id on the default OS; tags choose among them."""
    sessions = {session["session"]: session for session in json.loads(listed("--json"))}
    verbs_of_cells = [name for name in sessions if name.startswith(("build-", "test-", "push-"))]
    assert verbs_of_cells == [f"{verb}-{cell.names[0]}" for cell, verb in product(matrix.load().cells, ("build", "test"))]
    for cell in matrix.load().cells:
        assert sessions[f"build-{cell.names[0]}"]["tags"] == ["build", f"torch-{cell.torch}", cell.cuda, cell.os.id]
    assert sessions["build-2.8-cu121"]["description"] == "Build the images of 2.8-cu121-debian13."
    assert {"engine", "lock", "lint", "unit", "system", "tests"} <= set(sessions)


def test_the_list_of_sessions_can_be_read():
    """Each session is on one line; beside the two of each cell there are few, and it says which run by themselves."""
    lines = listed().splitlines()
    assert len(lines) - 2 * len(matrix.load().cells) <= 26
    assert max(map(len, lines)) <= 140
    assert [line.split()[1] for line in lines if line.startswith("* ")] == ["lint", "unit"]
