"""The client against Debian's docker-registry, directly and through a proxy that does harm at every request of a push in turn."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import multiprocessing
import os
import random
import signal
import uuid
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
from rich.console import Console

from tests import desks, parts, registries
from tests.registries import Authority, Tokens
from tests.scripts import script
from tests.system.faults import FAULTS, Proxy
from tests.waiting import PATIENCE
from torchstrata.attestations.remote import Remote
from torchstrata.building.assembly import Builder
from torchstrata.errors import AbsentError, ImmutableTagError, IntegrityError, RegistryAuthError, RegistryError
from torchstrata.image.compose import MANIFEST, sha256
from torchstrata.progress import PlainReporter
from torchstrata.registry import upload
from torchstrata.registry.parts import unchecked
from torchstrata.registry.patience import Patience
from torchstrata.registry.push import Publication
from torchstrata.registry.reference import Place
from torchstrata.registry.registry import Attachment, Registry
from torchstrata.registry.upload import Source
from torchstrata.store.store import Store

QUICK = Patience(tries=3, first=0.01, longest=0.05, connect=PATIENCE)
DATA = random.Random(5).randbytes(3_000_000)
PIECE = 1_000_000

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.system.test_registry"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Make a certificate authority of our own."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def docker_config(tmp_path_factory, monkeypatch):
    """Give Docker's configuration a directory of its own, empty at first; no other settings count."""
    directory = tmp_path_factory.mktemp("docker")
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return directory


@pytest.fixture
def small_pieces(monkeypatch):
    """Let uploads go in pieces of a megabyte."""
    monkeypatch.setattr(upload, "PIECE", PIECE)


@contextlib.contextmanager
def _basic(root, authority, directory):
    with registries.registry(root, authority=authority, passwords=True) as served:
        registries.login(directory, served.host)
        yield served


@contextlib.contextmanager
def _token(root, authority, directory):
    with Tokens(authority, lifetime=2).serve() as tokens, registries.registry(root, authority=authority, tokens=tokens, relative=True) as served:
        registries.login(directory, served.host)
        yield served


@contextlib.contextmanager
def _plain(root, authority, directory):
    with registries.registry(root) as served:
        yield served


KINDS = {"basic": _basic, "token": _token, "plain": _plain}


@pytest.fixture(params=KINDS)
def served(request, tmp_path, authority, docker_config, monkeypatch):
    """Run a registry: with TLS and passwords; with TLS, tokens of 2 s and relative Locations; and with plain HTTP."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    with KINDS[request.param](tmp_path, authority, docker_config) as served:
        yield served


@pytest.fixture
def secured(tmp_path, authority, docker_config):
    """Run a registry with TLS and passwords; who may speak to it is up to the test."""
    with _basic(tmp_path, authority, docker_config) as served:
        yield served


@pytest.fixture
def plain(tmp_path):
    """Run a registry that anybody may use, with plain HTTP."""
    with registries.registry(tmp_path) as served:
        yield served


def image(registry, repository, tag, data=DATA):
    """Push an image of one layer, and return the digest of its manifest."""
    return sha256(desks.manifest(registry, repository, tag, [data]))


# What the client does


@pytest.mark.quick
def test_content_goes_there_and_back(served, small_pieces):
    """Blobs in pieces, an empty one, a manifest and its tag; each digest is what went there."""
    registry = Registry(served.host)
    digest = image(registry, "team/x", "v1")
    assert registry.push_blob("team/x", Source.of(b"")).way == "sent"
    assert registry.content("team/x", sha256(DATA)) == DATA
    assert registry.content("team/x", sha256(b"")) == b""
    assert registry.manifest("team/x", "v1").digest == digest
    assert registry.manifest("team/x", digest).media_type == MANIFEST
    assert registry.tags("team/x") == ("v1",)


@pytest.mark.quick
def test_nothing_is_sent_twice(served):
    """What a repository has is left; what another one has is mounted; one that does not exist is no obstacle."""
    registry = Registry(served.host)
    ways = [registry.push_blob("team/x", Source.of(DATA)).way for _ in range(2)]
    ways.append(registry.push_blob("team/y", Source.of(DATA), mount_from=["no/such", "team/x"]).way)
    assert ways == ["sent", "present", "mounted"]


@pytest.mark.quick
def test_what_is_not_there(served):
    """Absence is an answer where it is asked for, and an error that says so where it is not."""
    registry = Registry(served.host)
    assert registry.find("no/such", "v1") is None
    assert registry.tags("no/such") == ()
    assert not registry.has_blob("no/such", sha256(DATA))
    assert not registry.delete("no/such", sha256(DATA))
    with pytest.raises(AbsentError):
        registry.manifest("no/such", "v1")
    with pytest.raises(AbsentError):
        registry.content("no/such", sha256(DATA))


def test_what_is_attached_is_listed_in_the_fallback_index(served):
    """Debian's server has no referrers API: the index under the tag ``sha256-HEX`` lists each artifact once, and deleting takes it out."""
    registry = Registry(served.host)
    digest = image(registry, "team/x", "v1", b"layer")
    sbom = [Attachment(content=b"{}\n", media_type="application/json", title="sbom.json")]
    one = registry.attach("team/x", "v1", "application/vnd.test.sbom", sbom, {"made": "here"})
    other = registry.attach("team/x", digest, "application/vnd.test.record", [])
    again = Registry(served.host).attach("team/x", "v1", "application/vnd.test.sbom", sbom, {"made": "here"})
    assert again == one
    assert registry.has_referrers is False
    assert registry.referrers("team/x", digest) == (one, other)
    assert registry.referrers("team/x", digest, "application/vnd.test.record") == (other,)
    assert set(registry.tags("team/x")) == {"v1", digest.replace(":", "-")}
    assert registry.delete("team/x", one.digest)
    assert registry.referrers("team/x", digest) == (other,)


