"""Formulas in a page of nbconvert become pictures, without a browser and without TeX.

nbconvert leaves formulas as TeX in the text of the page, for MathJax. What counts as a formula here is what that configuration of
MathJax says (tex2jax of MathJax 2: delimiters, escapes, environments, tags that are skipped). latex2mathml reads the TeX, ziamath draws
it. Both are small and pure Python; WeasyPrint knows no MathML, matplotlib's mathtext no matrices and no environments, and KaTeX and
MathJax need a JavaScript engine.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
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
      | \\begin\{(?P<name>[a-zA-Z]+\*?)\}.*?\\end\{(?P=name)\}
      | \$\$(?P<dollars>.+?)\$\$
      | \\\[(?P<brackets>.+?)\\\]
      | \\\((?P<parentheses>.+?)\\\)
      | \$(?P<dollar>(?:\\.|[^$\\])+)\$""",
    re.DOTALL | re.VERBOSE,
)
REWRITTEN: Final = (
    (re.compile(r"\\(?:label|notag|nonumber)\b(?:\{[^}]*\})?"), ""),
    (re.compile(r"\\tag\*?\{([^}]*)\}"), r"\\qquad \\text{(\1)}"),
    (re.compile(r"\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}"), ""),
    (re.compile(r"&\s*(=|<|>|\\(?:leq?|geq?|neq?|approx|equiv|sim|to|in)\b)\s*&"), r"&\1"),
    (re.compile(r"\{(?:align|eqnarray)\*?\}"), r"{align*}"),
    (re.compile(r"\{(?:gather|multline)\*?\}"), r"{gather*}"),
    (re.compile(r"\\mathop\b"), ""),
)
"""What latex2mathml reads wrongly; numbers, which it would begin anew with each formula, are those of ``\\tag`` alone."""

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
    with _silence():
        for node in soup.find_all(string=True):
            if ("$" in node or "\\" in node) and type(node).__name__ == "NavigableString" and not _is_skipped(node):
                _replace(soup, node, complain)


def draw(tex: str, *, displayed: bool) -> Picture:
    """Return the picture of a formula.

    :param displayed: whether it stands on lines of its own.
    :raises ValueError: it cannot be read, or has characters for which there are no glyphs.
    """
    import ziamath  # noqa: PLC0415  # half a second that a page without formulas need not wait for
    from ziamath import tex as reader  # noqa: PLC0415

    for pattern, replacement in REWRITTEN:
        tex = pattern.sub(replacement, tex)
    try:
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


def _replace(soup: Any, node: Any, complain: Callable[[str], None]) -> None:
    """Put the parts of a text in its place: text, and pictures of formulas."""
    text, end, parts = str(node), 0, []
    for match in DELIMITED.finditer(text):
        parts += [text[end : match.start()], _part(soup, match, complain)]
        end = match.end()
    if parts:
        node.replace_with(*filter(None, [*parts, text[end:]]))


def _part(soup: Any, match: re.Match[str], complain: Callable[[str], None]) -> Any:
    """Return what takes the place of a formula: an image, or its text where it cannot be drawn."""
    if match["escaped"]:
        return "$"
    inline = match["dollar"] or match["parentheses"]
    tex = inline or match["dollars"] or match["brackets"] or match[0]
    try:
        picture = draw(tex, displayed=not inline)
    except ValueError as error:
        complain(f"a formula stays TeX: {' '.join(tex.split())[:60]}: {error}")
        return soup.new_tag("code", string=match[0])
    source = base64.b64encode(picture.svg.encode()).decode()
    place = {"style": f"vertical-align: {-picture.depth:.2f}px"} if inline else {"class": "formula"}
    return soup.new_tag("img", src=f"data:image/svg+xml;base64,{source}", alt=tex.strip(), attrs=place)


def _set_limits(root: ET.Element) -> None:
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
    lacking = [one for one in characters if not one.isspace() and font.glyphindex(one) == 0]
    squares = [one for one in map(chr, SQUARES) if one not in characters and font.glyphindex(one) and font.glyph(one).advance() in WIDTHS]
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
    made = ET.Element("text", {**place, "font-family": "WenQuanYi Micro Hei, sans-serif"})
    made.text = character
    return made
