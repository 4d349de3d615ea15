"""Formulas in a page of nbconvert become pictures, without a browser and without TeX.

nbconvert leaves formulas as TeX in the text of the page, for MathJax. What counts as a formula here is what that configuration of
MathJax says (tex2jax of MathJax 2: delimiters, escapes, environments, tags that are skipped). latex2mathml reads the TeX, ziamath draws
it. Both are small and pure Python; WeasyPrint knows no MathML, matplotlib's mathtext no matrices and no environments, and KaTeX and
MathJax need a JavaScript engine.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

SIZE: Final = 15.0
"""Pixels of CSS: beside body text of 10 pt, whose letters are taller."""

MARGIN: Final = 1.0
"""Pixels of CSS around a picture: glyphs may reach over their boxes."""

SKIPPED: Final = frozenset({"script", "noscript", "style", "textarea", "pre", "code", "annotation", "annotation-xml", "title", "svg"})
IGNORED: Final = frozenset({"tex2jax_ignore", "mathjax_ignore"})
"""Classes of elements in which a dollar is a dollar; pandas' tables have them where that is asked for."""

DELIMITED: Final = re.compile(
    r"""\\(?P<escaped>\$)
      | \\begin\{(?P<name>[a-zA-Z]{1,40}\*?)\}.{0,5000}?\\end\{(?P=name)\}
      | \$\$(?P<dollars>.{1,5000}?)\$\$
      | \\\[(?P<brackets>.{1,5000}?)\\\]
      | \\\((?P<parentheses>.{1,5000}?)\\\)
      | \$(?P<dollar>(?:\\.|[^$\\]){1,5000})\$""",
    re.DOTALL | re.VERBOSE,
)
"""Bounded: a beginning without an end would be looked for to the end of the text, each time."""

NESTED: Final = re.compile(r"\\(?:(?P<open>left|begin)|(?P<close>right|end))(?![a-zA-Z])|\\.|(?P<braces>[{}])", re.DOTALL)
DEPTH: Final = 20
MOST: Final = 1000
"""Formulas of a page that are drawn."""

SECONDS: Final = 5
"""For one formula."""

REWRITTEN: Final = (
    (re.compile(r"\\(?:label|notag|nonumber)\b(?:\{[^}]*\})?"), ""),
    (re.compile(r"\\tag\*?\{([^}]*)\}"), r"\\qquad \\text{(\1)}"),
    (re.compile(r"\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}"), ""),
    (re.compile(r"&\s*(=|<|>|\\(?:leq?|geq?|neq?|approx|equiv|sim|to|in)\b)\s*&"), r"&\1"),
    (re.compile(r"\{(?:align|eqnarray)\*?\}"), r"{align*}"),
    (re.compile(r"\{(?:gather|multline)\*?\}"), r"{gather*}"),
    (re.compile(r"\\mathop\b"), ""),
)
"""What latex2mathml reads wrongly. It would begin numbers anew with each formula, so that only those of ``\\tag`` are left."""

OVER_AND_UNDER: Final = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
LARGE: Final = frozenset("∑∏∐⋃⋂⋁⋀⨁⨂⨀⨄⨆")  # noqa: RUF001  # operators, not letters
"""Operators whose limits TeX sets above and below in displayed formulas. ziamath makes brackets around them endless otherwise."""

SQUARES: Final = range(0x25A0, 0x2600)
WIDTHS: Final = range(800, 1001)
"""Thousandths of an em that a glyph may have to stand for a Chinese character."""

BOX: Final = 4.268
ASCENT: Final = 2.627
"""Height of the boxes of glyphs in ziamath's drawings, and their part above the baseline, in ems."""


class Picture(NamedTuple):
    """A formula that was drawn.

    :param svg: the drawing.
    :param depth: pixels of CSS below the baseline.
    """

    svg: str
    depth: float


def typeset(soup: Any, complain: Callable[[str], None]) -> None:
    """Replace each formula in a page by its picture.

    One that cannot be drawn stays as it was written.

    :param soup: the page, a ``bs4.BeautifulSoup``; it is changed.
    :param complain: is given a line for each formula that stays.
    """
    left = iter(range(MOST))
    with _silence():
        for node in soup.find_all(string=True):
            if ("$" in node or "\\" in node) and type(node).__name__ == "NavigableString" and not _is_skipped(node):
                _replace(soup, node, complain, left)


def draw(tex: str, *, displayed: bool) -> Picture:
    """Return the picture of a formula.

    :param displayed: whether it stands on lines of its own.
    :raises ValueError: it cannot be read, takes too long, or has characters for which there are no glyphs.
    """
    if depth(tex) > DEPTH:
        raise ValueError(f"its parts are nested more than {DEPTH} deep")
    import ziamath  # noqa: PLC0415  # half a second that a page without formulas need not wait for
    from ziamath import tex as reader  # noqa: PLC0415

    for pattern, replacement in REWRITTEN:
        tex = pattern.sub(replacement, tex)
    try:
        signal.signal(signal.SIGALRM, _stop)
        signal.alarm(SECONDS)
        root = ET.fromstring(reader.tex2mml(tex, inline=not displayed))  # noqa: S314  # of latex2mathml, which escapes
        if displayed:
            _set_limits(root)
        spare = _put_stand_ins(root, ziamath.Math("<math/>").font)
        drawn = ziamath.Math(root, size=SIZE, margin=MARGIN)
        return Picture(_put_text(drawn.svgxml(), spare), MARGIN - drawn.getyofst())
    except ValueError:
        raise
    except Exception as error:  # latex2mathml and ziamath raise whatever they come upon
        raise ValueError(str(error) or type(error).__name__) from error
    finally:
        signal.alarm(0)


