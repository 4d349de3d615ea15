"""Fetching wheels by name and hash from wherever pip is configured to look.

A lock pins the sha256, so any source that has the file will do: find-links first, then each index, until one has it,
and last PyTorch's own index, for torch and its family where the default index lacks that build. Files of local
sources are used where they are. Downloads go on where they broke off, also in the next run.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import mimetypes
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx2
from filelock import Timeout
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.collector import is_secure_origin
from unearth.fetchers import PyPIClient

from torchstrata import backoff, tls
from torchstrata.errors import FetchError, IntegrityError
from torchstrata.host.filesystem import disk, lock, write_all
from torchstrata.layers import answer_time, index_page
from torchstrata.layers.index_page import Page, Unready
from torchstrata.locks import pip_config
from torchstrata.locks.lockfile import Pin
from torchstrata.locks.pip_config import PipConfig
from torchstrata.matrix import compat
from torchstrata.store.codec import CHUNK
from torchstrata.store.digest import digest_of
from torchstrata.text import printable

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between the first two tries, and between two at most, where the server does not say."""

WATCH: Final = 0.25
"""Seconds until a download notices that it is cancelled."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks servers of wheels, as pip is configured.

    :param cancelled: once it is set, :class:`CancelledError` ends what is waited for.
    """

    config: PipConfig
    cancelled: threading.Event

    @functools.cached_property
    def client(self) -> PyPIClient:
        """The client of this process."""
        return _client(self.config)

    def retry(self, attempt: Callable[[], T], done: Callable[[], int] = lambda: 0) -> T:
        """Repeat ``attempt`` as often as pip would; what brings ``done`` forward does not count as a failure."""
        failures = 0
        while True:
            before = done()
            try:
                return _abandonable(attempt, self.cancelled)
            except (httpx2.TransportError, Unready) as error:
                failures = 1 if done() > before else failures + 1
                if failures > self.config.retries:
                    raise
                self._pause(failures, error)

    def _pause(self, failures: int, error: Exception) -> None:
        ordered = error.after if isinstance(error, Unready) else 0.0
        if self.cancelled.wait(backoff.pause(failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE, ordered=ordered)):
            raise CancelledError from error


@dataclass(frozen=True, kw_only=True)
class _Job(Caller):
    pin: Pin
    on_bytes: Callable[[int], None]


