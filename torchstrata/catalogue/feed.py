"""The ledger as an Atom feed (RFC 4287): what was published, promoted and rolled back, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

from torchstrata.catalogue.exhibits import Catalogue
from torchstrata.catalogue.strings import Speaker
from torchstrata.release.ledger import LedgerEntry, fingerprint

ATOM: Final = "http://www.w3.org/2005/Atom"
ENTRIES: Final = 100
"""Of a feed; the ledger has all."""


def render(catalogue: Catalogue, pages: dict[str, str], address: str, say: Speaker) -> bytes:
    """Return the feed.

    :param pages: path of the page by digest of the image.
    :param address: of the site; empty if nobody knows it, and links are relative then.
    """
    ET.register_namespace("", ATOM)
    feed = ET.Element(f"{{{ATOM}}}feed")
    moved = [(entry, line) for entry, line in zip(catalogue.ledger.entries, catalogue.ledger.lines, strict=True) if entry.action != "check"]
    _text(feed, "id", f"urn:torchstrata:catalogue:{catalogue.place or 'engine'}")
    _text(feed, "title", say("feed.title"))
    _text(feed, "updated", moved[-1][0].time if moved else f"{catalogue.made:%Y-%m-%dT%H:%M:%SZ}")
    ET.SubElement(feed, f"{{{ATOM}}}link", {"rel": "self", "href": f"{address}feed.atom"})
    ET.SubElement(feed, f"{{{ATOM}}}link", {"rel": "alternate", "type": "text/html", "href": f"{address}index.html"})
    ET.SubElement(ET.SubElement(feed, f"{{{ATOM}}}author"), f"{{{ATOM}}}name").text = catalogue.source
    for entry, line in reversed(moved[-ENTRIES:]):
        _entry(feed, entry, line, pages, address, say)
    content: bytes = ET.tostring(feed, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _entry(feed: ET.Element, entry: LedgerEntry, line: str, pages: dict[str, str], address: str, say: Speaker) -> None:  # noqa: PLR0913, PLR0917
    made = ET.SubElement(feed, f"{{{ATOM}}}entry")
    _text(made, "id", f"urn:sha256:{fingerprint(line)}")
    _text(made, "title", f"{entry.cell}: {say(f'action.{entry.action}')} ({entry.channel})")
    _text(made, "updated", entry.time)
    page = next((pages[digest] for digest in reversed(entry.images.values()) if digest in pages), "index.html")
    ET.SubElement(made, f"{{{ATOM}}}link", {"rel": "alternate", "type": "text/html", "href": f"{address}{page}"})
    ET.SubElement(made, f"{{{ATOM}}}category", {"term": entry.action})
    _text(made, "content", "\n".join(_lines(entry)), type="text")


def _lines(entry: LedgerEntry) -> Iterator[str]:
    if entry.why:
        yield entry.why
    yield from (f"{image}: {digest}" for image, digest in entry.images.items())


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, f"{{{ATOM}}}{name}", attributes).text = text
