"""What indexes publish of a package: pages, and parts of wheels by range requests (RFC 9110, section 14).

Simple repository API: https://packaging.python.org/specifications/simple-repository-api/
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from installer.exceptions import InstallerError
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from unearth import Link

from torchstrata import platforms
from torchstrata.errors import FetchError, IntegrityError
from torchstrata.layers import answer_time, index_page, wheel_fetch
from torchstrata.layers.index_page import Listed, Unready
from torchstrata.layers.wheel_fetch import Caller
from torchstrata.layers.wheel_file import Wheel
from torchstrata.locks import pip_config
from torchstrata.locks.lockfile import Pin
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

PIECE: Final = 1 << 20
"""Bytes that are asked for at a time."""

RANGES: Final = "point pip to an index that answers range requests (index-url)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedWheel:
    """A wheel for Linux on one kind of processor.

    :param name: of the package, normalised.
    :param version: with its local part, such as ``2.8.0+cu126``.
    :param uploaded: when, in RFC 3339; ``None`` where the index does not tell.
    """

    name: str
    version: Version
    tags: frozenset[Tag]
    link: Link
    uploaded: str | None

    @property
    def pin(self) -> Pin:
        """Name and version as a lock has them; nobody knows hash and size yet."""
        return Pin(name=self.name, version=str(self.version), filename=self.link.filename, sha256="", size=0)


def caller() -> Caller:
    """Return who asks as pip is configured, until the process ends.

    :raises FetchError: pip's configuration cannot be read.
    """
    return Caller(config=pip_config.read(), cancelled=threading.Event())


def wheels(asks: Caller, project: str, index: str | None = None, *, platform: str = PLATFORM) -> list[PublishedWheel]:
    """Return the wheels of a project, in the order of the places.

    :param index: the only index that is asked; where pip is configured to look if ``None``.
    :param platform: that they fit.
    :raises FetchError: one of the places does not answer, or not with a page; or pip's ``no-index`` forbids to look.
    """
    if asks.config.no_index:
        raise FetchError("pip's no-index forbids to look into indexes", fix="take no-index out of pip's configuration for this command")
    config = asks.config
    urls = [index] if index else [config.index_url or wheel_fetch.default_index(), *config.extra_index_urls]
    listed: list[Listed] = []
    for url in dict.fromkeys(urls):
        listed += wheel_fetch.reached(asks, f"{url.rstrip('/')}/{project}/", lambda place: _listed(asks, place))
    return [wheel for file in listed if (wheel := _wheel(project, file, platforms.MACHINES[platform]))]


def _listed(asks: Caller, place: Link) -> list[Listed]:
    """Return the wheels of a project's page, as far as it may lead us there."""
    page = wheel_fetch.project_page(asks, place)
    listed = index_page.wheels(page) if page else []
    trusted = asks.config.trusted_hosts
    return [file for file in listed if index_page.allowed(asks.client, file.link.url, str(file.link.comes_from), trusted)]


def _wheel(project: str, listed: Listed, machine: str) -> PublishedWheel | None:
    """Return what a file's name says; nothing of a file of another project, system or processor."""
    try:
        name, version, _, tags = parse_wheel_filename(listed.link.filename)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    if name != project or not any(_fits(tag.platform, machine) for tag in tags):
        return None
    return PublishedWheel(name=name, version=version, tags=tags, link=listed.link, uploaded=listed.uploaded)


def _fits(platform: str, machine: str) -> bool:
    return platform == "any" or platform.endswith(f"linux_{machine}") or (platform.startswith("manylinux") and platform.endswith(machine))


@contextmanager
def opened(asks: Caller, published: PublishedWheel) -> Iterator[Wheel]:
    """Open a wheel for a block that reads parts of it; what it says of itself is checked against its name first.

    :raises FetchError: its server does not answer, or not with parts.
    :raises IntegrityError: it is not the wheel that its name says.
    """
    try:
        with Wheel.open(_Place(asks, published.link)) as wheel:
            wheel.check(published.pin)
            yield wheel
    except (InstallerError, ValueError) as error:  # the gate's error is a ValueError, as that of text which is no UTF-8
        what = f"{printable(published.link.redacted)} is not what its name says: {printable(str(error))}"
        raise IntegrityError(what, fix="ask who keeps that index, or point pip to another one (index-url)") from error


@dataclass(frozen=True)
class _Place:
    """Where a wheel lies, as :meth:`Wheel.open` asks for it."""

    asks: Caller
    link: Link

    def open(self, _mode: str) -> Any:
        """Return a file that can be sought in: the one on this machine, or one that is asked for in pieces."""
        if self.link.is_file:
            return Path(self.link.file_path).open("rb")
        return io.BufferedReader(_Remote(self.asks, self.link), PIECE)


class _Remote(io.RawIOBase):
    """A file of a server, of which only what is read is asked for."""

    def __init__(self, asks: Caller, link: Link) -> None:
        super().__init__()
        self.name = link.filename
        self._asks, self._link, self._position = asks, link, 0
        self._size: int | None = None
        self._size = self._piece(0, 1)[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._position + len(buffer), self._size or 0)
        if end <= self._position:
            return 0
        piece, _ = self._piece(self._position, end)
        buffer[: len(piece)] = piece
        self._position = end
        return len(piece)

    def _piece(self, start: int, end: int) -> tuple[bytes, int]:
        """Return a piece, and how long the whole file is."""
        try:
            return self._asks.retry(lambda: self._receive(start, end))
        except (httpx2.HTTPError, httpx2.InvalidURL, Unready) as error:
            why = printable(str(error) or type(error).__name__)
            raise FetchError(f"{printable(self._link.redacted)} does not answer: {why}", fix="check the network, proxy and pip's index settings") from error

    def _receive(self, start: int, end: int) -> tuple[bytes, int]:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        client, trusted = self._asks.client, self._asks.config.trusted_hosts
        with answer_time.within(index_page.PAGE_SECONDS), index_page.asked(client, self._link.url_without_fragment, headers, trusted) as response:
            index_page.check_status(response)
            place, _, size = response.headers.get("Content-Range", "").partition("/")
            is_asked = place == f"bytes {start}-{end - 1}" and size.isascii() and size.isdecimal() and self._size in {None, int(size)}
            if not is_asked:
                raise FetchError(f"{printable(self._link.redacted)} does not answer with the part of it that was asked for", fix=RANGES)
            return _exactly(response, end - start), int(size)


def _exactly(response: httpx2.Response, size: int) -> bytes:
    """Return the body of an answer, which must have so many bytes."""
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > size:
            break
    if len(content) != size:
        raise Unready(f"sent {len(content)} bytes instead of {size}")
    return content