def test_a_dated_tag_never_moves(served):
    """It may be pushed again as it is; anything else is refused, and nothing changes."""
    registry = Registry(served.host)
    digest = image(registry, "team/x", "2.8.0-base-20260101.1", b"one")
    body = registry.manifest("team/x", digest).body
    assert registry.put_manifest("team/x", "2.8.0-base-20260101.1", body, MANIFEST, immutable=True) == digest
    image(registry, "team/x", "other", b"two")
    with pytest.raises(ImmutableTagError, match="never moves"):
        registry.put_manifest("team/x", "2.8.0-base-20260101.1", registry.manifest("team/x", "other").body, MANIFEST, immutable=True)
    assert registry.manifest("team/x", "2.8.0-base-20260101.1").digest == digest


def test_a_blob_that_rots_in_the_registry_is_not_taken(plain):
    """The digest of what comes is checked, try after try."""
    registry = Registry(plain.host, patience=QUICK)
    image(registry, "team/x", "v1")
    plain.damage(sha256(DATA))
    with pytest.raises(IntegrityError, match="sent other bytes"):
        registry.content("team/x", sha256(DATA))


def test_a_file_that_rots_on_our_disk_is_not_pushed(plain, tmp_path):
    """The registry refuses it, and the error says whose fault it is."""
    path = tmp_path / "blob"
    path.write_bytes(DATA[:-1] + b"!")
    registry = Registry(plain.host, patience=QUICK)
    with pytest.raises(IntegrityError, match="has other bytes"):
        registry.push_blob("team/x", Source.file(path, sha256(DATA)))
    assert not registry.has_blob("team/x", sha256(DATA))


# Who may


@pytest.mark.quick
def test_an_unknown_authority_is_refused(secured):
    """The error names the file where its certificate belongs."""
    with pytest.raises(RegistryError, match="CA is not known here") as caught:
        Registry(secured.host).tags("team/x")
    assert f"certs.d/{secured.host}/ca.crt" in caught.value.fix


def test_an_authority_of_docker_is_known(secured, authority, tmp_path, monkeypatch):
    """Certificates for a registry lie where Docker keeps them."""
    place = tmp_path / "certs.d" / secured.host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(authority.certificate.read_bytes())
    monkeypatch.setattr("torchstrata.registry.certificates.DIRECTORIES", (tmp_path / "certs.d",))
    assert Registry(secured.host).tags("team/x") == ()


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_nobody_is_logged_in(kind, tmp_path, authority, docker_config, monkeypatch):
    """Without credentials the error says how to log in; it is never taken for absence."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    with KINDS[kind](tmp_path, authority, docker_config) as served:
        (docker_config / "config.json").write_text("{}")
        with pytest.raises(RegistryAuthError) as caught:
            Registry(served.host).find("team/x", "v1")
        assert f"docker login {served.host}" in caught.value.fix


def test_a_wrong_password_is_refused(secured, authority, docker_config, monkeypatch):
    """The error says so, and does not repeat the password."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    monkeypatch.setattr(registries, "PASSWORD", "close sesame")
    registries.login(docker_config, secured.host)
    with pytest.raises(RegistryAuthError, match=f"{registries.NAME} may not") as caught:
        Registry(secured.host).has_blob("team/x", sha256(b""))
    assert "sesame" not in str(caught.value)


