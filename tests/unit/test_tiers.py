"""Tiers of tests: what a lower one leaves out, a higher one runs."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from tests.system import conftest
from torchstrata.commands import sessions
from torchstrata.matrix import matrix

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
        assert short[name][:2] == ["--scope", "quick"]
        assert full[name][:2] == ["--scope", "full"]
    assert short["system"][2:] == full["system"][2:] == ["--cells", "2.13-cpu,2.8-cu121"]
    assert [name for name, words in full.items() if words and name not in {"system", "test-2.13-cpu", "test-2.8-cu121"}] == ["cpu-time"]


def test_words_reach_the_sessions_that_they_mean(noxfile):
    """Tests of images run again, and only the table is recorded."""
    asked = follows(noxfile.tests, "--again", "--record")
    assert asked["test-2.13-cpu"] == ["--scope", "quick", "--again"]
    assert asked["cpu-time"] == ["tests", "--record"]
    assert asked["lint"] == []


def test_a_small_disk_takes_fewer_cells(noxfile):
    """Then nothing builds, verifies or needs the others; the rest of the tier stays."""
    asked, everything = follows(noxfile.tests, "--cells", "2.13-cpu"), follows(noxfile.tests)
    assert everything.keys() - asked.keys() == {"build-2.8-cu121", "test-2.8-cu121"}
    assert asked["system"] == ["--scope", "quick", "--cells", "2.13-cpu"]


def test_a_tier_refuses_other_cells(noxfile, capsys):
    """It names those that it has."""
    with pytest.raises(SystemExit):
        sessions.tier_options("tests", ["--cells", "2.13-cpu,2.4-cu121"], noxfile.TESTED)
    assert "2.4-cu121: choose from 2.13-cpu, 2.8-cu121" in capsys.readouterr().err


def test_the_soak_disturbs_every_request_and_plants_every_fault(noxfile):
    """What the full tier does for some requests is done for each."""
    found = follows(noxfile.soak)
    assert found["system"] == ["-k", "test_registry", "--every", "1"]
    assert found["mutants"] == []
    assert {"fuzz", "stress"} <= set(found)


class Item:
    """Stands where pytest would have a test of the system.

    :param markers: that it has.
    :param fixtures: that it uses.
    :param built: cell and flavour that it is for, if it is for one.
    """

    def __init__(self, *markers: str, fixtures: tuple[str, ...] = (), built: tuple[str, str] | None = None) -> None:
        self.path, self.markers, self.fixturenames = ROOT / "test_build.py", set(markers), (*fixtures, *(["built"] if built else []))
        if built:
            self.callspec = types.SimpleNamespace(params={"built": built})

    def get_closest_marker(self, name: str) -> str | None:
        """Return the marker if it has that name."""
        return name if name in self.markers else None

    def add_marker(self, name: str) -> None:
        """Give it a marker."""
        self.markers.add(name)


def runs(item: Item, scope: str = "full", cells: str = "2.13-cpu,2.8-cu121") -> bool:
    """Return whether a test of the system runs."""
    items, dropped = [item], []

    def note(items: list[Item]) -> None:
        dropped.extend(items)

    config = types.SimpleNamespace(option=types.SimpleNamespace(scope=scope, cells=cells), hook=types.SimpleNamespace(pytest_deselected=note))
    conftest.pytest_collection_modifyitems(config, items)
    assert [*items, *dropped] == [item]
    return bool(items)


@pytest.mark.parametrize(("scope", "marked", "unmarked"), [("full", True, True), ("quick", True, False)])
def test_the_whole_of_the_system_s_tests_leaves_nothing_out(scope, marked, unmarked):
    """The short part has what is marked, the whole everything."""
    assert (runs(Item("quick"), scope), runs(Item(), scope)) == (marked, unmarked)


@pytest.mark.parametrize(("user", "ran"), [(0, True), (1000, False)])
@pytest.mark.parametrize("item", [Item("root"), Item(fixtures=("daemon",)), Item(fixtures=("small_disk",))], ids=["marked", "daemon", "small_disk"])
def test_what_only_root_may_is_left_to_root(monkeypatch, item, user, ran):
    """What mounts or starts daemons has the marker by which root runs it alone."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert runs(item) is ran
    assert item.get_closest_marker("root")


@pytest.mark.parametrize(
    ("item", "without"),
    [
        (Item(), True),
        (Item("cuda"), False),
        (Item(fixtures=("cuda_base",)), False),
        (Item(built=("2.13-cpu", "ssh")), True),
        (Item(built=("2.8-cu121", "base")), False),
    ],
    ids=["no image", "marked", "cuda_base", "2.13-cpu", "2.8-cu121"],
)
def test_what_needs_another_cell_is_left_out(monkeypatch, item, without):
    """With both cells everything runs."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert runs(item, cells="2.13-cpu") is without
    assert runs(item)


def test_the_short_part_of_the_system_has_build_registry_release_and_engine():
    """Some tests of each, and not all."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "system").glob("test_*.py")}
    marked = {name for name, text in texts.items() if "@pytest.mark.quick" in text}
    assert marked >= {"test_build", "test_registry", "test_release", "test_engine"}
    assert all(texts[name].count("@pytest.mark.quick") < texts[name].count("\ndef test_") for name in marked)
