"""Readers of what comes from outside: whatever the bytes, the end is a value or one line of ours; and how fuzzing tells what it finds."""

from __future__ import annotations

import signal
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.soak.fuzzing import __main__ as fuzzing
from tests.soak.fuzzing import one, targets
from tests.soak.fuzzing.__main__ import Outcome
from tests.soak.fuzzing.damage import ODD
from tests.soak.fuzzing.targets import TARGETS, Target
from torchstrata.store.paths import LONGEST_NAME, LONGEST_PATH, UnsafePathError, member_path

SMALL = settings(derandomize=True, max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """Draw one of a target's seeds, of which some places are overwritten, lost or grown."""
    data = draw(st.sampled_from(TARGETS[name].seeds))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 40))
        data = data[:start] + draw(st.binary(max_size=8) | st.sampled_from(ODD)) + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
@SMALL
@given(draw=st.data())
def test_every_reader_ends_well_or_in_an_error_of_ours(name: str, draw: st.DataObject) -> None:
    """Damaged inputs are refused with an error that has two printable lines, or read; nothing else is raised."""
    assert TARGETS[name].accepts(draw.draw(damaged(name))) in {True, False}


@pytest.mark.parametrize("name", TARGETS)
def test_every_reader_has_seeds_that_it_reads(name: str) -> None:
    """What fuzzing begins with is understood, at least in part: else it would only ever see the first check."""
    assert any(TARGETS[name].accepts(seed) for seed in TARGETS[name].seeds)


@SMALL
@given(st.text(st.sampled_from("a./\\.\0\x1b\u202ewh")) | st.text(max_size=300).map(lambda text: f"a/{text}"))
def test_a_member_path_stays_where_it_is_put(text: str) -> None:
    """What passes has plain names alone, as short as file systems take them."""
    try:
        path = member_path(text)
    except UnsafePathError:
        return
    assert path.isprintable()
    assert len(path.encode()) <= LONGEST_PATH
    assert not [name for name in path.split("/") if name in {"", ".", ".."} or name.startswith(".wh.") or len(name.encode()) > LONGEST_NAME]


def planted(error: BaseException) -> Target:
    """Return a target that raises for every input but one."""

    def read(data: bytes) -> None:
        if data != b"good":
            raise error

    return Target(read=read, seeds=(b"good",))


def test_a_finding_without_coverage_is_kept(tmp_path, monkeypatch):
    """Where atheris has no wheel, the input on which a reader stumbles is kept, too."""
    monkeypatch.setattr(targets, "TARGETS", {"planted": planted(zipfile.BadZipFile("odd"))})
    monkeypatch.setattr(one, "MEMORY", 1 << 20)  # the limit of a process of its own; this one has run other tests
    with pytest.raises(zipfile.BadZipFile):
        one.changed("planted", 60, 1, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() != b"good"
    assert signal.alarm(0) == 0


def test_what_is_kept_can_be_read_again(tmp_path, monkeypatch, capsys):
    """The command that is printed reads the input as fuzzing did."""
    monkeypatch.setattr(fuzzing, "TARGETS", {"planted": planted(ValueError("odd"))})
    (tmp_path / "planted-crash").write_bytes(b"bad")
    with pytest.raises(ValueError, match="odd"):
        fuzzing.again("planted", tmp_path / "planted-crash")
    outcome = Outcome(name="planted", runs=5, status=77, inputs=(tmp_path / "planted-crash",), tail="Traceback")
    assert not fuzzing.report(outcome, 60, 1)
    assert f"-m tests.soak.fuzzing --again planted {tmp_path / 'planted-crash'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        (Outcome(name="x", runs=5, status=0, inputs=(), tail=""), True),
        (Outcome(name="x", runs=0, status=0, inputs=(), tail=""), False),
        (Outcome(name="x", runs=5, status=1, inputs=(), tail=""), False),
    ],
)
def test_a_target_is_good_only_if_it_ran_and_ended_well(outcome: Outcome, good: bool) -> None:  # noqa: FBT001  # the expected answer
    """No input at all, or a process that died, is no success."""
    assert fuzzing.report(outcome, 60, 1) is good


def test_unknown_targets_are_named(capsys):
    """A typing error does not fuzz nothing and call it good."""
    with pytest.raises(SystemExit):
        fuzzing.main(["nothing"])
    assert "no target nothing; there are wheel," in capsys.readouterr().err