def test_a_token_that_does_not_allow_to_push(tmp_path, authority, docker_config, monkeypatch):
    """Reading works, writing is refused in words."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    tokens = Tokens(authority, may=frozenset({"pull"}))
    with tokens.serve(), registries.registry(tmp_path, authority=authority, tokens=tokens) as served:
        registries.login(docker_config, served.host)
        registry = Registry(served.host)
        assert registry.tags("team/x") == ()
        with pytest.raises(RegistryAuthError, match="may not push"):
            registry.push_blob("team/x", Source.of(DATA))


def test_tokens_are_kept_and_renewed(tmp_path, authority, docker_config, monkeypatch):
    """One token for each scope while it lives, a new one afterwards."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    tokens = Tokens(authority)
    with tokens.serve(), registries.registry(tmp_path, authority=authority, tokens=tokens) as served:
        registries.login(docker_config, served.host)
        registry = Registry(served.host)
        for _ in range(5):
            registry.find("team/x", "v1")
        assert [query["scope"] for query in tokens.asked] == [["repository:team/x:pull"]]
        monkeypatch.setattr("torchstrata.registry.authorization.time.monotonic", lambda: dt.datetime.now(dt.UTC).timestamp() + 1e9)
        registry.find("team/x", "v1")
        assert len(tokens.asked) == 2


