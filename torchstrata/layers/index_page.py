"""The gate of index pages: what servers of wheels answer, bounded in bytes, time and redirects, and read into links.

Simple repository API: https://packaging.python.org/specifications/simple-repository-api/
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
from unearth import Link
from unearth.collector import IndexHTMLParser, is_secure_origin
from unearth.fetchers import Fetcher, PyPIClient

from torchstrata import backoff, decoding
from torchstrata.errors import FetchError
from torchstrata.layers import answer_time
from torchstrata.layers.answer_time import FIX
from torchstrata.text import printable

PAGE: Final = 32 << 20
"""Bytes of a page at most, inflated."""

PAGE_SECONDS: Final = 120.0
"""Seconds that a page may take to arrive, with all redirects, or the head of a download."""

READING_SECONDS: Final = 10.0
"""Seconds of a core that reading a page of HTML may take; a megabyte takes about one."""

PIECE: Final = 1 << 18
"""Characters of HTML between two looks at the clock."""

REDIRECTS: Final = 10

JSON_TYPE: Final = "application/vnd.pypi.simple.v1+json"
HTML_TYPES: Final = ("application/vnd.pypi.simple.v1+html", "text/html")
ACCEPT: Final = f"{JSON_TYPE}, {HTML_TYPES[0]}; q=0.1, {HTML_TYPES[1]}; q=0.01"

ENCODINGS: Final = ("", "identity", "gzip")
"""How a page may be compressed; gzip inflates a piece from the network to 70 MB at most, others to any size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page as it came.

    :param url: its address after all redirects.
    :param kind: its media type, in lower case.
    """

    url: str
    kind: str
    content: bytes


class _IndexFile(msgspec.Struct, frozen=True, gc=False):
    """A file of a page; what nothing but a new lock asks for may be anything."""

    url: str = ""
    hashes: Mapping[str, str] | None = None
    upload_time: Any = msgspec.field(default=None, name="upload-time")
    yanked: Any = False

    @property
    def uploaded(self) -> str | None:
        """When it was uploaded, in RFC 3339, if the index tells (PEP 700)."""
        return decoding.convert(self.upload_time, str | None)  # type: ignore[arg-type]  # a union is a type to msgspec


class _Listing(msgspec.Struct, frozen=True):
    files: tuple[_IndexFile, ...] = ()


_Wanted = Callable[[str, bool], bool]
"""Says of a file's name, and of whether it was withdrawn (PEP 592), whether it is wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A wheel on a page of an index.

    :param uploaded: when, in RFC 3339; ``None`` where the index does not tell (PEP 700).
    """

    link: Link
    uploaded: str | None


class _Anchors(IndexHTMLParser):
    """Keeps the links that are wanted alone, so that a page of millions of others takes no memory."""

    def __init__(self, wanted: _Wanted) -> None:
        super().__init__()
        self.found: list[str] = []
        self._wanted = wanted

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a link, or of the base of links."""
        marks = dict(attrs)
        href = marks.get("href")
        if tag == "a" and href and self._wanted(_name(href), "data-yanked" in marks):
            self.found.append(href)
        elif tag == "base":
            super().handle_starttag(tag, attrs)


def read_file(path: Path) -> Page:
    """Return a page of HTML in a local directory.

    :raises FetchError: it is no regular file, or too long.
    """
    if not path.is_file():
        raise FetchError(f"{printable(str(path))} is no file", fix="correct pip's index-url or find-links")
    with path.open("rb") as file:
        content = file.read(PAGE + 1)
    return Page(url=path.absolute().as_uri(), kind=HTML_TYPES[1], content=_bounded(content, str(path)))


def receive(client: PyPIClient, url: str, trusted: Iterable[str]) -> Page | None:
    """Return the page at ``url``; nothing where the server knows none.

    :param trusted: hosts that may be asked without TLS.
    :raises httpx2.HTTPError: the server does not answer.
    :raises Unready: it is busy.
    :raises FetchError: it answers something else than a page, too much, or too slowly.
    """
    headers = {"Accept": ACCEPT, "Accept-Encoding": "gzip"}
    with answer_time.within(PAGE_SECONDS), asked(client, url, headers, trusted) as response:
        if response.status_code in {httpx2.codes.FORBIDDEN, httpx2.codes.NOT_FOUND, httpx2.codes.GONE}:
            return None
        check_status(response)
        kind = response.headers.get("Content-Type", "").lower()
        if not kind.startswith((JSON_TYPE, *HTML_TYPES)) or response.headers.get("Content-Encoding", "").lower() not in ENCODINGS:
            raise FetchError(f"{_shown(url)} is no index page: {printable(kind, 80) or 'without a type'}", fix=FIX)
        return Page(url=str(response.url), kind=kind, content=_content(response, _shown(url)))


