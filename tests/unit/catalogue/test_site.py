"""The pages of a catalogue: whole, small, without a request to anybody, and with nothing in them that a registry could have slipped in."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain, product
from posixpath import normpath
from typing import Final

import msgspec
import pytest

from tests import showcase
from torchstrata.attestations.examination import Finding
from torchstrata.attestations.record import LockedWheel, Package
from torchstrata.catalogue import site
from torchstrata.catalogue.exhibits import Catalogue
from torchstrata.catalogue.site import Site
from torchstrata.catalogue.strings import FOLDERS, LANGUAGES, Speaker

HOSTILE: Final = "</script><img src=x onerror=alert(1)>\"'><a href='javascript:alert(2)'>{{ 7*7 }}"
FIRST_PAGE: Final = 300_000
"""Bytes that somebody downloads to see the first page."""

PAGES: Final = ("index.html", "images.html", "trends.html", *Site(showcase.catalogue(12)).pages.values())
PATHS: Final = [f"{folder}{page}" for folder, page in product(FOLDERS.values(), PAGES)]
"""The pages of twelve images."""


class Page(HTMLParser):
    """What a page has that matters: elements, links, ids, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))

    def values(self, *names: str) -> list[str]:
        """Return the values of attributes."""
        every = chain.from_iterable(attributes.items() for _, attributes in self.elements)
        return [value for name, value in every if name in names and value]


@functools.cache
def files(count: int, place: str = showcase.PLACE) -> Mapping[str, bytes]:
    """Return the site of so many images."""
    return dict(Site(showcase.catalogue(count, place=place)).files())


@functools.cache
def parsed(count: int, path: str) -> Page:
    """Return a page of the site of so many images."""
    return Page(files(count)[path].decode())


@functools.cache
def ids(count: int, path: str) -> frozenset[str]:
    """Return to what fragments of addresses lead in a page."""
    return frozenset(parsed(count, path).values("id"))


def pages(made: Mapping[str, bytes]) -> dict[str, str]:
    """Return the pages."""
    return {path: content.decode() for path, content in made.items() if path.endswith(".html")}


def hostile() -> Catalogue:
    """Return a catalogue of an image whose every text is written by somebody who means harm."""
    good = showcase.catalogue(4)
    image = good.images[0]
    record = msgspec.structs.replace(
        image.record,
        wheels=(LockedWheel(name="x", version="1", filename="x", sha256="0", size=1, licence=HOSTILE),),
        packages=(Package(name="x", version="1", architecture="amd64", source=HOSTILE, source_version="1", licence=HOSTILE),),
        inputs=msgspec.structs.replace(image.record.inputs, drift=(HOSTILE,), os_lock_date=HOSTILE),
        layers=tuple(msgspec.structs.replace(layer, title=HOSTILE) for layer in image.record.layers),
    )
    evidence = msgspec.structs.replace(image.evidence, problems=(HOSTILE,), not_run=(HOSTILE,), finished=HOSTILE, revision=HOSTILE, tiers=(HOSTILE,))
    keep = {"torchstrata.cell", "torchstrata.flavour"}
    bad = replace(
        image,
        labels={name: value if name in keep else HOSTILE for name, value in image.labels.items()},
        record=record,
        evidence=evidence,
        layers=tuple(replace(layer, title=HOSTILE) for layer in image.layers),
        platform=HOSTILE,
        problems=(HOSTILE,),
        findings=(Finding(part=HOSTILE, proves=HOSTILE, problem=HOSTILE),),
    )
    return replace(good, images=(bad, *good.images[1:]), unread={HOSTILE: HOSTILE}, source=HOSTILE)


