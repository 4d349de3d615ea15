"""Tiers of tests: what a lower one leaves out, a higher one runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types

import pytest

from torchstrata.cells import matrix

ROOT = matrix.ROOT


class Session:
    """Stands where nox would be: notes what a tier lets follow.

    :param posargs: what was asked of it.
    """

    def __init__(self, *posargs: str) -> None:
        self.name, self.posargs = "tier", list(posargs)
        self.follows: dict[str, list[str]] = {}

    def notify(self, name: str, posargs: list[str]) -> None:
        """Note a session and its words."""
        self.follows[name] = posargs


@pytest.fixture
def noxfile(monkeypatch) -> types.ModuleType:
    """Give the noxfile, as nox loads it."""
    monkeypatch.setattr(sys, "argv", ["nox"])
    monkeypatch.setattr("nox.registry._REGISTRY", {})
    spec = importlib.util.spec_from_file_location("noxfile_of_the_test", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def follows(tier, *words):
    """Return the words by session that follow a tier."""
    session = Session(*words)
    tier(session)
    return session.follows


def test_the_full_tier_runs_each_session_of_the_short_one_in_full(noxfile):
    """The same sessions, and no scope but the full one."""
    short, full = follows(noxfile.tests), follows(noxfile.tests_full)
    assert list(short) == list(full)
    for name in ("system", *(f"test-{cell}" for cell in noxfile.TESTED)):
        assert short[name] == ["--scope", "quick"]
        assert full[name] == ["--scope", "full"]
    assert [name for name, words in full.items() if words and name not in {"system", "test-2.13-cpu", "test-2.8-cu121"}] == ["cpu-time"]


def test_words_reach_the_sessions_that_they_mean(noxfile):
    """Tests of images run again, and only the table is recorded."""
    asked = follows(noxfile.tests, "--again", "--record")
    assert asked["test-2.13-cpu"] == ["--scope", "quick", "--again"]
    assert asked["cpu-time"] == ["tests", "--record"]
    assert asked["lint"] == []


def test_the_soak_disturbs_every_request_and_plants_every_fault(noxfile):
    """What the full tier does for some requests is done for each."""
    found = follows(noxfile.soak)
    assert found["system"] == ["-k", "test_registry", "--every", "1"]
    assert found["mutants"] == []
    assert "stress" in found


def collected(*words: str) -> tuple[set[str], str]:
    """Return the tests of the system that pytest would run, and its last line."""
    command = [sys.executable, "-m", "pytest", "tests/system", "--collect-only", "-q", "-p", "no:cacheprovider", *words]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line for line in lines if "::" in line}, lines[-1]


def test_the_short_part_of_the_system_is_a_part_of_the_whole():
    """It has build, registry, release and engine; the whole leaves nothing out."""
    short, _ = collected("--scope", "quick")
    whole, said = collected()
    assert short < whole
    assert {re.sub(r".*/test_(\w+)\.py::.*", r"\1", name) for name in short} >= {"build", "registry", "release", "engine"}
    assert "deselected" not in said
