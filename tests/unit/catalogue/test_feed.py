"""The Atom feed: what RFC 4287 asks of one, and what the ledger says."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from xml.etree import ElementTree as ET

from tests import showcase
from torchstrata.catalogue import feed
from torchstrata.catalogue.site import Site
from torchstrata.catalogue.strings import Speaker
from torchstrata.release.ledger import Ledger

NAMES = {"a": feed.ATOM}


def entries(address: str = "", count: int = 60) -> list[ET.Element]:
    """Return the entries of the feed of so many images."""
    catalogue = showcase.catalogue(count)
    return ET.fromstring(feed.render(catalogue, Site(catalogue).pages, address, Speaker(language="en"))).findall("a:entry", NAMES)


def test_a_feed_has_what_atom_asks_for():
    """An id, a title, a time, an author, and of each entry an id of its own, a title, a time and a link (RFC 4287, 4.1)."""
    catalogue = showcase.catalogue(60)
    root = ET.fromstring(feed.render(catalogue, {}, "https://team.example/", Speaker(language="en")))
    assert all(root.find(f"a:{name}", NAMES) is not None for name in ("id", "title", "updated", "author/a:name", "link[@rel='self']"))
    made = root.findall("a:entry", NAMES)
    assert all(entry.find(f"a:{name}", NAMES) is not None for entry, name in product(made, ("id", "title", "updated", "content", "link")))
    ids = [entry.findtext("a:id", None, NAMES) for entry in made]
    assert len(ids) == len(set(ids)) == len(catalogue.ledger.entries)


def test_the_newest_comes_first_and_rollbacks_are_told():
    """With the reason, which is text and no markup."""
    first = entries()[0]
    assert first.find("a:category", NAMES).get("term") == "rollback"
    assert "rolled back" in first.findtext("a:title", None, NAMES)
    assert "NCCL hangs on 8 GPUs <script>" in first.findtext("a:content", None, NAMES)


def test_links_lead_to_the_image():
    """Relative where nobody has said where the site is."""
    assert entries()[0].find("a:link", NAMES).get("href").startswith("images/")
    assert entries("https://team.example/x/")[0].find("a:link", NAMES).get("href").startswith("https://team.example/x/images/")


def test_a_feed_without_a_ledger_is_a_feed():
    """An engine has none; then its time is that of the catalogue."""
    catalogue = replace(showcase.catalogue(1), ledger=Ledger())
    root = ET.fromstring(feed.render(catalogue, {}, "", Speaker(language="en")))
    assert root.findall("a:entry", NAMES) == []
    assert root.findtext("a:updated", None, NAMES).startswith(f"{showcase.NOW:%Y-%m-%dT%H:%M}")