@pytest.mark.parametrize("path", PATHS)
def test_links_lead_to_files_of_the_site(path):
    """Those of pages, styles and scripts, and fragments to an element that is there."""
    made = files(12)
    for address in parsed(12, path).values("href", "src"):
        if address.startswith("data:"):
            continue
        place, _, fragment = address.partition("#")
        target = normpath(f"{path.rpartition('/')[0]}/{place}".lstrip("/")) if place else path
        assert target in made, address
        assert not fragment or fragment in ids(12, target), address


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_asked_of_another_host(path):
    """No address in a page has a host; a policy keeps what others may have slipped in from running."""
    page = parsed(12, path)
    assert [one for one in page.values("href", "src", "action", "data", "poster", "srcset") if re.match(r"(?!data:)[a-z+]+:|//", one)] == []
    policy = next(attributes["content"] for tag, attributes in page.elements if tag == "meta" and "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


@pytest.mark.parametrize("path", PATHS)
def test_pages_keep_to_their_own_policy(path):
    """No inline style, handler or script, which the policy would refuse; every id is there once."""
    page = parsed(12, path)
    names = chain.from_iterable(attributes for _, attributes in page.elements)
    assert [name for name in names if name == "style" or name.startswith("on")] == []
    inline = [attributes for tag, attributes in page.elements if tag == "script" and "src" not in attributes]
    assert all(attributes["type"] == "application/json" for attributes in inline)
    assert len(page.values("id")) == len(ids(12, path))


def test_what_a_registry_says_is_only_text():
    """Labels, licences, titles, reasons, problems, tags that cannot be read: none becomes an element, a link or a template."""
    made = dict(Site(hostile()).files())
    shown = 0
    for text in pages(made).values():
        page = Page(text)
        assert not [tag for tag, attributes in page.elements if tag in {"img", "iframe", "object"} or "onerror" in attributes]
        assert [one for one in page.values("href") if "javascript:" in one] == []
        assert "49" not in re.findall(r"javascript:alert\(2\)&#39;&gt;(..)", text)
        shown += text.count("&lt;/script&gt;")
    assert shown > 30
    for path, content in made.items():
        if path.endswith(".js") and path.startswith("data/"):
            assert b"<" not in content


def test_the_ledgers_reasons_are_only_text():
    """Whoever may move a channel writes them."""
    texts = pages(files(48)).values()
    assert any("NCCL hangs on 8 GPUs &lt;script&gt;alert(1)&lt;/script&gt;" in text for text in texts)
    assert not any("<script>alert" in text for text in texts)


@pytest.mark.parametrize("count", [5, 500])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_page_is_small(count, language):
    """With its style and its script; 500 images as well."""
    first = Site(showcase.catalogue(count)).index(Speaker(language=language))
    assert len(first) + sum(path.stat().st_size for path in site.ASSETS.iterdir()) < FIRST_PAGE


def test_every_image_has_a_page_in_every_language():
    """With its digest, its packages with licences, its layers, its tests and its history."""
    catalogue = showcase.catalogue(12)
    made = pages(files(12))
    assert sorted(made) == sorted(PATHS)
    assert len(made) == 2 * (12 + 3)
    for image in catalogue.images:
        for folder in ("", "zh/"):
            text = made[f"{folder}images/{site.slug(image)}.html"]
            assert image.digest in text
            assert "GPL-2.0-or-later" in text
            assert "numpy" in text
            assert "registry.example/team/pytorch-cuda@sha256:" in text


def test_a_page_says_what_is_not_known():
    """An engine's image without a record: no packages, no signatures, no history, and no line that pulls."""
    catalogue = showcase.catalogue(4, place="")
    bare = replace(catalogue.images[0], record=None, evidence=None, attached=(), tags=())
    made = pages(dict(Site(replace(catalogue, images=(bare,), ledger=type(catalogue.ledger)())).files()))
    text = made[f"images/{site.slug(bare)}.html"]
    for words in ("No result of tests is known", "Nothing is known of the packages", "no ledger here", "Unknown: there is no record", "nothing to pull"):
        assert words in text


def test_a_page_says_what_changed_and_which_fixes_an_older_one_lacks():
    """The packages that moved since the release before, and those that the newest has fixed."""
    catalogue = showcase.catalogue(48)
    series = next(releases for releases in catalogue.series.values() if len(releases) > 1)
    made = pages(files(48))
    newer, older = (made[f"images/{site.slug(image)}.html"] for image in series[:2])
    assert '<th scope="row">lib-thing7</th><td>1.7-1+deb13u0</td><td>1.7-1+deb13u1</td>' in newer
    assert "has fixes in 150 source packages" in older
    assert "There is a newer release" in older


def test_whether_signatures_were_checked_is_said_on_every_page():
    """A catalogue without a key must not look like one with."""
    catalogue = showcase.catalogue(3)
    unchecked, checked = (pages(dict(Site(each).files())) for each in (catalogue, replace(catalogue, who="cosign.pub")))
    for path in (path for path in unchecked if path.startswith(("index", "images/"))):
        assert "Nobody has checked signatures" in unchecked[path]
        assert "Signatures were checked, by cosign.pub" in checked[path]


def test_json_and_data_are_what_programs_read():
    """``catalogue.json`` has every image with its page; scripts of data hand over JSON."""
    made = files(12)
    document = json.loads(made["catalogue.json"])
    assert len(document["images"]) == 12
    assert {image["page"] for image in document["images"]} <= set(made)
    assert document["images"][0]["reference"].startswith("registry.example/team/pytorch-cuda@sha256:")
    assert document["checked"] is None
    name, value = re.fullmatch(r"catalogue\((\".*?\"), (.*)\);\n", made["data/images.js"].decode(), re.DOTALL).groups()
    assert json.loads(name) == "images"
    assert len(json.loads(value)) == 12


def test_the_same_catalogue_gives_the_same_bytes():
    """No clock, no order of a dictionary that may change."""
    assert dict(Site(showcase.catalogue(6)).files()) == dict(Site(showcase.catalogue(6)).files())
