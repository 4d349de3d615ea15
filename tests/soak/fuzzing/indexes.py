"""Readers of what names places: index pages, and pip's configuration."""

from __future__ import annotations

import tempfile
import urllib.parse
from pathlib import Path
from typing import Final

from torchstrata.layers import index_page
from torchstrata.layers.index_page import HTML_TYPES, JSON_TYPE, Page
from torchstrata.locks import pip_config as configuration

NAME: Final = "evil-1.0-py3-none-any.whl"
URL: Final = "https://index.example/simple/evil/"


def _read(kind: str, data: bytes) -> None:
    """Read a page; every link of it is to the file that is wanted, and an address that a line can show."""
    for link in index_page.links(Page(url=URL, kind=kind, content=data), NAME):
        assert link.url.isprintable(), link
        assert link.filename == NAME or "@" in link.url, link
        assert urllib.parse.urlsplit(link.url).port != 0, link
        assert link.redacted is not None
        assert link.hash_option is None or link.hash_option


def html(data: bytes) -> None:
    """Read bytes as a page of HTML."""
    _read(HTML_TYPES[1], data)


def json(data: bytes) -> None:
    """Read bytes as a page of JSON."""
    _read(JSON_TYPE, data)


def pip_config(data: bytes) -> None:
    """Read bytes as a configuration file of pip."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        found = configuration.read({"PIP_CONFIG_FILE": file.name})
    assert 0 <= found.timeout <= configuration.TIMEOUT, found
    assert 0 <= found.retries <= configuration.RETRIES, found


HTML: Final = (
    f'<!DOCTYPE html><base href="../"><a href="{NAME}#sha256=abc" data-requires-python="&gt;=3">{NAME}</a>'.encode(),
    f"<a href='//x/{NAME}'><!-- <a> --><script><a href='{NAME}'></script>".encode(),
    f'<a href="//{NAME}">{NAME}</a>'.encode(),
    b"<![CDATA[",
)
JSON: Final = (
    f'{{"meta": {{"api-version": "1.1"}}, "files": [{{"filename": "{NAME}", "url": "../{NAME}", "hashes": {{"sha256": "abc"}}}}]}}'.encode(),
    f'{{"files": [{{"url": "//{NAME}", "hashes": {{"s": "abc"}}}}]}}'.encode(),
    b'{"files": [{"url": null}, {}, {"url": "http://[::1", "hashes": null}]}',
)
PIP_CONFIGS: Final = (b"[global]\nindex-url = https://a.example/simple\ntimeout = 3\ntrusted-host = a b:80\n", b"[install]\nretries: 5\n", b"x")
