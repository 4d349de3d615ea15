"""Small wheels and an index that misbehaves, for tests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import ssl
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.serving import serving
from tests.waiting import PATIENCE
from torchstrata.locks.lockfile import Pin

EXECUTABLE = 0o100755 << 16
PLAIN = 0o100644 << 16


def wheel(  # noqa: PLR0913  # what makes a wheel
    directory: Path, name: str, version: str, files: dict[str, bytes], *, executable: tuple[str, ...] = (), more: str = "", tag: str = "py3-none-any"
) -> tuple[Pin, Path]:
    """Write a wheel with ``files`` and what the specification asks for; return its pin and path.

    :param more: further fields of its METADATA.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *more.splitlines(), ""]).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = [f"{path},sha256={_hash(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in content.items():
            entry = zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = EXECUTABLE if member in executable else PLAIN
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=1)  # noise that is as large as torch is compressed all day otherwise
    return pin(path, name, version), path


def forged(path: Path, content: dict[str, bytes], *, record: str | None = None, change: Callable[[zipfile.ZipInfo], object] = lambda _: None) -> Pin:
    """Write a wheel named ``NAME-VERSION-...whl`` with any ``content``, which wins over what the specification asks for; return its pin.

    :param record: all of RECORD; by default what the specification asks for.
    :param change: changes what the archive's directory and headers say of an entry.
    """
    name, version, *_ = path.name.split("-")
    info = f"{name}-{version}.dist-info"
    texts = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"}
    content = {f"{info}/{each}": text.encode() for each, text in texts.items()} | content
    if record is None:
        record = "".join(f'"{each}",sha256={_hash(data)},{len(data)}\n' for each, data in content.items() if not each.endswith("/")) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {f"{info}/RECORD": record.encode(), **content}.items():
            entry = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
            entry.filename = member  # as it is: the class would mend it
            entry.external_attr, entry.compress_type = PLAIN, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
            change(entry)
    return pin(path, name, version)


def pin(path: Path, name: str, version: str) -> Pin:
    """Return the pin of a file as it is."""
    data = path.read_bytes()
    return Pin(name=name, version=version, filename=path.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@dataclass
class Index:
    """A package index on loopback that serves ``files``.

    :param hangups: number of downloads that break off half-way.
    :param refusals: statuses that downloads are answered with first.
    :param ranges: it answers with parts (RFC 9110, section 14).
    :param silent: downloads get headers and half of the body, then nothing until it is set.
    :param as_json: pages as PEP 691 instead of PEP 503.
    :param stalled: is set once a download is silent.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    hangups: int = 0
    refusals: list[int] = field(default_factory=list)
    ranges: bool = True
    silent: threading.Event | None = None
    as_json: bool = False
    url: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def downloads(self) -> list[tuple[str, str | None]]:
        """Return path and Range header of every request for a file."""
        return [(path, asked) for path, asked in self.requests if path.startswith("/files/")]

    def content(self, name: str) -> bytes:
        """Return a file."""
        return self.files[name]

    @contextmanager
    def serve(self, context: ssl.SSLContext | None = None) -> Iterator[Self]:
        """Serve until the block ends, by TLS with a context."""
        with serving(type("Handler", (_IndexHandler,), {"index": self}), context) as port:
            self.url = f"{'https' if context else 'http'}://127.0.0.1:{port}/simple"
            yield self

    def page(self, project: str) -> tuple[str, bytes] | None:
        """Return type and content of a project's page, if it is known."""
        names = [name for name in self.files if name.partition("-")[0].replace("_", "-").lower() == project]
        if not names:
            return None
        if self.as_json:
            listed = [{"filename": name, "url": f"/files/{name}", "hashes": {}} for name in names]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": listed}).encode()
        return "text/html", "".join(f'<a href="/files/{name}">{name}</a>' for name in names).encode()


class _IndexHandler(BaseHTTPRequestHandler):
    index: Index

    def do_GET(self) -> None:
        """Answer with a page or a file."""
        path = unquote(urlsplit(self.path).path)
        self.index.requests.append((path, self.headers.get("Range")))
        if path.startswith("/files/"):
            self._file(path.removeprefix("/files/"))
        elif page := self.index.page(path.rstrip("/").rpartition("/")[2]):
            self._head(200, {"Content-Type": page[0], "Content-Length": str(len(page[1]))})
            self._write(page[1])
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815  # the names are those of the base class

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # a client may have seen enough, or been killed
                self.wfile.write(data)

    def _file(self, name: str) -> None:
        if self.index.refusals:
            self.send_error(self.index.refusals.pop(0))
            return
        data = self.index.content(name)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.index.ranges else None
        start, last = (int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)) if asked else (0, len(data) - 1)
        ranged = {"Content-Range": f"bytes {start}-{last}/{len(data)}"} if asked else {}
        self._head(206 if asked else 200, {"Content-Length": str(last + 1 - start), **ranged})
        self._body(data[start : last + 1])

    def _body(self, data: bytes) -> None:
        if not self.index.hangups and not self.index.silent:
            self._write(data)
            return
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True
        if self.index.silent:
            self.index.stalled.set()
            self.index.silent.wait(PATIENCE)
        self.index.hangups -= 1
