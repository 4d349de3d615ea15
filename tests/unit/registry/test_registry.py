"""The client against a registry that does what the specification allows and Debian's does not; over real sockets."""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import random
from concurrent.futures import CancelledError

import pytest

from tests.distribution import Distribution
from tests.waiting import PATIENCE
from torchstrata import backoff
from torchstrata.errors import AbsentError, IntegrityError, RegistryAuthError, RegistryError
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.registry import transport, upload
from torchstrata.registry.patience import Patience
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.registry.transport import Unanswered
from torchstrata.registry.upload import Source

QUICK = Patience(tries=3, first=0.01, longest=0.02, connect=PATIENCE, greeting=PATIENCE)
DATA = random.Random(7).randbytes(250_000)
IMAGE = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch, tmp_path):
    """Upload in small pieces; nobody is logged in anywhere."""
    monkeypatch.setattr(upload, "PIECE", 100_000)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def start():
    """Return a function that starts a registry and a client for it."""
    running = []

    def started(**behaviour):
        served = Distribution(**behaviour)
        running.append(served.serve())
        running[-1].__enter__()
        return served, Registry(served.host, patience=QUICK)

    yield started
    for server in running:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("silent", [False, True])
def test_blobs_and_manifests_go_there_and_back(start, relative, silent):
    """Relative Locations, and registries that never tell a digest, are as good as others; queries in Locations are kept."""
    served, registry = start(relative=relative, silent=silent)
    assert registry.push_blob("team/x", Source.of(DATA)).way == "sent"
    assert registry.content("team/x", sha256(DATA)) == DATA
    digest = registry.put_manifest("team/x", "v1", IMAGE, MANIFEST)
    assert registry.manifest("team/x", "v1") == (IMAGE, MANIFEST, digest)
    assert registry.find("team/x", "v1") == (MANIFEST, digest, len(IMAGE))
    assert all("state=kept" in path for method, path, _ in served.seen if method in {"PUT", "PATCH"} and "/uploads/" in path)


@pytest.mark.parametrize(
    ("minimum", "pieces"),
    [(0, ["0-99999", "100000-199999", "200000-249999"]), (200_000, ["0-199999", "200000-249999"])],
    ids=["our pieces", "OCI-Chunk-Min-Length"],
)
def test_a_large_blob_goes_in_pieces_with_their_ranges(start, minimum, pieces):
    """Each PATCH says where it belongs, and the closing PUT has the rest; a registry may want larger ones."""
    served, registry = start(minimum=minimum)
    registry.push_blob("team/x", Source.of(DATA))
    assert [headers["Content-Range"] for headers in (*served.requests("PATCH"), *served.requests("PUT"))] == pieces


def test_a_small_blob_goes_in_one_request(start):
    """Begin and end: nothing between."""
    served, registry = start()
    registry.push_blob("team/x", Source.of(DATA[:1000]))
    assert [method for method, path, _ in served.seen if "/uploads/" in path] == ["POST", "PUT"]


def test_an_upload_goes_on_where_it_broke(start):
    """The registry is asked how far it is, and what it has is not sent again."""
    served, registry = start(break_after=[60_000, 30_000, 10_000])
    told = []
    registry.push_blob("team/x", Source.of(DATA), on_bytes=told.append)
    starts = [int(headers["Content-Range"].partition("-")[0]) for headers in served.requests("PATCH")]
    assert starts[:3] == [0, 60_000, 90_000]
    assert registry.content("team/x", sha256(DATA)) == DATA
    assert sum(told) == len(DATA)


def test_an_upload_that_the_registry_has_lost_starts_over(start):
    """It is begun again, not given up."""
    served, registry = start()
    lost = []

    def lose(count):
        lost.append(count)
        if len(lost) == 20:
            served.uploads.clear()

    assert registry.push_blob("team/x", Source.of(DATA), on_bytes=lose).way == "sent"
    assert registry.content("team/x", sha256(DATA)) == DATA
    assert len(served.requests("POST")) == 2


def test_a_mount_that_becomes_an_upload(start):
    """202 is no failure: its upload is the one that is used."""
    served, registry = start(mounts=False)
    registry.push_blob("team/a", Source.of(DATA))
    assert registry.push_blob("team/b", Source.of(DATA), mount_from=["team/a"]).way == "sent"
    assert len(served.requests("POST", "team/b")) == 1
    assert served.uploads == {}


