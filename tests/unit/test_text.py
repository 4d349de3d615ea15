"""Text from outside becomes one line that shows itself and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchstrata.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("torch 2.8.0", "torch 2.8.0"),
        ("Größe 日本", "Größe 日本"),
        ("\x1b[2Jdone", "?[2Jdone"),
        ("a\r\nb\tc\x00", "a??b?c?"),
        ("a\u2028b\u2029c\x85d", "a?b?c?d"),
        ("\u202egpj.exe\u2066", "?gpj.exe?"),
        ("\udc80\u00a0", "??"),
        ("", ""),
    ],
)
def test_characters_that_do_not_show_themselves_are_replaced(text: str, shown: str) -> None:
    """Controls, separators of lines, bidirectional marks and surrogates become question marks; letters of any script stay."""
    assert printable(text) == shown


@pytest.mark.parametrize(("limit", "shown"), [(6, "abcdef"), (5, "ab..."), (3, "..."), (1, "."), (0, "")])
def test_long_text_is_cut(limit: int, shown: str) -> None:
    """A text of more characters than the limit ends in dots and has exactly so many; one that fits stays whole."""
    assert printable("abcdef", limit) == shown


@settings(derandomize=True, max_examples=200)
@given(st.text(), st.integers(0, 50))
def test_any_text_becomes_one_line(text: str, limit: int) -> None:
    """Whatever comes, the result is one printable line within the limit, and stays as it is when it passes again."""
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert printable(shown, limit) == shown
