"""Changes of a document as hypothesis draws them: of its bits, of its lines, and of the values in them."""

from __future__ import annotations

import json
from itertools import chain

from hypothesis import strategies as st

VALUES = (None, True, 0, -1, 1e308, 10**40, "", "\x1b[2J", "..", "a" * 5_000, [], {}, [[]], {"": {}}, "sha256:" + "0" * 64)
"""What no document has in that place."""


@st.composite
def flipped(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content with one to eight of its bits turned over."""
    changed = bytearray(content)
    for place in draw(st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=8, unique=True)):
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@st.composite
def cut(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content with a piece removed, repeated, or replaced by any bytes."""
    begin = draw(st.integers(0, len(content)))
    end = draw(st.integers(begin, min(len(content), begin + draw(st.sampled_from((1, 16, 4_096))))))
    return content[:begin] + draw(st.one_of(st.just(b""), st.just(content[begin:end] * 2), st.binary(max_size=64))) + content[end:]


@st.composite
def rearranged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content with its lines in another order, some of them missing or there twice."""
    lines = content.splitlines(keepends=True)
    return b"".join(draw(st.lists(st.sampled_from(lines), max_size=len(lines) + 1)))


@st.composite
def revalued(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content with a value somewhere in a line of JSON replaced, removed or added, and the line written anew."""
    lines = content.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    document = json.loads(lines[number])
    holders = [each for each in walk(document) if isinstance(each, dict | list)]
    holder = draw(st.sampled_from(holders))
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = draw(st.sampled_from([*keys, *(["surprise"] if isinstance(holder, dict) else [])] or [None]))
    if key is not None:
        if key in keys and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = draw(st.sampled_from(VALUES))
    lines[number] = json.dumps(document, separators=(",", ":")).encode()
    return b"\n".join(lines) + b"\n"


def walk(value: object) -> list[object]:
    """Return a value and all that it holds."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *chain.from_iterable(map(walk, inside))]


def of(content: bytes, *, lines: bool = True) -> st.SearchStrategy[bytes]:
    """Return what draws any change of a document; its lines are JSON if ``lines``."""
    return st.one_of(flipped(content), cut(content), *((rearranged(content), revalued(content)) if lines else ()))
