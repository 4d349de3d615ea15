"""Tags that never move."""

from __future__ import annotations

import datetime as dt

import pytest

from torchstrata.registry.dated_tag import DatedTag, PushNumber, following, is_dated, pushes


def test_a_dated_tag_is_read_and_written():
    """Its stem is all that is before the date; written it is what it was."""
    tag = "2.8.0-cu121-debian13-devel-20261124.12"
    parsed = DatedTag.parse(tag)
    assert parsed == DatedTag(stem="2.8.0-cu121-debian13-devel", push=PushNumber(day="20261124", number=12))
    assert str(parsed) == tag


@pytest.mark.parametrize(
    "tag", ["x-20260102", "x-20260102.0", "x-20260102.01", "-20260102.1", "20260102.1", "x-20260102.1-y", "x-2026.1", "x-20261399.1", "latest"]
)
def test_what_is_no_dated_tag(tag):
    """It may move."""
    assert not is_dated(tag)


@pytest.mark.parametrize("text", ["20261124", "20261124.0", "nightly", "2026112.1", "20261124.1-x", "20260230.1", "00000101.1", "\u0662\u0660261124.1"])
def test_what_is_no_push_number(text):
    """A channel's name, for one."""
    assert PushNumber.parse(text) is None


def test_pushes_are_counted():
    """They are sorted by date and number, not as text; the next one begins anew each day."""
    tags = ["x-20260102.10", "x-20260102.9", "x-20260101.11", "x-devel-20260103.1", "x-2026.1", "other"]
    known = pushes("x", tags)
    assert list(map(str, known)) == ["20260101.11", "20260102.9", "20260102.10"]
    assert str(following(known, dt.date(2026, 1, 2))) == "20260102.11"
    assert str(following(known, dt.date(2026, 1, 3))) == "20260103.1"


def test_a_push_is_the_last_one_whatever_a_clock_says():
    """Where one was ahead, or this one is behind."""
    assert str(following([PushNumber(day="20260102", number=10)], dt.date(2026, 1, 1))) == "20260102.11"
    assert str(following([], dt.date(2026, 1, 1))) == "20260101.1"