def fetch(pin: Pin, directory: Path, *, on_bytes: Callable[[int], None], cancelled: threading.Event) -> Path:
    """Return a file with the bytes of ``pin``, verified; call :func:`discard` when it is no longer needed.

    Any number of threads and processes may fetch at a time; the same wheel is downloaded once.

    :param directory: where downloads go; :attr:`Store.downloads`.
    :param on_bytes: told how many more bytes are there.
    :raises FetchError: no configured source has it, or none answers.
    :raises IntegrityError: sources have a file of that name with other bytes.
    :raises CancelledError: ``cancelled`` was set.
    """
    job = _Job(pin=pin, config=pip_config.read(), on_bytes=on_bytes, cancelled=cancelled)
    place = _place(pin, directory)
    with disk(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        held = lock(place.parent / "lock")
    try:
        with held.acquire(poll_interval=WATCH, cancel_check=cancelled.is_set):
            return _cached(job, place) or _search(job, place)
    except Timeout as late:
        raise CancelledError from late


def discard(pin: Pin, directory: Path) -> None:
    """Remove the download of ``pin`` from ``directory``, if it is there."""
    _place(pin, directory).unlink(missing_ok=True)


def _place(pin: Pin, directory: Path) -> Path:
    return directory / pin.sha256 / pin.filename


def _cached(job: _Job, place: Path) -> Path | None:
    if not place.exists():
        return None
    if digest_of(place) != f"sha256:{job.pin.sha256}":
        place.unlink()
        return None
    job.on_bytes(job.pin.size)
    return place


def _search(job: _Job, place: Path) -> Path:
    """Take the wheel from the first source that has it; what is wrong with the others matters only if none does."""
    problems: list[FetchError | IntegrityError] = []
    for find in (*_find_links(job), *_indexes(job)):
        try:
            for link in find():
                return _take(job, link, place)
        except (FetchError, IntegrityError) as problem:
            problems.append(problem)
    if problems:
        raise next((problem for problem in problems if isinstance(problem, IntegrityError)), problems[-1])
    raise FetchError(
        f"no configured source has {job.pin.filename}", fix="point pip to one that has it (index-url, extra-index-url or find-links), or run inv lock --upgrade"
    )


# Finding


def _find_links(job: _Job) -> Iterator[Callable[[], Iterable[Link]]]:
    for place in job.config.find_links:
        yield functools.partial(_looking, job, place, _located)


def _indexes(job: _Job) -> Iterator[Callable[[], Iterable[Link]]]:
    upstream = compat.index_of(job.pin.name, job.pin.version)
    urls = (job.config.index_url or default_index(), *job.config.extra_index_urls, *([upstream] if upstream else []))
    for url in () if job.config.no_index else dict.fromkeys(urls):
        yield functools.partial(_looking, job, f"{url.rstrip('/')}/{job.pin.name}/", _indexed)


@functools.cache
def default_index() -> str:
    """Return the index that is asked where none is configured, as the library knows it."""
    return PackageFinder().sources[0]["url"]


def _link(place: str) -> Link:
    """Return a place as pip's configuration names it.

    :raises FetchError: it is neither a URL nor a path.
    """
    try:
        link = Link(place) if "://" in place else Link(Path(place).expanduser().absolute().as_uri())
        if place.isprintable() and (link.file_path if link.is_file else link.parsed.hostname and link.parsed.port != 0):
            return link
    except (ValueError, RuntimeError):  # no URL, or another machine's file; no such user
        pass
    raise FetchError(f"{printable(place)} is no place to look for wheels", fix="correct pip's index-url, extra-index-url or find-links")


def _looking(job: _Job, named: str, collect: Callable[[_Job, Link], list[Link]]) -> list[Link]:
    """Return the links at a place to the pinned file; a local place that does not exist has none.

    :raises IntegrityError: the place itself says that its file has another hash.
    :raises FetchError: it does not answer, or something else than a page.
    """
    links = reached(job, named, lambda place: collect(job, place))
    right = [link for link in links if job.pin.sha256 in (link.hash_option or {}).get("sha256", [job.pin.sha256])]
    if links and not right:
        raise _other_bytes(job.pin, printable(_link(named).redacted))
    return right


def reached(caller: Caller, named: str, collect: Callable[[Link], T]) -> T:
    """Return what is collected at a place, which pip's configuration or the facts name.

    :raises FetchError: it is no place, not https, or does not answer.
    """
    place = _link(named)
    shown = printable(place.redacted)
    if not is_secure_origin(index_page.fetcher(caller.client), place):
        raise FetchError(f"{shown} is not https", fix="use https, or set pip's trusted-host")
    try:
        return caller.retry(lambda: collect(place))
    except (httpx2.HTTPError, httpx2.InvalidURL, Unready, OSError) as error:
        why = printable(str(error) or type(error).__name__)
        raise FetchError(f"{shown} does not answer: {why}", fix="check the network, proxy and pip's index settings, then run it again") from error


def _located(job: _Job, place: Link) -> list[Link]:
    """Return what a place of find-links has: a wheel, a page, or a directory of both."""
    if place.filename == job.pin.filename:
        return [place] if not place.is_file or place.file_path.is_file() else []
    if not place.is_file:
        return _linked(job, index_page.receive(job.client, place.url_without_fragment, job.config.trusted_hosts))
    path = place.file_path
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    pages = [file for file in inside if mimetypes.guess_type(file.name)[0] == index_page.HTML_TYPES[1] and file.is_file()]
    wheels = [Link(file.as_uri()) for file in inside if file.name == job.pin.filename and file.is_file()]
    return [*wheels, *itertools.chain.from_iterable(_linked(job, index_page.read_file(page)) for page in pages)]


def _indexed(job: _Job, place: Link) -> list[Link]:
    """Return what the page of a project in an index has; a project that an index does not know has none."""
    return _linked(job, project_page(job, place))


def project_page(caller: Caller, place: Link) -> Page | None:
    """Return the page of a project in an index; nothing where the index does not know it."""
    if not place.is_file:
        return index_page.receive(caller.client, place.url_without_fragment, caller.config.trusted_hosts)
    page = place.file_path / "index.html"
    return index_page.read_file(page) if page.exists() else None


def _linked(job: _Job, page: Page | None) -> list[Link]:
    """Return the links of a page to the pinned file, as far as it may lead us there."""
    links = index_page.links(page, job.pin.filename) if page else []
    right = [link for link in links if index_page.allowed(job.client, link.url, str(link.comes_from), job.config.trusted_hosts)]
    if links and not right:
        raise FetchError(f"{printable(links[0].redacted)} is not https", fix="use https, or set pip's trusted-host")
    return right


@functools.cache
def _client(config: PipConfig) -> PyPIClient:
    """Return the one client of this process; connections are kept and shared by all threads."""
    unverified = tls.sealed(httpx2.create_ssl_context(verify=False))
    client = PyPIClient(
        trusted_hosts=config.trusted_hosts,
        mounts={f"all://{host}": httpx2.HTTPTransport(verify=unverified) for host in config.trusted_hosts},
        verify=_context(config.cert or tls.bundle(), config.client_cert, *map(os.environ.get, tls.TRUST_VARIABLES)),
        timeout=httpx2.Timeout(config.timeout),
        follow_redirects=False,
    )
    answer_time.limit(client)
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=[config.index_url or default_index(), *config.extra_index_urls])
    return client


