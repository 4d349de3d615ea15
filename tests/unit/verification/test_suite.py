"""The verb's own part: what it asks of pytest, and what it shows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from tests.unit.verification.test_evidence import GOOD
from torchstrata.commands import sessions
from torchstrata.matrix import matrix
from torchstrata.verification import leftovers, suite
from torchstrata.verification.request import VerifyOptions
from torchstrata.verification.suite import Target, Verdict

TARGET = Target(name="pytorch-cuda:2.13-cpu-base", flavour="base", where=("--image", "pytorch-cuda:2.13-cpu-base"))
FAILED = msgspec.structs.replace(GOOD, passed=False, problems=("failed: a", "missing: b"), counts=msgspec.structs.replace(GOOD.counts, failed=1, missing=2))


def verdict(status=0, found=GOOD):
    """Return how the verification of the target ended."""
    return Verdict(target=TARGET, status=status, evidence=found, seconds=61.4)


@pytest.mark.parametrize(
    ("ended", "row"),
    [
        (verdict(), ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "1", "0", "0", "61", "verified", "as", "locked"]),
        (verdict(1, FAILED), ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "2", "1", "2", "61", "failed", "as", "locked"]),
        (
            verdict(0, msgspec.structs.replace(GOOD, passed=False, complete=False, scope="quick")),
            ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "1", "0", "0", "61", "passed", "(quick)", "as", "locked"],
        ),
        (
            verdict(0, msgspec.structs.replace(GOOD, passed=False, complete=False, scope="chosen")),
            ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "1", "0", "0", "61", "incomplete", "as", "locked"],
        ),
        (
            verdict(0, msgspec.structs.replace(GOOD, drift=("less 1 -> 2", "make 3 -> 4"))),
            ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "1", "0", "0", "61", "verified", *["drifted:", "less", "1", "->", "2", "and", "1", "more"]],
        ),
        (
            dataclasses.replace(verdict(), is_known=True, seconds=0),
            ["pytorch-cuda:2.13-cpu-base", "aaaaaaaaaaaa", "1", "0", "0", "0", "verified", "2026-11-24", "00:01", "as", "locked"],
        ),
        (verdict(3, None), ["pytorch-cuda:2.13-cpu-base", "61", "failed"]),
    ],
)
def test_closing_table(ended, row):
    """A row says which image, how many tests, how many against it, how long, the verdict, and whether its OS packages are as locked."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(suite.table([ended]))
    assert console.export_text().splitlines()[1].split() == row


@pytest.mark.parametrize(
    ("ended", "why"),
    [(verdict(1, FAILED), "failed: a (and 1 more)"), (verdict(3, None), "pytest ended with status 3"), (verdict(5), "pytest ended with status 5")],
)
def test_reason(ended, why):
    """The first problem stands for all; without evidence the status does."""
    assert ended.why == why


def test_wrong_words_are_pytests_business(monkeypatch):
    """Options that the verb does not know reach pytest as they are."""
    seen = []
    monkeypatch.setattr("torchstrata.commands.build.verify", lambda cell, python, options: seen.append(options))
    sessions.verify("2.13-cpu", ["--flavour", "base", "-k", "name", "--flavour=ssh", "-x"], lambda: sys.executable)
    assert seen[0].flavour == ("base", "ssh")
    assert seen[0].rest == ("-k", "name", "-x")
    assert (seen[0].scope, seen[0].again) == ("full", False)


@pytest.fixture
def ensured(monkeypatch):
    """Run no tests, of no image; return the platforms that QEMU was wanted for, as of a machine whose QEMU is old."""
    asked = []
    monkeypatch.setattr(suite.emulator, "ensure", lambda platform, report: asked.append(platform))
    monkeypatch.setattr(suite.emulator, "concern", {"linux/arm64": "QEMU 7.2 is old"}.get)
    monkeypatch.setattr(suite, "_targets", lambda cell, options, engine: ())
    return asked


def run_for(platform, monkeypatch, *, is_local=True):
    """Verify for a platform by an engine on this machine, or on another one."""
    cell = next(each for each in matrix.load().cells if "linux/arm64" in each.platforms).on(platform)
    monkeypatch.setattr(suite, "_engine", lambda options: contextlib.nullcontext(SimpleNamespace(is_local=is_local)))
    suite.run(cell, Path(sys.executable), VerifyOptions())


@pytest.mark.usefixtures("ensured")
@pytest.mark.parametrize(("platform", "told"), [("linux/arm64", "QEMU 7.2 is old"), ("linux/amd64", "")])
def test_old_emulator_is_told_before_tests(platform, told, monkeypatch, capsys):
    """It explains failures that are not the image's."""
    run_for(platform, monkeypatch)
    before, _ = capsys.readouterr().out.split("image", 1)
    assert before.strip() == told


def test_emulator_is_installed_where_the_engine_is(ensured, monkeypatch):
    """A runner that pulls what others have built has none; what another machine's engine runs is that machine's business."""
    run_for("linux/arm64", monkeypatch)
    run_for("linux/arm64", monkeypatch, is_local=False)
    assert ensured == ["linux/arm64"]


def unasked():
    """Take the place of what installs packages where that would be too early."""
    raise AssertionError("packages were installed before the words were understood")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["--help"], 0, "--again"), (["--image", "a", "--hosts", "local://"], 2, "not allowed with")],
    ids=["help", "two subjects"],
)
def test_words_are_understood_before_packages_are_installed(capsys, words, status, said):
    """Who only asks what there is does not wait for an installation; and a run has one subject."""
    with pytest.raises(SystemExit) as ended:
        sessions.verify("2.13-cpu", words, unasked)
    assert ended.value.code == status
    assert said in "".join(capsys.readouterr())


def test_label_names_this_process(monkeypatch):
    """What is started can be told from what others have started, also by the processes that this one starts."""
    monkeypatch.delenv(leftovers.VARIABLE, raising=False)
    first = leftovers.labels()
    assert first == leftovers.labels()
    assert first[leftovers.LABEL] == os.environ[leftovers.VARIABLE]
