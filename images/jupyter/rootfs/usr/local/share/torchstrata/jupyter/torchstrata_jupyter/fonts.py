"""Chinese, Japanese and Korean text in matplotlib's figures, without a setting. /etc/python3.*/sitecustomize.py calls this.

matplotlib takes glyphs from another family only where ``font.family`` lists it. Styles set that list anew, a file of settings for the
whole system would hide the user's own, and a family without bold letters makes it warn at each bold title. So this font stands
behind whatever fonts a text has, as matplotlib's own last resort does.
"""

from __future__ import annotations

import functools
from typing import Any, Final

FONT: Final = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
FIRST: Final = 0x2E80
"""The first character of Unicode's Chinese, Japanese and Korean blocks."""


def extend(module: Any) -> None:
    """Let a module of matplotlib find glyphs in :data:`FONT`; one that is laid out otherwise stays as it is."""
    if manager := getattr(module, "FontManager", None):
        _wrap(manager, "_find_fonts_by_props", _with_ours)
    if fonts := getattr(module, "UnicodeFonts", None):
        _wrap(fonts, "_get_glyph", functools.partial(_glyph, module.get_font))


def _wrap(owner: Any, name: str, instead: Any) -> None:
    """Replace a method by ``instead``, which gets the original before its arguments; do nothing where there is no such method."""
    original = getattr(owner, name, None)
    if original:
        setattr(owner, name, lambda *given, **named: instead(original, *given, **named))


def _with_ours(original: Any, *given: Any, **named: Any) -> list[Any]:
    """Return the fonts of a text, and :data:`FONT` behind them."""
    return [*original(*given, **named), FONT]


def _glyph(load: Any, original: Any, fonts: Any, name: str, *kind_and_symbol: str) -> Any:
    """Return the font of a character in a text with formulas, its number there, and whether it is slanted."""
    symbol = kind_and_symbol[-1]
    if len(symbol) == 1 and ord(symbol) >= FIRST:
        return load(FONT), ord(symbol), False
    return original(fonts, name, *kind_and_symbol)
