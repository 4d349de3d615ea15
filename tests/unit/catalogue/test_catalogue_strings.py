"""The table of strings: complete in each language, and all of what people read comes from it."""

from __future__ import annotations

import re
import string
from itertools import chain
from typing import Final, get_args

import pytest

from torchstrata.catalogue import measurements, site, strings
from torchstrata.catalogue.exhibits import Verdict
from torchstrata.catalogue.strings import LANGUAGES, TABLE, Speaker
from torchstrata.release.ledger import Action

TEMPLATES = sorted((site.HERE / "templates").glob("*.html"))
SCRIPT = (site.ASSETS / "catalogue.js").read_text(encoding="utf-8")
PYTHON = "\n".join(path.read_text(encoding="utf-8") for path in site.HERE.glob("*.py") if path.name != "strings.py")
LATIN: Final = re.compile(r"[A-Za-z]{2,}")


def placeholders(text: str) -> set[str]:
    """Return the names of what is put into a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def used() -> set[str]:
    """Return the keys that templates, the script and the package name."""
    markup = "\n".join(path.read_text(encoding="utf-8") for path in TEMPLATES)
    plain = set(re.findall(r"'([a-z]+\.[a-z_]+)'", markup)) | set(re.findall(r'"([a-z]+\.[a-z_]+)"', PYTHON))
    said = {f"js.{key}" for key in re.findall(r'(?:say|list)\((?:"[a-z]+", [^,]+, )?"([a-z_]+)"', SCRIPT)}
    said |= {f"js.{key}" for key in re.findall(r'"([a-z_]+)"', SCRIPT)} & TABLE.keys()
    verdicts = {f"verdict.{name}" for name in get_args(Verdict)}
    actions = {f"action.{name}" for name in get_args(Action) if name != "check"}
    states = {f"matrix.{name}" for name in ("offered", "open", "impossible", "unpublished")}
    kinds = {f"kind.{name}" for name in site.KINDS}
    return (plain & TABLE.keys()) | said | verdicts | actions | states | kinds | {title for _, title in site.SECTIONS}


@pytest.mark.parametrize("key", TABLE)
def test_every_text_is_there_in_every_language(key):
    """With the same words put in, and without white space around it."""
    texts = TABLE[key]
    assert len(texts) == len(LANGUAGES)
    assert all(texts)
    assert all(text == text.strip() for text in texts)
    assert len({frozenset(placeholders(text)) for text in texts}) == 1


def test_every_text_is_used():
    """What no page says any more goes."""
    assert sorted(TABLE.keys() - used()) == []


def test_every_key_that_is_used_is_there():
    """A page that is rarely made may name one that nobody wrote."""
    markup = "\n".join(path.read_text(encoding="utf-8") for path in TEMPLATES)
    named = set(re.findall(r"\bt\('([a-z_.]+)'[,)]", markup)) | {f"js.{key}" for key in re.findall(r'\bsay\("([a-z_]+)"', SCRIPT)}
    assert sorted(named - TABLE.keys()) == []
    assert set(chain.from_iterable(measurements.TIMES.values())) <= TABLE.keys()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_have_no_words_of_their_own(path):
    """All that people read is said by the table, so that it can be said in another language."""
    text = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}|<[^>]*>|&\w+;", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert LATIN.findall(text) == []


def test_chinese_is_chinese():
    """A text that is longer than a name has Chinese characters."""
    missing = [key for key, (english, chinese) in TABLE.items() if english == chinese and " " in english]
    assert missing == []
    assert Speaker(language="zh-Hans")("nav.images") == "全部镜像"


def test_a_speaker_refuses_what_it_does_not_know():
    """A page without a text would be published else."""
    with pytest.raises(KeyError):
        Speaker(language="en")("nav.nothing")
    with pytest.raises(KeyError):
        Speaker(language="en")("foot.made", day="today")


def test_the_script_gets_its_texts_with_their_placeholders():
    """It puts words in itself."""
    assert strings.Speaker(language="en").script()["driver_old"] == "needs driver {floor} or newer"