def depth(tex: str) -> int:
    """Return how deep the braces, brackets and environments of a formula are nested."""
    brackets = (match for match in NESTED.finditer(tex) if match["open"] or match["close"] or match["braces"])
    steps = (1 if bracket["open"] or bracket["braces"] == "{" else -1 for bracket in brackets)
    return max(itertools.accumulate(steps), default=0)


def _stop(*_: Any) -> None:
    raise TimeoutError(f"it takes more than {SECONDS} s")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep ziafont's first line to the root logger from giving that a handler, which then prints the lines of every library."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _is_skipped(node: Any) -> bool:
    return any(parent.name in SKIPPED or IGNORED & set(parent.get("class") or ()) for parent in node.parents)


def _replace(soup: Any, node: Any, complain: Callable[[str], None], left: Iterator[int]) -> None:
    """Put text and pictures of formulas in the place of a text.

    :param left: yields once for each formula that may still be drawn.
    """
    text, end, parts = str(node), 0, []
    for match in DELIMITED.finditer(text):
        parts += [text[end : match.start()], _part(soup, match, complain, left)]
        end = match.end()
    if parts:
        node.replace_with(*filter(None, [*parts, text[end:]]))


def _part(soup: Any, match: re.Match[str], complain: Callable[[str], None], left: Iterator[int]) -> Any:
    """Return what takes the place of a formula: an image, or its text where it cannot be drawn."""
    if match["escaped"]:
        return "$"
    inline = match["dollar"] or match["parentheses"]
    tex = inline or match["dollars"] or match["brackets"] or match[0]
    try:
        if next(left, None) is None:
            raise ValueError(f"the page has more than {MOST}")
        picture = draw(tex, displayed=not inline)
    except ValueError as error:
        complain(f"a formula stays TeX: {' '.join(tex.split())[:60]}: {error}")
        return soup.new_tag("code", string=match[0])
    source = base64.b64encode(picture.svg.encode()).decode()
    place = {"style": f"vertical-align: {-picture.depth:.2f}px"} if inline else {"class": "formula"}
    return soup.new_tag("img", src=f"data:image/svg+xml;base64,{source}", alt=tex.strip(), attrs=place)


def _set_limits(root: ET.Element) -> None:
    """Set limits of large operators above and below them, as displayed formulas have them."""
    for element in root.iter():
        if element.tag.rpartition("}")[2] in OVER_AND_UNDER and (element[0].text or "") in LARGE:
            namespace, _, name = element.tag.rpartition("}")
            element.tag = f"{namespace}}}{OVER_AND_UNDER[name]}" if namespace else OVER_AND_UNDER[name]


def _put_stand_ins(root: ET.Element, font: Any) -> dict[str, str]:
    """Replace characters that the font of formulas lacks, such as Chinese ones, by squares of about their width.

    :return: the character that each glyph stands for.
    :raises ValueError: there are more of them than squares.
    """
    characters = dict.fromkeys("".join(root.itertext()))
    lacking = [character for character in characters if not character.isspace() and font.glyphindex(character) == 0]
    free = (square for square in map(chr, SQUARES) if square not in characters and font.glyphindex(square))
    squares = [square for square in free if font.glyph(square).advance() in WIDTHS]
    if len(lacking) > len(squares):
        raise ValueError(f"it has {len(lacking)} different characters without a glyph")
    table = dict(zip(lacking, squares, strict=False))
    for element in root.iter():
        element.text = (element.text or "").translate(str.maketrans(table)) or None
    return {f"_{font.glyphindex(square)}": character for character, square in table.items()}


def _put_text(svg: ET.Element, spare: dict[str, str]) -> str:
    """Return a drawing with text, in whatever font of the system has it, in the place of glyphs that stand for it."""
    for parent in list(svg.iter()):
        for index, element in enumerate(parent):
            character = spare.get("_" + element.get("href", "").rpartition("_")[2]) if element.tag.endswith("use") else None
            if character:
                parent[index] = _text(element, character)
    return ET.tostring(svg, encoding="unicode")


def _text(use: ET.Element, character: str) -> ET.Element:
    """Return the character where a glyph was to be; the box of a glyph reaches from :data:`ASCENT` above the baseline to below it."""
    size = float(use.get("height", "0")) / BOX
    baseline = float(use.get("y", "0")) + size * ASCENT
    place = {"x": use.get("x", "0"), "y": f"{baseline:.3f}", "font-size": f"{size:.3f}", "fill": use.get("fill", "black")}
    text = ET.Element("text", {**place, "font-family": "WenQuanYi Micro Hei, sans-serif"})
    text.text = character
    return text
