"""Indexes that mean harm: whatever a server of wheels answers, the end is a wheel with the right hash or one line of ours."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.allocation import less_than
from tests.serving import serving
from tests.wheelhouse import wheel
from torchstrata.errors import FetchError, IntegrityError, LockError, TorchstrataError
from torchstrata.layers import index_page, wheel_fetch
from torchstrata.layers.index_page import JSON_TYPE, Page
from torchstrata.locks import resolver
from torchstrata.locks.lockfile import Pin

NAME = "big_thing-1.0-py3-none-any.whl"
HTML = "text/html"
Answer = Callable[[BaseHTTPRequestHandler], None]
Refuse = Callable[[Answer], TorchstrataError]


@pytest.fixture
def made(tmp_path: Path) -> Pin:
    """Return the pin of a wheel."""
    return wheel(tmp_path, "big-thing", "1.0", {"big_thing/data.bin": b"data"})[0]


@pytest.fixture(autouse=True)
def _pip(monkeypatch: pytest.MonkeyPatch, unconfigured_pip: None) -> None:
    """Configure pip by the environment alone, without patience."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(wheel_fetch, "LONGEST_PAUSE", 0.02)


@contextlib.contextmanager
def index(answer: Answer) -> Iterator[str]:
    """Serve an index on this machine that answers every request in that way; yield its address."""

    def handle(self: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(ConnectionError):  # a client may have seen enough
            answer(self)

    handler = type("Handler", (BaseHTTPRequestHandler,), {"do_GET": handle, "do_HEAD": handle})
    with serving(handler, protocol="HTTP/1.0") as port:  # a body ends with its connection
        yield f"http://127.0.0.1:{port}"


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Return what gives one answer; underscores of names stand for hyphens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": HTML, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def fetch(pin: Pin, directory: Path) -> Path:
    """Fetch a wheel."""
    return wheel_fetch.fetch(pin, directory, on_bytes=lambda _: None, cancelled=threading.Event())


@pytest.fixture
def refuse(made: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Return what sees an index that answers so end in one printable line, in little memory whatever it sends."""

    def refused(answer: Answer) -> TorchstrataError:
        with index(answer) as address:
            monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
            with less_than(200_000_000), pytest.raises((FetchError, IntegrityError)) as caught:
                fetch(made, tmp_path / "downloads")
        assert caught.value.what.isprintable()
        assert caught.value.fix.isprintable()
        return caught.value

    return refused


def anchor(href: str) -> bytes:
    """Return a page with one link."""
    return f'<a href="{href}">{NAME}</a>'.encode()


PAGES = [
    (b"", HTML),
    (b"<![", HTML),
    (b"<![CDATA[" + b"<!" * 1000, HTML),
    (b"\xff\xfe\x00", HTML),
    (b"<a href=''>" * 1000, HTML),
    (b"<base href='http://[::'>" + anchor(NAME), HTML),
    (anchor(f"http://[::1/{NAME}"), HTML),
    (anchor(f"http://127.0.0.1:99999/{NAME}"), HTML),
    (anchor(f"http://\u202e/{NAME}"), HTML),
    (anchor(f"http://127.0.0.1:1/\x1b[2J/{NAME}"), HTML),
    (b"<a href='x'>", "text/html; charset=zlib"),
    (b"<a href='x'>", "text/html; charset=idna"),
    (b"", JSON_TYPE),
    (b"[]", JSON_TYPE),
    (b"null", JSON_TYPE),
    (b'{"files": 1}', JSON_TYPE),
    (b'{"files": [1]}', JSON_TYPE),
    (b'{"files": [{"url": 1}]}', JSON_TYPE),
    (b'{"files": [{"url": null}]}', JSON_TYPE),
    (b'{"files": [{"url": "' + NAME.encode() + b'", "hashes": {"sha256": 1}}]}', JSON_TYPE),
    (b'{"files": [{"url": "' + NAME.encode() + b'", "hashes": {"sha256": "\\u001b[2J"}}]}', JSON_TYPE),
    (b'{"files": [{"url": "' + NAME.encode() + b'", "upload-time": "never"}]}', JSON_TYPE),
    (b"[" * 100_000, JSON_TYPE),
    (b'{"files":\xff}', JSON_TYPE),
    (b"PK\x03\x04", "application/zip"),
    (b"", "\x9b2J"),
    (b"", ""),
]
"""Bad syntax, other types, odd character sets and links that are no addresses."""
STATUSES = (300, 304, 400, 401, 407, 418, 451, 500, 599)
"""No status of an answer is taken for a page."""
LOCATIONS = [
    "http://other.example/simple/",
    "http://169.254.169.254/latest/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "//[",
    "http://127.0.0.1:0/",
    "",
    "/simple/big-thing/",
    "http://\x1b[2J/",
]
"""A redirect to a host without TLS, to a file, to no address or round and round is not followed."""
ENCODINGS = ("zstd", "br", "deflate", "gzip, gzip", "x\x1b")
"""Only gzip's pieces inflate to a size that is known before."""
LINKS = (
    "file:///etc/{}",
    "http://other.example/{}",
    "ftp://127.0.0.1/{}",
    "javascript:{}",
    "http://user@other.example/{}#sha256=x",
)
"""A page from the network does not make us read a file, nor fetch without TLS."""


@pytest.mark.parametrize(
    "answer",
    [
        *({"body": body, "Content_Type": kind} for body, kind in PAGES),
        *({"status": status, "body": anchor(NAME), "Retry_After": "999999999"} for status in STATUSES),
        *({"status": 307, "Location": location} for location in LOCATIONS),
        *({"body": anchor(NAME), "Content_Encoding": encoding} for encoding in ENCODINGS),
        *({"body": anchor(where.format(NAME))} for where in LINKS),
    ],
    ids=lambda answer: repr(answer)[:80],
)
def test_answers_that_are_no_page_end_in_one_line(refuse: Refuse, answer: dict[str, Any]) -> None:
    """Whatever they are."""
    refuse(answering(**answer))


def test_what_a_server_says_cannot_steer_a_terminal(refuse: Refuse) -> None:
    """Control characters in what is quoted of an answer become question marks."""
    error = refuse(answering(Content_Type="text/plain\x1b[2J\x9bdone"))
    assert "text/plain?[2j?done" in error.what


def without_end(piece: bytes, status: int = 200, **headers: str) -> Answer:
    """Return what gives an answer whose body never ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answering(status, **headers)(handler)
        while True:
            handler.wfile.write(piece)

    return answer


def test_the_body_of_a_redirect_is_not_read(refuse: Refuse) -> None:
    """Nobody wants it, so it may be endless."""
    refuse(without_end(bytes(1 << 20), 302, Location="/simple/big-thing/x"))


@pytest.mark.parametrize("kind", [HTML, JSON_TYPE])
def test_an_endless_page_is_given_up(refuse: Refuse, kind: str) -> None:
    """A page has a largest size, whatever its headers say."""
    assert "more than" in refuse(without_end(b'{"url": "x"},' * 10_000, Content_Type=kind)).what


def test_a_slow_page_is_given_up(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps every time-out of a connection from ending; the page as a whole has one, too."""
    monkeypatch.setattr(index_page, "PAGE_SECONDS", 0.0)
    assert "takes longer" in refuse(without_end(b"<a>")).what


def test_a_page_that_inflates_is_given_up(refuse: Refuse) -> None:
    """A few kilobytes of gzip that stand for a gigabyte are not inflated to their end."""
    body = gzip.compress(bytes(1 << 27), 9) * 8
    assert "more than" in refuse(answering(body=body, Content_Encoding="gzip")).what


def endless(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    """Send a head that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if not piece.startswith(b"HTTP") else b"")
    while True:
        handler.wfile.write(piece)


@pytest.mark.parametrize("sender", ["index", "proxy"])
def test_interim_answers_without_end_are_given_up(made: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    """What stands before a page is bounded in bytes, also where a proxy answers."""
    answer = functools.partial(endless, piece=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
    with index(answer) as address:
        if sender == "proxy":
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("PIP_TRUSTED_HOST", "index.example")  # also another client than that of other tests
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.2:9/simple" if sender == "proxy" else f"{address}/simple")
        with pytest.raises(FetchError, match="more than 1 MiB before a page"):
            fetch(made, tmp_path / "downloads")


@pytest.mark.parametrize("piece", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"], ids=["an interim answer", "half a head"])
def test_a_slow_head_is_given_up(refuse: Refuse, monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    """The seconds that a page has end the wait for it, not only the time-out of the connection, which begins anew with each byte."""
    monkeypatch.setattr(index_page, "PAGE_SECONDS", 0.3)
    done = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(piece)
        done.wait()

    try:
        assert "takes longer" in refuse(answer).what
    finally:
        done.set()


@pytest.mark.parametrize(
    "place",
    ["http://[::1/", "http://127.0.0.1:99999/", "nothing://", "https://", "http://\x1b[2J/", "~nobody-has-this-name/x", "ftp://127.0.0.1/", "file://other/x"],
)
@pytest.mark.parametrize("option", ["PIP_INDEX_URL", "PIP_FIND_LINKS"])
def test_places_that_are_none_are_named(made: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, place: str) -> None:
    """What pip's configuration names must be an address or a path."""
    monkeypatch.setenv("PIP_NO_INDEX", "0" if option == "PIP_INDEX_URL" else "1")
    monkeypatch.setenv(option, place)
    with pytest.raises(FetchError) as caught:
        fetch(made, tmp_path / "downloads")
    assert caught.value.what.isprintable()


def test_a_local_file_that_is_none_is_not_read(made: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe with the name of a wheel, or of a page, is passed over; a page that names a lost file is an error."""
    place = tmp_path / "place"
    place.mkdir()
    os.mkfifo(place / NAME)
    os.mkfifo(place / "index.html")
    (place / "page.html").write_bytes(anchor(f"lost/{NAME}"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(made, tmp_path / "downloads")


@pytest.mark.parametrize("kind", [HTML, JSON_TYPE])
def test_a_page_of_many_others_is_read(kind: str) -> None:
    """The one link that is wanted is found at the end of a very long page."""
    count = 30_000
    many = b"<a href='x'>" * count if kind == HTML else b'{"files": [' + b'{"url": "x"},' * count
    last = anchor(f"../{NAME}#sha256=abc") if kind == HTML else json.dumps({"url": f"../{NAME}", "hashes": {"sha256": "abc"}}).encode() + b"]}"
    (link,) = index_page.links(Page(url="https://index.example/simple/big-thing/", kind=kind, content=many + last), NAME)
    assert link.url_without_fragment == f"https://index.example/simple/{NAME}"
    assert link.hash_option == {"sha256": ["abc"]}


@pytest.mark.parametrize("size", ["x", "-1", "1e9", ""])
def test_a_size_that_is_none_is_not_locked(size: str) -> None:
    """What an index says of a file's size goes into a lock, so it must be a number."""
    with index(answering(Content_Length=size)) as address, pytest.raises(LockError, match="cannot be found") as caught:
        resolver._size(f"{address}/{NAME}")
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (
            JSON_TYPE,
            json.dumps({"files": [{"url": f"/{NAME}", "upload-time": "2026-11-02T10:00:00Z"}, {"url": "/b-1.whl", "yanked": "bad"}, {"url": "/b-1.tar.gz"}]}),
        ),
        (HTML, f'<a href="/{NAME}">x</a><a href="/b-1.whl" data-yanked="bad">x</a><a href="/b-1.tar.gz">x</a>'),
    ],
)
def test_what_was_withdrawn_is_not_listed(kind, content):
    """Nor what is no wheel; the times of upload are those that the page tells."""
    page = Page(url="https://index.example/simple/x/", kind=kind, content=content.encode())
    (found,) = index_page.wheels(page)
    assert (found.link.url, found.uploaded) == (f"https://index.example/{NAME}", "2026-11-02T10:00:00Z" if kind == JSON_TYPE else None)


@pytest.mark.parametrize(
    ("kind", "content"), [(JSON_TYPE, b'{"files": [{"url": 1}]}'), (JSON_TYPE, b"{"), (JSON_TYPE, b'{"files": [{"url": "/a.whl", "upload-time": 7}]}')]
)
def test_a_listing_that_is_none(kind, content):
    """It ends in one line of ours."""
    with pytest.raises(FetchError, match="is no index page"):
        index_page.wheels(Page(url="https://index.example/simple/x/", kind=kind, content=content))