def test_a_repository_that_one_may_not_read_cannot_be_mounted_from(start):
    """The push goes on without it."""
    _, registry = start(denied=frozenset({"secret/x"}))
    assert registry.push_blob("team/b", Source.of(DATA), mount_from=["secret/x"]).way == "sent"


def test_uploads_of_mounts_that_failed_are_ended(start):
    """Asking several repositories leaves nothing behind."""
    served, registry = start()
    registry.push_blob("team/c", Source.of(DATA))
    assert registry.push_blob("team/b", Source.of(DATA), mount_from=["team/a", "team/c"]).way == "mounted"
    assert served.uploads == {}


def test_forbidden_is_not_absent(start):
    """403 is an error wherever absence would be an answer."""
    _, registry = start(denied=frozenset({"secret/x"}))
    for ask in (lambda: registry.find("secret/x", "v1"), lambda: registry.has_blob("secret/x", sha256(DATA)), lambda: registry.tags("secret/x")):
        with pytest.raises(RegistryAuthError, match="docker login"):
            ask()


def test_a_registry_that_has_stored_something_else(start):
    """What it says of a blob or manifest that was pushed or pulled is compared."""
    _, registry = start(lies="sha256:" + "0" * 64)
    for ask in (
        lambda: registry.push_blob("team/x", Source.of(DATA)),
        lambda: registry.put_manifest("team/x", "v1", IMAGE, MANIFEST),
        lambda: registry.manifest("team/x", "v1"),
    ):
        with pytest.raises(IntegrityError):
            ask()


@pytest.mark.parametrize("times", [1, QUICK.tries])
def test_blobs_that_a_registry_does_not_see_yet(start, times):
    """A manifest whose blobs another client pushes at the same moment is pushed again; if they stay unseen, that is the error."""
    served, registry = start(unseen=times)
    if times < QUICK.tries:
        assert registry.put_manifest("team/x", "v1", IMAGE, MANIFEST) == sha256(IMAGE)
    else:
        with pytest.raises(RegistryError, match="blob unknown to registry"):
            registry.put_manifest("team/x", "v1", IMAGE, MANIFEST)
    assert len(served.requests("PUT", "/manifests/")) == min(times + 1, QUICK.tries)


def test_tags_come_in_pages(start):
    """Links are followed to the end, relative as they are."""
    _, registry = start(page=3)
    for number in range(8):
        registry.put_manifest("team/x", f"t{number}", IMAGE, MANIFEST)
    assert registry.tags("team/x") == tuple(f"t{number}" for number in range(8))


@pytest.mark.parametrize("filters", [False, True])
def test_referrers_of_a_registry_that_lists_them(start, filters):
    """The API is used, page by page; whether it filters or not, the answer is the same, and no fallback tag appears."""
    _, registry = start(api=True, filters=filters, page=1)
    subject = registry.put_manifest("team/x", "v1", IMAGE, MANIFEST)
    made = [registry.attach("team/x", "v1", f"application/vnd.test.{name}", [Attachment(content=name.encode(), media_type="text/plain")]) for name in "ab"]
    assert {referrer.digest for referrer in registry.referrers("team/x", subject)} == {referrer.digest for referrer in made}
    assert [referrer.digest for referrer in registry.referrers("team/x", subject, "application/vnd.test.a")] == [made[0].digest]
    assert registry.tags("team/x") == ("v1",)
    assert registry.delete("team/x", made[0].digest)
    assert [referrer.digest for referrer in registry.referrers("team/x", subject)] == [made[1].digest]


def test_an_index_that_another_client_writes_at_the_same_time(start):
    """After writing the fallback index it is read again: an entry that got lost is written once more."""
    served, registry = start()
    subject = registry.put_manifest("team/x", "v1", IMAGE, MANIFEST)
    one = registry.attach("team/x", "v1", "application/vnd.test.one", [])
    before = served.manifests["team/x", subject.replace(":", "-")]
    send, lost = registry.transport.send, []

    def racing(method, place, **options):
        answer = send(method, place, **options)
        if method == "PUT" and "manifests/sha256-" in place and not lost:
            lost.append(place)
            served.manifests["team/x", subject.replace(":", "-")] = before
        return answer

    registry.transport.send = racing
    other = registry.attach("team/x", "v1", "application/vnd.test.other", [])
    assert lost
    assert registry.referrers("team/x", subject) == (one, other)


@pytest.mark.parametrize("status", sorted(transport.PASSING))
def test_what_passes_is_tried_again(start, status):
    """A busy or failing server is asked again."""
    _, registry = start(refusals=[(status, {})] * 2)
    assert registry.tags("team/x") == ()


