"""Waiting for events: what comes is returned, what does not is told."""

from __future__ import annotations

import itertools

import pytest

from tests.waiting import until


def test_what_comes_is_returned() -> None:
    """The first true answer is the result."""
    assert until([0, "", 7, 8].__iter__().__next__, "a number") == 7


@pytest.mark.parametrize(
    ("alive", "within", "why"),
    [(lambda: True, 0.0, "not within 0 s"), (lambda: False, 60.0, "cannot happen any more")],
    ids=["late", "dead"],
)
def test_what_does_not_come_is_told(alive, within, why) -> None:
    """The message says what was waited for, why that ended, and the last state."""
    with pytest.raises(AssertionError, match=f"(?s)a ship: {why}\n.*only water"):
        until(lambda: False, "a ship", alive=alive, state=lambda: "only water", within=within)


def test_what_came_with_the_end_counts() -> None:
    """A program that does its work and ends between two questions has done its work."""
    answers = itertools.chain([False], itertools.repeat("done"))
    assert until(lambda: next(answers), "the work", alive=lambda: False) == "done"
