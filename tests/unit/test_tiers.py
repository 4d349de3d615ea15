"""Tiers of tests: what a lower one leaves out, a higher one runs."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

from tests.system import conftest
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


class Item:
    """Stands where pytest would have a test of the system.

    :param path: of its file.
    """

    def __init__(self, path: Path, marker: str | None) -> None:
        self.path, self.marker = path, marker

    def get_closest_marker(self, name: str) -> str | None:
        """Return the marker if it has that name."""
        return self.marker if self.marker == name else None


def left(scope: str) -> tuple[list[str | None], list[str | None]]:
    """Return the markers of the tests that run in a scope, and of those that do not, of one test with and one without a marker."""
    items, dropped = [Item(ROOT / "test_build.py", marker) for marker in ("quick", None)], []

    def note(items: list[Item]) -> None:
        dropped.extend(items)

    hook = types.SimpleNamespace(pytest_deselected=note)
    conftest.pytest_collection_modifyitems(types.SimpleNamespace(option=types.SimpleNamespace(scope=scope), hook=hook), items)
    return [item.marker for item in items], [item.marker for item in dropped]


def test_the_whole_of_the_system_s_tests_leaves_nothing_out():
    """The short part has what is marked, the whole everything."""
    assert left("full") == (["quick", None], [])
    assert left("quick") == (["quick"], [None])


def test_the_short_part_of_the_system_has_build_registry_release_and_engine():
    """Some tests of each, and not all."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "system").glob("test_*.py")}
    marked = {name for name, text in texts.items() if "@pytest.mark.quick" in text}
    assert marked >= {"test_build", "test_registry", "test_release", "test_engine"}
    assert all(texts[name].count("@pytest.mark.quick") < texts[name].count("\ndef test_") for name in marked)