def test_a_credential_helper_is_asked(secured, authority, docker_config, tmp_path, monkeypatch):
    """Docker's helpers keep passwords out of files; they work as for Docker."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    answer = json.dumps({"ServerURL": secured.host, "Username": registries.NAME, "Secret": registries.PASSWORD})
    script(tmp_path / "docker-credential-test", f"echo '{answer}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (docker_config / "config.json").write_text(json.dumps({"credHelpers": {secured.host: "test"}}))
    assert Registry(secured.host).tags("team/x") == ()


# Pushes that are harmed


@dataclass
class Work:
    """A build that is to be pushed, and where it was made."""

    root: Path
    plan: object
    composed: tuple

    def remote(self, host, path):
        """Return a client with little patience."""
        return Remote.open(Place.parse(f"http://{host}/{path}"), "images", Store(self.root), verify=unchecked, patience=QUICK)

    def push(self, host, path):
        """Push everything to a path of a registry, as a build does."""
        remote = self.remote(host, path)
        publications = [Publication(image=one.image, tags=("dated-20260101.1", f"name{count}")) for count, one in enumerate(self.composed[:1])]
        publications += [Publication(image=one.image, tags=("other",)) for one in self.composed[1:]]
        return remote.push(self.plan, publications)


def make(root):
    """Build two images of two OS parts, with a store of their own."""
    store = Store(root)
    items = [
        parts.os_part(store, {f"etc/{name}": random.Random(name).randbytes(size)}, parts.MATRIX.with_parents(name))
        for name, size in (("base", 400_000), ("devel", 900))
    ]
    plan = parts.plan(*items, flavours=("base", "devel"), per_flavour=1)
    builder = Builder(matrix=parts.MATRIX, store=store, codec=parts.CODEC, reporter=PlainReporter(Console(file=io.StringIO())))
    return Work(root, plan, builder.build(plan))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Build once for all pushes."""
    return make(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """Run a registry for all pushes, each of which has a path of its own."""
    with registries.registry(tmp_path_factory.mktemp("upstream")) as served:
        yield served


@pytest.fixture
def proxy(upstream, monkeypatch):
    """Put the proxy before it, and let uploads go in several pieces."""
    monkeypatch.setattr(upload, "PIECE", 150_000)
    with Proxy(upstream.host).serve() as running:
        yield running


def incomplete(served, path):
    """Return what tags of images and parts lead to that is not there whole."""
    return [*served.incomplete(f"{path}/images"), *served.incomplete(f"{path}/parts")]


def unsent(served, path, blobs):
    """Return the bytes of those blobs that neither repository has."""
    return sum(size for digest, size in blobs.items() if not any(served.holds(f"{path}/{name}", digest) for name in ("images", "parts")))


@pytest.fixture
def clean():
    """Return a path of a registry that no other test uses."""
    return f"clean{uuid.uuid4().hex}"


@pytest.fixture
def blobs(proxy, work, upstream, clean):
    """Push without harm, and return all blobs with their sizes; the requests stay counted in the proxy."""
    work.push(proxy.host, clean)
    tagged = (*upstream.tags(f"{clean}/images").values(), *upstream.tags(f"{clean}/parts").values())
    documents = [json.loads(upstream.blob(digest).read_bytes()) for digest in tagged]
    named = chain.from_iterable((document["config"], *document["layers"]) for document in documents)
    found = {each["digest"]: each["size"] for each in named}
    assert proxy.uploaded() == sum(found.values())
    return found


@pytest.mark.quick
def test_a_push_is_what_was_built(proxy, work, blobs, upstream, clean):
    """Without harm everything is there, each blob was sent once, and a second push sends nothing."""
    assert incomplete(upstream, clean) == []
    assert set(upstream.tags(f"{clean}/images")) == {"dated-20260101.1", "name0", "other"}
    assert upstream.tags(f"{clean}/images")["name0"] == work.composed[0].image.digest
    assert set(upstream.tags(f"{clean}/parts")) == {item.identity for item in work.plan.items()}
    proxy.forget()
    report = work.push(proxy.host, clean)
    assert (report.sent, report.mounted, report.parts) == (0, 0, 0)
    assert {each.method for each in proxy.seen} <= {"GET", "HEAD"}


@pytest.mark.parametrize("fault", FAULTS)
def test_harm_at_every_request_in_turn(proxy, work, blobs, upstream, docker_config, fault, every):  # noqa: PLR0913, PLR0917  # fixtures
    """Whatever happens to one request, no tag leads to something incomplete, the push or its rerun completes, and no more is sent than need be."""
    registries.login(docker_config, proxy.host)
    count, largest = len(proxy.seen), max(blobs.values())
    failed = 0
    for number in range(FAULTS.index(fault) % every, count, every):
        path = f"{fault.replace('-', '')}{number}"
        proxy.forget()
        proxy.once(number, fault)
        try:
            work.push(proxy.host, path)
        except (RegistryError, IntegrityError):
            failed += 1
        assert incomplete(upstream, path) == [], number
        assert proxy.uploaded() <= sum(blobs.values()) + largest, number
        proxy.forget()
        missing = unsent(upstream, path, blobs)
        work.push(proxy.host, path)
        assert proxy.uploaded() == missing, number
        assert incomplete(upstream, path) == [], number
    assert failed == 0 or fault == "corrupt"  # the registry may find that a manifest with another byte is none


def _push_in_process(root, host, path):
    upload.PIECE = 150_000
    make(Path(root)).push(host, path)


def test_the_client_is_killed_at_every_request_in_turn(proxy, work, blobs, upstream, every):
    """The state that is left is complete as far as tags lead, and the next push sends what is missing and no more."""
    for number in range(0, len(proxy.seen), every):
        path = f"killed{number}"
        proxy.forget()
        client = FORK.Process(target=_push_in_process, args=(str(work.root), proxy.host, path))

        def kill(count, _, number=number, client=client):
            if count == number:
                os.kill(client.pid, signal.SIGKILL)
                return "lose"
            return None

        proxy.harm = kill
        client.start()
        client.join(PATIENCE)
        assert client.exitcode in {-signal.SIGKILL, 0}
        proxy.settle()
        assert incomplete(upstream, path) == [], number
        proxy.forget()
        missing = unsent(upstream, path, blobs)
        work.push(proxy.host, path)
        assert proxy.uploaded() <= missing, number  # what was on its way may have arrived meanwhile
        assert incomplete(upstream, path) == [], number


@pytest.mark.quick
def test_a_registry_that_stays_broken_is_an_error(proxy, work):
    """After some tries the push gives up, in two lines."""
    proxy.harm = lambda *_: "500"
    with pytest.raises(RegistryError, match="answers 500"):
        work.push(proxy.host, "broken")


def test_a_server_is_waited_for_as_long_as_it_says(proxy, work):
    """Retry-After counts, more than the own patience."""
    proxy.retry_after = 100
    proxy.once(0, "429")
    registry, pauses = work.remote(proxy.host, "later").registry, []
    registry.transport.cancelled.wait = pauses.append
    registry.tags("later/images")
    assert pauses == [100]


def test_downloads_go_on_where_they_broke(proxy, plain):
    """Truncated answers are completed by Range: nothing comes twice."""
    proxy.upstream = plain.host
    image(Registry(plain.host), "team/x", "v1")
    blob_requests = []

    def harm(_, seen):
        if "/blobs/" in seen.path:
            blob_requests.append(seen)
            return "truncate" if len(blob_requests) < 4 else None
        return None

    proxy.harm = harm
    registry = Registry(proxy.host, scheme="http", patience=QUICK)
    counted = []
    assert registry.content("team/x", sha256(DATA), counted.append) == DATA
    assert sum(counted) == len(DATA)
    assert len(blob_requests) == 4


@pytest.mark.parametrize("fault", ["corrupt-answer", "truncate", "drop", "delay", "500"])
@pytest.mark.usefixtures("blobs")
def test_parts_are_found_whole_or_not_at_all(proxy, work, clean, tmp_path, fault):
    """Whatever happens to one request, an empty store learns the same parts, and their listings."""
    identities = [item.identity for item in work.plan.items()]
    for number in range(8):
        proxy.forget()
        proxy.once(number, fault)
        store = Store(tmp_path / f"{number}")
        found = Remote.open(Place.parse(f"http://{proxy.host}/{clean}"), "images", store, verify=unchecked, patience=QUICK).part_repository.find(identities)
        assert found == {item.identity: item.part for item in work.plan.items()}
        for item in work.plan.items():
            for layer in item.part.layers:
                assert store.listing(layer.diff_id) == Store(work.root).listing(layer.diff_id)
