"""How long to wait before a request is tried again.

Two loops wait: in :mod:`torchstrata.layers.wheel_fetch`, where bytes that arrived make up for failures before them, and in
:mod:`torchstrata.registry.transport`, where no try begins after an end. A library of retries, such as tenacity, would spare ten lines of
each, and would have to be told these rules.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import random
from typing import Final

LONGEST_ORDER: Final = 300.0
"""Seconds to wait at most where a server says for how long (Retry-After)."""


def pause(failures: int, *, first: float, longest: float, ordered: float = 0.0) -> float:
    """Return the seconds to wait after so many failures.

    :param first: seconds after the first failure, doubled for each further one, and blurred: clients come back apart.
    :param longest: seconds at most.
    :param ordered: what the server asks for, which counts up to :data:`LONGEST_ORDER`.
    """
    usual = min(longest, first * 2.0 ** (failures - 1))
    return max(usual * random.uniform(0.5, 1), min(ordered, LONGEST_ORDER))  # noqa: S311  # jitter, no secret


def retry_after(value: str) -> float:
    """Return the seconds that a ``Retry-After`` header (RFC 9110, section 10.2.3) asks to wait; 0 for other text."""
    value = value.strip()[:40]
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - dt.datetime.now(dt.UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