class Unready(Exception):
    """A server is busy; carries after how many seconds to ask again at the earliest."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


def check_status(response: httpx2.Response) -> None:
    """Refuse an answer whose status is an error.

    :raises Unready: the server may have one later.
    :raises FetchError: it has none.
    """
    status = response.status_code
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        raise Unready(f"HTTP status {status}", after=backoff.retry_after(response.headers.get("Retry-After", "")))
    if status >= httpx2.codes.MULTIPLE_CHOICES:
        fix = "check credentials (netrc or the index URL) and that the file still exists there"
        raise FetchError(f"{_shown(str(response.url))}: HTTP status {status}", fix=fix)


def _content(response: httpx2.Response, shown: str) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > PAGE:
            break
    return _bounded(b"".join(pieces), shown)


def _bounded(content: bytes, shown: str) -> bytes:
    if len(content) > PAGE:
        raise FetchError(f"{printable(shown)} has more than {PAGE >> 20} MiB, more than any index page", fix=FIX)
    return content


@contextmanager
def asked(client: PyPIClient, url: str, headers: Mapping[str, str], trusted: Iterable[str]) -> Iterator[httpx2.Response]:
    """Ask for ``url`` and yield the answer with its body unread; redirects follow the rules of :func:`allowed`.

    :raises FetchError: a redirect leads where requests may not go, there are too many, or a head does not end.
    """
    trusted = tuple(trusted)
    for _ in range(REDIRECTS + 1):
        with answer_time.within(PAGE_SECONDS, answer_time.HEAD):
            response = client.send(client.build_request("GET", url, headers=headers), stream=True, follow_redirects=False)
        with closing(response):
            if not response.has_redirect_location:
                yield response
                return
            target = joined(url, response.headers["Location"])
        if target is None or not allowed(client, target, url, trusted):
            raise FetchError(f"{_shown(url)} redirects to {_shown(target or 'no address')}, which is not https", fix=FIX)
        url = target
    raise FetchError(f"{_shown(url)} redirects more than {REDIRECTS} times", fix=FIX)


def allowed(client: PyPIClient, target: str, source: str, trusted: Iterable[str]) -> bool:
    """Return whether one address may send us to another: by https; without TLS as its source or pip's trust allows.

    :param source: address of the page or redirect that names ``target``; one on this machine may name files.
    """
    parts = urllib.parse.urlsplit(target)
    scheme = urllib.parse.urlsplit(source).scheme
    if parts.scheme in {"https", "file"}:
        return parts.scheme == "https" or scheme == "file"
    named = not {parts.hostname, parts.netloc}.isdisjoint(trusted)
    return parts.scheme == "http" and (named or (scheme in {"http", "file"} and is_secure_origin(fetcher(client), Link(target))))


def fetcher(client: PyPIClient) -> Fetcher:
    """Return the client as its own library's protocol has it."""
    fetcher: Fetcher = client  # type: ignore[assignment]  # it differs in the names of arguments
    return fetcher


def joined(base: str, reference: str) -> str | None:
    """Return the address that a reference on a page means; ``None`` if it is not valid."""
    try:
        address = urllib.parse.urljoin(base, reference)
        parts = urllib.parse.urlsplit(address)
        local = parts.scheme == "file" and parts.netloc in {"", "localhost"}
        readable = address.isprintable() and (local or (parts.scheme != "file" and bool(parts.hostname) and parts.port != 0))
    except ValueError:
        return None
    return address if readable else None


def links(page: Page, filename: str) -> list[Link]:
    """Return the links of a page to a file of that name.

    :raises FetchError: the page is not what its type says.
    """
    with _readable(page):
        return [link for link, _ in _files(page, lambda name, _: name == filename)]


def wheels(page: Page) -> list[Listed]:
    """Return all wheels of a page but those that were withdrawn (PEP 592).

    :raises FetchError: the page is not what its type says.
    """
    with _readable(page):
        files = _files(page, lambda name, is_yanked: name.endswith(".whl") and not is_yanked)
        return [Listed(link=link, uploaded=file.uploaded) for link, file in files]


def _files(page: Page, wanted: _Wanted) -> list[tuple[Link, _IndexFile]]:
    base, files = _json(page, wanted) if page.kind.startswith(JSON_TYPE) else _html(page, wanted)
    base_url = joined(page.url, base) or page.url
    addresses = ((joined(base_url, file.url), file) for file in files)
    return [(Link(url, page.url, hashes=dict(file.hashes or {}) or None), file) for url, file in addresses if url and _is_of_a_file(url)]


@contextmanager
def _readable(page: Page) -> Iterator[None]:
    """Raise an error that names the page where the block cannot read it."""
    try:
        yield
    except (ValueError, AssertionError, RecursionError) as error:  # msgspec's errors are ValueErrors; the parser of HTML asserts
        raise FetchError(f"{_shown(page.url)} is no index page: {printable(str(error))}", fix=FIX) from error


def _json(page: Page, wanted: _Wanted) -> tuple[str, list[_IndexFile]]:
    files = decoding.decode(page.content, _Listing).files
    return "", [file for file in files if wanted(_name(file.url), bool(file.yanked))]


def _html(page: Page, wanted: _Wanted) -> tuple[str, list[_IndexFile]]:
    text, parser = page.content.decode(errors="replace"), _Anchors(wanted)
    latest = time.thread_time() + READING_SECONDS
    for start in range(0, len(text), PIECE):
        parser.feed(text[start : start + PIECE])
        if time.thread_time() > latest:
            raise ValueError("reading it takes too long")
    return parser.base_url or "", [_IndexFile(url=href) for href in parser.found]


def _name(reference: str) -> str:
    """Return the name of the file that a reference means, without what follows in it."""
    path = reference.partition("#")[0].partition("?")[0]
    return urllib.parse.unquote(path.rpartition("/")[2])


def _is_of_a_file(url: str) -> bool:
    """Return whether an address has a path to a file: of ``//NAME`` the name is a host's."""
    return bool(_name(urllib.parse.urlsplit(url).path))


def _shown(url: str) -> str:
    """Return an address without credentials, fit for a line."""
    try:
        return printable(Link(url).redacted)
    except ValueError:
        return "an address that is none"
