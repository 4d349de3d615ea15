"""``LANG`` and ``LC_*`` of people's machines: a name that this image lacks becomes ``C.UTF-8``, so that no program complains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from container import notices

SPARE: Final = "C.UTF-8"
"""What every image has: text in UTF-8, messages in English, order by code point."""

ALWAYS: Final = (SPARE, "C", "POSIX")
PREFIX: Final = "LC_"
NAMES: Final = ("LANG",)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that must have another value; locale(7) says how they are read."""
    asked = {name: value for name, value in given.items() if value and (name in NAMES or name.startswith(PREFIX))}
    unknown = sorted(name for name, value in asked.items() if value not in ALWAYS and not exists(value))
    if unknown:
        notices.inform(f"{', '.join(f'{name}={asked[name]}' for name in unknown)}: no such locale here, {SPARE} is used")
    return dict.fromkeys(unknown, SPARE)


def exists(name: str) -> bool:
    """Return whether the C library knows a locale."""
    import locale  # noqa: PLC0415  # slow to load, and most containers ask for nothing else

    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except (locale.Error, ValueError):  # ValueError: a NUL
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True