@functools.cache
def _context(bundle: str | None, client: str | None, *_: str | None) -> ssl.SSLContext:
    """Return how to verify servers, and who we are: pip's settings, then the variables that ``requests`` knows.

    It is made once for these and the values of :data:`tls.TRUST_VARIABLES`, since reading all CAs takes long.
    """
    if not bundle and not client:
        return tls.sealed(httpx2.create_ssl_context())
    try:
        context = ssl.create_default_context(**tls.locations(bundle))
        if client:
            context.load_cert_chain(client)
    except OSError as error:
        raise FetchError(f"pip's certificates cannot be read: {error}", fix=f"check cert ({bundle}) and client-cert ({client})") from error
    return tls.sealed(context)


# Downloading


def _take(job: _Job, link: Link, place: Path) -> Path:
    """Return the file behind a link: where it is if that is on this machine, else downloaded."""
    if link.is_file:
        return _local(job, link)
    part = _Partial(place.with_suffix(".part"), job.on_bytes)
    try:
        job.retry(lambda: _receive(job, link, part), lambda: part.size)
    except (httpx2.HTTPError, httpx2.InvalidURL, Unready) as error:
        why = printable(str(error) or type(error).__name__)
        raise FetchError(f"{printable(link.redacted)} broke off: {why}", fix="run it again: it goes on where it stopped") from error
    if part.sha256 != job.pin.sha256:
        part.path.unlink()
        raise _other_bytes(job.pin, printable(link.redacted))
    with disk(place):
        part.path.replace(place)
    return place


def _local(job: _Job, link: Link) -> Path:
    """Return a file on this machine where it is."""
    path = link.file_path
    try:
        right = path.is_file() and path.stat().st_size == job.pin.size and digest_of(path) == f"sha256:{job.pin.sha256}"
    except OSError as error:
        raise FetchError(f"{printable(str(path))} cannot be read: {error.strerror}", fix="correct its rights, or pip's find-links") from error
    if not right:
        raise _other_bytes(job.pin, printable(str(path.parent)))
    job.on_bytes(job.pin.size)
    return path


class _Partial:
    """A download that may have begun in an earlier try or run: its file, size and hash so far."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        self.path, self._on_bytes = path, on_bytes
        self.restart()
        if path.exists():
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self.count(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def restart(self) -> None:
        """Forget what is there."""
        self.size, self._hash = 0, hashlib.sha256()

    def count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        self._on_bytes(len(chunk))


def _receive(job: _Job, link: Link, part: _Partial) -> None:
    """Get what is missing of a part, in one request."""
    if part.size == job.pin.size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={part.size}-"} if part.size else {})
    with index_page.asked(job.client, link.url_without_fragment, headers, job.config.trusted_hosts) as response:
        index_page.check_status(response)
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if not goes_on:
            part.restart()
        with disk(part.path):
            file = part.path.open("ab" if goes_on else "wb", buffering=0)
        with file:
            for chunk in response.iter_raw():  # as it comes: what waits in a larger buffer is lost when the connection breaks
                if job.cancelled.is_set():
                    raise CancelledError
                with disk(part.path):
                    write_all(file, chunk)
                part.count(chunk)
                if part.size > job.pin.size:
                    break
    if part.size < job.pin.size:
        raise Unready(f"hung up after {part.size} of {job.pin.size} bytes")


def _abandonable(work: Callable[[], T], cancelled: threading.Event) -> T:
    """Run ``work`` in a thread of its own; leave it behind once ``cancelled`` is set: its server may be silent.

    :raises CancelledError: it was set.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            outcome.set_exception(error)

    threading.Thread(target=run, name="request", daemon=True).start()
    while not cancelled.is_set():
        if outcome in wait([outcome], timeout=WATCH).done:
            return outcome.result()
    raise CancelledError


def _other_bytes(pin: Pin, where: str) -> IntegrityError:
    return IntegrityError(
        f"{where} has {pin.filename} with other bytes than the lock pins (sha256 {pin.sha256[:12]}...)",
        fix="remove that copy if it is yours; if the package was published anew, check why, then run inv lock --upgrade",
    )
