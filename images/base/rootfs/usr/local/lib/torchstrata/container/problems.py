"""What is wrong and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One line: what does not work, and what to do."""

    what: str
    fix: str
