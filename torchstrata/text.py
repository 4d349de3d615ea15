"""Text from outside, made fit for one line: terminals obey control characters, bidirectional marks reorder text."""

from __future__ import annotations

from typing import Final

ELLIPSIS: Final = "..."


def printable(text: str, limit: int = 200) -> str:
    """Return ``text`` as one line that only shows itself.

    :param limit: characters at most; a longer text ends in :data:`ELLIPSIS`.
    :returns: ``?`` stands for every character that Python does not call printable: controls, line and paragraph
        separators, bidirectional and other format marks, surrogates, unassigned code points and spaces other than the
        plain one.
    """
    shown = "".join(character if character.isprintable() else "?" for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(0, limit - len(ELLIPSIS))] + ELLIPSIS[:limit]


def printable_lines(text: str) -> str:
    """Return lines that only show themselves, each whole; a tab stays."""
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)
