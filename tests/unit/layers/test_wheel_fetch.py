"""Fetching wheels: over real sockets, from servers that misbehave, and from local places."""

from __future__ import annotations

import os
import random
import shutil
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.limits import files_of_at_most
from tests.waiting import PATIENCE
from tests.wheelhouse import Index, wheel
from torchstrata.errors import FetchError, IntegrityError, StoreError
from torchstrata.layers import wheel_fetch
from torchstrata.matrix import compat

CONTENT = random.Random(2).randbytes(3_000_000)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Return pin and path of a wheel of 3 MB, made once."""
    return wheel(tmp_path_factory.mktemp("big"), "big-thing", "1.0", {"big_thing/data.bin": CONTENT})


@pytest.fixture
def made(tmp_path, big):
    """Return pin and path of a wheel of 3 MB that the test may change."""
    (tmp_path / "made").mkdir()
    pin, path = big
    return pin, Path(shutil.copy(path, tmp_path / "made"))


@pytest.fixture(autouse=True)
def pip(monkeypatch, unconfigured_pip):
    """Configure pip by the environment alone: no index, and short pauses between tries."""
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", str(PATIENCE))
    monkeypatch.setenv("PIP_RETRIES", "2")
    monkeypatch.setattr(wheel_fetch, "LONGEST_PAUSE", 0.02)

    def configure(**options):
        for name, value in options.items():
            monkeypatch.setenv(f"PIP_{name.upper()}", str(value))

    return configure


@pytest.fixture
def index(made, pip):
    """Return an index that has the wheel and is the one that pip knows; start it with ``serve``."""
    pin, path = made
    served = Index(files={pin.filename: path.read_bytes()})
    with served.serve():
        pip(index_url=served.url)
        yield served


@pytest.fixture
def downloads(tmp_path):
    """Return the directory for downloads."""
    return tmp_path / "wheels"


def fetch(pin, directory, cancelled=None, seen=None):
    """Fetch, counting bytes into ``seen``."""
    return wheel_fetch.fetch(pin, directory, on_bytes=(seen if seen is not None else []).append, cancelled=cancelled or threading.Event())


@pytest.mark.parametrize("as_json", [False, True], ids=["html", "json"])
def test_a_wheel_comes_from_an_index(made, index, downloads, as_json):
    """Both kinds of index pages lead to the file; every byte is counted once."""
    pin, path = made
    index.as_json = as_json
    seen = []
    found = fetch(pin, downloads, seen=seen)
    assert found.name == pin.filename
    assert found.read_bytes() == path.read_bytes()
    assert sum(seen) == pin.size


def test_a_wheel_that_is_there_is_not_fetched_again(made, index, downloads):
    """The cached file is verified and used; the index is not even asked."""
    first = fetch(made[0], downloads)
    asked = len(index.requests)
    assert fetch(made[0], downloads) == first
    assert len(index.requests) == asked


def test_a_damaged_cached_wheel_is_fetched_again(made, index, downloads):
    """A file that was truncated on disk does not count."""
    os.truncate(fetch(made[0], downloads), 1000)
    assert fetch(made[0], downloads).stat().st_size == made[0].size


def test_a_download_that_hangs_up_goes_on_where_it_was(made, index, downloads):
    """Each broken connection resumes by Range; nothing is fetched twice, however often it happens."""
    index.hangups = 5
    seen = []
    fetch(made[0], downloads, seen=seen)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in index.downloads() if asked]
    assert len(starts) == 5
    assert starts == sorted(set(starts))
    assert sum(seen) == made[0].size


def test_a_disk_that_takes_a_part_of_the_last_bytes_is_full(made, index, downloads):
    """They are hashed as they come, and what was hashed is not what is there; with space, the next try goes on."""
    pin, path = made
    with files_of_at_most(pin.size - 1), pytest.raises(StoreError, match="File too large"):
        fetch(pin, downloads)
    assert fetch(pin, downloads).read_bytes() == path.read_bytes()
    assert index.downloads()[-1][1] == f"bytes={pin.size - 1}-"


def test_a_server_without_ranges_starts_over(made, index, downloads):
    """If the server ignores Range, the whole file comes again and is whole."""
    index.hangups, index.ranges = 1, False
    assert fetch(made[0], downloads).read_bytes() == made[1].read_bytes()


def test_a_later_run_goes_on_with_what_an_earlier_one_has(made, index, downloads):
    """A part that an interrupted process left is continued."""
    pin, path = made
    part = downloads / pin.sha256 / pin.filename
    part.parent.mkdir(parents=True)
    part.with_suffix(".part").write_bytes(path.read_bytes()[:1_000_000])
    assert fetch(pin, downloads).read_bytes() == path.read_bytes()
    assert index.downloads() == [(f"/files/{pin.filename}", "bytes=1000000-")]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(made, index, downloads, status):
    """Statuses that pass are retried."""
    index.refusals = [status]
    assert fetch(made[0], downloads).stat().st_size == made[0].size


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (401, 1), (404, 1)])
def test_a_server_that_stays_busy_is_an_error(made, index, downloads, status, tries):
    """After pip's number of retries, and what is there is kept; statuses that do not pass are not retried."""
    index.refusals = [status] * 9
    with pytest.raises(FetchError, match=f"HTTP status {status}") as caught:
        fetch(made[0], downloads)
    assert len(index.downloads()) == tries
    assert ("goes on where it stopped" in caught.value.fix) == (status == 503)


