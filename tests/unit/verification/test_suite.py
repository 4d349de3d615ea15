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
from torchstrata.errors import ContainerError
from torchstrata.matrix import matrix
from torchstrata.verification import leftovers, suite
from torchstrata.verification.evidence import EngineImage, Host
from torchstrata.verification.request import VerifyOptions
from torchstrata.verification.subject import Subject
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
    """Verify an image that was verified before, on a machine whose QEMU is old or missing; return what was done for it."""
    done = []
    monkeypatch.setattr(suite.emulator, "ensure", lambda platform, report: done.append(platform))
    monkeypatch.setattr(suite.emulator, "concern", {"linux/arm64": "QEMU 7.2 is old"}.get)
    monkeypatch.setattr(suite, "_target", lambda *_: TARGET)
    monkeypatch.setattr(suite, "_known", lambda *_: verdict())
    return done


def run_for(platform, monkeypatch, *, starts=lambda: True, is_local=True):
    """Verify for a platform by an engine on this machine, or on another one."""

    def check_start(engine, name):
        if not starts():
            raise ContainerError(f"{name} ended at once: exec format error", fix="-")

    cell = next(each for each in matrix.load().cells if "linux/arm64" in each.platforms).on(platform)
    monkeypatch.setattr(suite, "_engine", lambda options: contextlib.nullcontext(SimpleNamespace(is_local=is_local)))
    monkeypatch.setattr(suite.subject, "check_start", check_start)
    suite.run(cell, Path(sys.executable), VerifyOptions(flavour=("base",)))


@pytest.mark.usefixtures("ensured")
@pytest.mark.parametrize(("platform", "told"), [("linux/arm64", "QEMU 7.2 is old"), ("linux/amd64", "")])
def test_old_emulator_is_told_before_tests(platform, told, monkeypatch, capsys):
    """It explains failures that are not the image's."""
    run_for(platform, monkeypatch)
    before, _ = capsys.readouterr().out.split("==", 1)
    assert before.strip() == told


def test_emulator_is_installed_where_images_do_not_start(ensured, monkeypatch):
    """A runner that pulls what others have built has none. Where they start, somebody has cared for one, if only the host of this container."""
    run_for("linux/arm64", monkeypatch, starts=lambda: ensured)
    run_for("linux/arm64", monkeypatch)
    assert ensured == ["linux/arm64"]


@pytest.mark.parametrize("how", [{"platform": "linux/amd64"}, {"platform": "linux/arm64", "is_local": False}])
def test_what_needs_no_emulator_of_this_machine_gets_none(ensured, how, monkeypatch):
    """An image that is broken, or what another machine's engine runs."""
    with pytest.raises(ContainerError):
        run_for(monkeypatch=monkeypatch, starts=lambda: False, **how)
    assert ensured == []


@pytest.mark.parametrize(("machine", "cpus", "processes"), [("x86_64", 2, 4), ("aarch64", 2, 2), ("aarch64", 64, 4)])
def test_as_many_modules_run_at_a_time_as_there_are_cpus_where_they_are_emulated(machine, cpus, processes):
    """Else most tests wait for containers."""
    image = EngineImage(reference="i", digest=GOOD.image.digest, manifest=None, config=None)
    host = Host(kernel="6.1", engine="26.1", cpus=cpus, machine=machine)
    found = Subject(cell="2.13-cpu-debian12", flavour="base", image=image, host=host, gpu=None)
    assert suite._processes(dataclasses.replace(TARGET, subject=found), VerifyOptions()) == processes


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