def test_what_does_not_pass_is_an_error(start):
    """After its tries the client gives up; other refusals are final at once."""
    served, registry = start(refusals=[(503, {})] * 9)
    with pytest.raises(Unanswered, match="answers 503"):
        registry.tags("team/x")
    served.refusals, before = [(400, {})], len(served.seen)
    with pytest.raises(RegistryError, match="status 400"):
        registry.tags("team/x")
    assert len(served.seen) == before + 1


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_how_long_to_wait(start, as_date):
    """Retry-After counts, in seconds or as a date."""
    before = dt.datetime.now(dt.UTC)
    later = (before + dt.timedelta(seconds=200)).replace(microsecond=0)
    _, registry = start(refusals=[(429, {"Retry-After": email.utils.format_datetime(later, usegmt=True) if as_date else "200"})])
    pauses = []
    registry.transport.cancelled.wait = pauses.append
    registry.tags("team/x")
    past = (dt.datetime.now(dt.UTC) - before).total_seconds() if as_date else 0
    assert len(pauses) == 1
    assert 199 - past <= pauses[0] <= 200


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path, content):
    """A bundle that is missing, or none, is an error that names it and the variable, before anything is asked."""
    bundle = tmp_path / "bundle.pem"
    if content:
        bundle.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with pytest.raises(RegistryError, match=f"certificates in {bundle} cannot be read") as caught:
        Registry("registry.example")
    assert "REQUESTS_CA_BUNDLE" in caught.value.fix


def test_pauses_grow_and_differ():
    """Backoff is exponential with a limit; jitter keeps many clients apart; what the server says is the least."""
    patience = Patience(first=1, longest=8)
    means = [sum(patience.pause(failures) for _ in range(200)) / 200 for failures in (1, 2, 3, 4, 5)]
    assert means == pytest.approx([0.75, 1.5, 3, 6, 6], rel=0.1)
    assert len({patience.pause(1) for _ in range(20)}) > 1
    assert patience.pause(1, 20) == 20
    assert patience.pause(1, 1e9) == backoff.LONGEST_ORDER


@pytest.mark.parametrize(
    ("host", "error", "what"),
    [("registry.example:5000", RegistryError, "without TLS"), ("127.0.0.1:1", Unanswered, "does not answer")],
)
def test_plain_http_is_for_this_machine_only(host, error, what):
    """Elsewhere it is refused, with the reason, before anything is sent; that nobody listens here is another error."""
    with pytest.raises(error, match=what):
        Registry(host, scheme="http", patience=QUICK).tags("team/x")


def test_a_location_without_tls_elsewhere_is_refused(start):
    """Nothing is sent where a registry behind a wrong proxy points to."""
    served, registry = start()
    served.location = None
    registry.transport.base()
    with pytest.raises(RegistryError, match="without TLS"):
        registry.transport.resolve("http://registry.example/v2/x", f"http://{served.host}/")


def test_something_that_is_no_registry(start):
    """A server that answers other things is told apart."""
    served, registry = start()
    served.refusals = [(200, {})]
    with pytest.raises(RegistryError, match="is not what it must be"):
        registry.tags("team/x")


def test_a_client_that_is_cancelled_ends_soon(start):
    """In the middle of waiting, and before every request."""
    served, registry = start(refusals=[(429, {"Retry-After": "60"})])
    registry.transport.base()
    registry.cancel()
    with pytest.raises(CancelledError):
        registry.tags("team/x")
    patient = Registry(served.host, patience=dataclasses.replace(QUICK, first=60, longest=60))
    patient.transport.cancelled.wait = lambda seconds: seconds > 10
    with pytest.raises(CancelledError):
        patient.tags("team/x")


def test_a_blob_that_is_too_large_for_memory(start, monkeypatch):
    """What should be small and is not, is refused."""
    monkeypatch.setattr("torchstrata.registry.client.SMALL", 1000)
    _, registry = start()
    registry.push_blob("team/x", Source.of(DATA))
    with pytest.raises(RegistryError, match="larger than the 1000 bytes"):
        registry.content("team/x", sha256(DATA))


def test_a_subject_that_is_not_there(start):
    """Nothing can be attached to what does not exist."""
    _, registry = start()
    with pytest.raises(AbsentError, match="push the image first"):
        registry.attach("team/x", "v1", "application/vnd.test", [])