def test_tampered_bytes_are_refused(made, index, downloads):
    """A file of the right name and size with other bytes is not used, not kept, and named."""
    data = bytearray(made[1].read_bytes())
    data[1000] ^= 1
    index.files[made[0].filename] = bytes(data)
    with pytest.raises(IntegrityError, match="other bytes than the lock pins"):
        fetch(made[0], downloads)
    assert not list(downloads.rglob("*.whl")) + list(downloads.rglob("*.part"))


def test_a_larger_file_is_refused_before_it_fills_the_disk(made, index, downloads):
    """Bytes beyond the pinned size end the download."""
    index.files[made[0].filename] = made[1].read_bytes() + bytes(20_000_000)
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(made[0], downloads)


def test_a_project_that_no_source_knows(made, index, downloads):
    """The error names the file and says where to point pip."""
    index.files.clear()
    with pytest.raises(FetchError, match=f"no configured source has {made[0].filename}") as caught:
        fetch(made[0], downloads)
    assert "find-links" in caught.value.fix


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"index_url": "http://127.0.0.1:1/simple"}, r"127\.0\.0\.1:1/simple/big-thing/ does not answer"),
        ({"index_url": "http://index.example/simple"}, "is not https"),
        ({"index_url": "https://127.0.0.1:1/simple", "cert": "/nowhere/none.pem"}, "certificates cannot be read"),
    ],
    ids=["closed port", "no TLS", "no certificates"],
)
def test_an_index_that_cannot_be_asked_is_named(made, downloads, pip, options, what):
    """In one line; other hosts need https or pip's trusted-host, as with pip."""
    pip(**options)
    with pytest.raises(FetchError, match=what):
        fetch(made[0], downloads)


def test_the_next_index_helps_out(made, index, downloads, pip):
    """A dead index does not matter if another has the file: the hash says that it is the right one."""
    pip(index_url="http://127.0.0.1:1/simple", extra_index_url=index.url)
    assert fetch(made[0], downloads).stat().st_size == made[0].size


def test_files_of_find_links_are_used_where_they_are(made, downloads, pip):
    """A local file is verified, not copied, and :func:`wheel_fetch.discard` leaves it alone."""
    pin, path = made
    pip(no_index="1", find_links=path.parent)
    assert fetch(pin, downloads) == path
    wheel_fetch.discard(pin, downloads)
    assert path.exists()


