"""What Invoke gets of the verbs: all of them, under the names that the guides use, and their options to complete."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.main import program

import tasks
from torchstrata.commands.verbs import VERBS
from torchstrata.errors import OutputError
from torchstrata.matrix.matrix import ROOT

CONTEXTS = {context.name: context for context in tasks.namespace.to_contexts()}


@pytest.fixture
def inv(monkeypatch):
    """Return what runs Invoke's program, which loads the tasks, and returns its status; what they set for signals is taken back."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*words):
        try:
            program.run(["inv", *words])
        except SystemExit as ended:
            return ended.code
        return 0

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_every_verb_is_a_task():
    """With its sentence, so that it is listed."""
    assert {name: tasks.namespace[name].__doc__ for name in CONTEXTS} == {verb.name: verb.sentence for verb in VERBS}


def test_invoke_completes_what_its_users_write():
    """Such as ``--from``, which is a keyword of Python's."""
    assert {"--from", "--channel", "--yes"} <= set(CONTEXTS["release.promote"].flags)
    assert "--images" not in CONTEXTS["mirror"].flags


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("--list",), 0, "release.rollback"),
        ((), 0, "usage: inv VERB [options]"),
        (("help", "lock"), 0, "usage: inv lock [-h] [--check | --os"),
        (("--help", "lock"), 0, "usage: inv lock [-h] [--check | --os"),
        (("lock", "--help"), 0, "usage: inv lock [-h] [--check | --os"),
        (("plna", "2.13-cpu"), 2, "inv: there is no verb 'plna'\n  -> nearest: plan; inv --list shows all\n"),
        (("plan", "--json", "9.9-cu999"), 10, "error: no cell matches 9.9-cu999"),
        (("plan", "9.9-cu999", "--json"), 10, "error: no cell matches 9.9-cu999"),
        (("lock", "--check", "9.9-cu999"), 10, "error: no cell matches 9.9-cu999"),
        (("plan", "--", "9.9-cu999"), 10, "error: no cell matches 9.9-cu999"),
        (("--", "plan", "9.9-cu999"), 10, "error: no cell matches 9.9-cu999"),
        (("plan", "2.13-cpu", "--", "--json"), 10, "error: no cell matches --json"),
        (("--complete", "--", "lock --"), 0, "--exclude-newer"),
    ],
)
def test_a_verb_is_answered_where_invoke_finds_the_tasks(inv, capfd, words, status, expected):
    """Its words are read here, and its status is that of the command."""
    ended = inv(*words)
    assert (ended, expected in "".join(capfd.readouterr())) == (status, True)


@pytest.mark.parametrize(("words", "status"), [(("help", "lock"), 0), (("plna", "2.13-cpu"), 2), (("plan", "9.9-cu999"), 10)])
def test_a_verb_is_a_program_of_its_own(words, status):
    """As its users type it: the same status, and no traceback."""
    ended = subprocess.run([sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False)


def test_a_list_that_nobody_takes_is_no_traceback():
    """As on a full disk, or where `head` has ended; Invoke's own printing knows no error."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-m", "invoke", "--list"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (OutputError.code, "error: standard output cannot be written: No space left on device")