def test_a_local_index_is_an_index(made, downloads, pip, tmp_path):
    """A directory of PEP 503 pages works by file://; projects it lacks are no error."""
    pin, path = made
    page = tmp_path / "simple" / pin.name / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{path.as_uri()}#sha256={pin.sha256}">{pin.filename}</a>')
    pip(index_url=(tmp_path / "empty").as_uri(), extra_index_url=(tmp_path / "simple").as_uri())
    assert fetch(pin, downloads) == path


def test_a_tampered_local_file_gives_way_to_the_index(made, index, downloads, pip):
    """What is in find-links under the right name with the wrong bytes is passed over; alone, it is an error."""
    pin, path = made
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    pip(find_links=path.parent)
    assert fetch(pin, downloads).read_bytes() == data
    pip(no_index="1")
    wheel_fetch.discard(pin, downloads)
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(pin, downloads)


def test_a_page_that_pins_another_hash_is_not_downloaded(made, index, downloads):
    """An index that says itself that its file differs costs no download."""
    index.files = {f"{made[0].filename}#sha256={'0' * 64}": b""}
    with pytest.raises(IntegrityError, match="other bytes"):
        fetch(made[0], downloads)
    assert index.downloads() == []


def test_a_silent_server_does_not_hold_up_ctrl_c(made, index, downloads):
    """Cancelling ends a stalled download while the server is still silent, and keeps what came."""
    index.silent = threading.Event()
    cancelled = threading.Event()
    threading.Thread(target=lambda: index.stalled.wait(PATIENCE) and cancelled.set(), daemon=True).start()
    with pytest.raises(CancelledError):
        fetch(made[0], downloads, cancelled)
    assert not index.silent.is_set()
    index.silent.set()


def test_many_callers_download_once(made, index, downloads):
    """Threads that want the same wheel wait for one of them."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: fetch(made[0], downloads), range(8)))
    assert len(found) == 1
    assert len(index.downloads()) == 1


@pytest.fixture
def upstream_at(monkeypatch):
    """Return a function that lets the facts name another index for CUDA 12.6."""

    def name(url):
        upstream = compat.Upstream(packages=compat.facts().upstream.packages, indexes={"cu126": url})
        facts = msgspec.structs.replace(compat.facts(), upstream=upstream)
        monkeypatch.setattr(compat, "facts", lambda: facts)

    return name


def test_pytorchs_own_index_is_asked_last(tmp_path, downloads, pip, upstream_at):
    """A build of torch that the index does not have which pip knows comes from there."""
    pin, path = wheel(tmp_path, "torch", "2.8.0+cu126", {"torch/x.py": b""})
    with Index(files={}).serve() as known, Index(files={pin.filename: path.read_bytes()}).serve() as upstream:
        pip(index_url=known.url)
        upstream_at(upstream.url)
        assert fetch(pin, downloads).read_bytes() == path.read_bytes()
        assert [place for place, _ in known.requests] == ["/simple/torch/"]


@pytest.mark.parametrize(
    ("name", "version", "options"),
    [("numpy", "2.8.0+cu126", {}), ("torch", "2.8.0", {}), ("torch", "2.8.0+cu126", {"no_index": 1})],
    ids=["another package", "torch of the default index", "no index"],
)
def test_pytorchs_own_index_is_asked_for_its_builds_alone(  # noqa: PLR0913, PLR0917  # fixtures
    tmp_path, downloads, pip, upstream_at, name, version, options
):
    """Whatever else it has is not looked at; and who forbids indexes means all of them."""
    pin, path = wheel(tmp_path, name, version, {f"{name}/x.py": b""})
    with Index(files={}).serve() as known, Index(files={pin.filename: path.read_bytes()}).serve() as upstream:
        pip(index_url=known.url, **options)
        upstream_at(upstream.url)
        with pytest.raises(FetchError, match="no configured source has"):
            fetch(pin, downloads)
        assert upstream.requests == []
