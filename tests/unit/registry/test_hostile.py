"""Whatever a registry answers: one line and a code, within seconds and little memory, and nothing is kept."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest

from tests import hostile
from tests.distribution import Distribution
from tests.hostile import ATTACKS, OTHER, TEN, answer, ask, kept
from tests.registries import NAME, PASSWORD, login
from torchstrata.attestations import documents
from torchstrata.errors import RegistryAuthError, RegistryError, TorchstrataError, UntrustedError
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.matrix.matrix import ROOT
from torchstrata.registry import transport
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import Source

LIGHT = [name for name, attack in ATTACKS.items() if not attack.heavy]
HEAVY = [name for name, attack in ATTACKS.items() if attack.heavy]

BYTES = 400
"""Megabytes that a client may take beyond itself."""

SECRET = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Log in nowhere."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def is_one_line(text):
    """Return whether a terminal shows ``text`` as a line and nothing else."""
    return text.isprintable() and len(text) <= 1000


def words(host, what, directory):
    """Ask for something; return what is wrong, nothing if it was answered. All but our errors is a failure of the test."""
    try:
        ask(host, what, directory)
    except TorchstrataError as error:
        return error.what
    return ""


@pytest.mark.parametrize("name", LIGHT)
def test_an_attack_ends_in_one_line(name, tmp_path):
    """With the code that says what it was; nothing is kept."""
    attack = ATTACKS[name]
    with hostile.registry(attack.behave) as (host, _), pytest.raises(TorchstrataError) as caught:
        ask(host, attack.does, tmp_path / "client", quick=attack.slow)
    assert caught.value.code == attack.code, caught.value
    assert is_one_line(caught.value.what)
    assert is_one_line(caught.value.fix)
    assert kept(tmp_path / "client") == []


@pytest.fixture(scope="module")
def clients():
    """Return what makes clients, each a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "tests.hostile"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as made:
        yield made


@pytest.mark.parametrize("name", HEAVY)
def test_an_attack_on_memory_ends_in_one_line(name, clients, tmp_path):
    """The client is a process of its own here, whose memory is bounded and measured."""
    attack = ATTACKS[name]
    attack.prepare()
    with hostile.registry(attack.behave) as (host, _):
        clients.stdin.write(f"{host}\t{attack.does}\t{tmp_path}\n")
        status = int(clients.stdout.readline())
    said, complaint = ((tmp_path / name).read_text() for name in ("out", "err"))
    assert status == attack.code, complaint
    message = complaint.rstrip("\n").split("\n")
    assert (len(message), [is_one_line(line) for line in message]) == (2, [True, True])
    assert int(said.split()[-2]) < BYTES
    assert kept(tmp_path / "client") == []


@pytest.mark.parametrize("what", ["tags", "find", "content", "parts", "push"])
@pytest.mark.parametrize("status", [200, 202, 204, 206, 300, 307, 401, 403, 404, 416, 429, 500])
def test_no_answer_is_a_traceback(what, status, tmp_path):
    """Whatever is asked, and whatever is answered, with a document that is none."""
    with hostile.registry(hostile.says([{"errors": 5, "tags": {}, "manifests": "x"}], status)) as (host, _):
        message = words(host, what, tmp_path / "client")
    assert is_one_line(message)
    assert kept(tmp_path / "client") == []


SHAPES = [
    *(b"null", b"true", b"5", b"1e999", b'"x"', b"[]", b"[[]]", b"{}", b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"NaN"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"manifests": ' + b"[" * 100_000, b'"\\ud800"', b'{"tags": ["\\ud800"]}', b"9" * 5000),
    *(b'{"tags": 5}', b'{"tags": [5]}', b'{"tags": ["../x"]}', b'{"tags": ["\\u001b[2J"]}', b'{"tags": {"a": 1}}', b'{"tags": [null]}'),
    *(b'{"manifests": 5}', b'{"manifests": [5]}', b'{"manifests": [{}]}', b'{"manifests": [{"digest": 5, "size": 5}]}', b'{"manifests": {}}'),
    *(b'{"manifests": [{"digest": "sha256:x", "size": 5}]}', b'{"layers": 5}', b'{"layers": [{}]}', b'{"layers": [null]}', b'{"config": 5}'),
    *(b'{"config": {}}', b'{"config": []}', b'{"subject": 5}', b'{"subject": {"digest": []}}', b'{"annotations": [1]}', b'{"annotations": {"a": 1}}'),
    *(b'{"config": {"digest": "%s", "size": -1}}' % OTHER.encode(), b'{"config": {"digest": "%s", "size": 1e400}}' % OTHER.encode()),
    *(b'{"config": {"digest": "%s", "size": "1"}}' % OTHER.encode(), b'{"mediaType": 5}', b'{"mediaType": "a\\r\\nb"}', b'{"artifactType": [5]}'),
]


@pytest.mark.parametrize("what", ["tags", "manifest", "referrers", "parts"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[:40].decode("latin-1").encode("unicode_escape").decode())
def test_a_document_of_any_shape_is_a_value_or_a_line(what, shape, tmp_path):
    """No shape of JSON is a traceback."""
    with hostile.registry(hostile.says(shape, Content_Type="")) as (host, _):
        message = words(host, what, tmp_path / "client")
    assert is_one_line(message)
    assert kept(tmp_path / "client") == []


# Credentials


@pytest.fixture
def elsewhere():
    """Run a server on another port, which keeps what it is asked."""
    with hostile.registry(hostile.says(TEN, 401, WWW_Authenticate='Basic realm="give"')) as running:
        yield running


def asking(then):
    """Want a password, then do something."""

    def behave(handler):
        if "Authorization" not in handler.headers:
            return answer(handler, b"", 401, WWW_Authenticate='Basic realm="x"')
        return then(handler)

    return behave


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_password_along(elsewhere, tmp_path, status):
    """Neither the one that was sent, nor one that the other server asks for itself."""
    place, asked = elsewhere
    with hostile.registry(asking(hostile.says(status=status, Location=f"http://{place}/blob"))) as (host, seen):
        login(tmp_path, host, place)
        with pytest.raises(RegistryAuthError):
            ask(host, "blob", tmp_path / "client")
    assert any(headers.get("Authorization") == f"Basic {SECRET}" for _, _, headers in seen)
    assert asked
    assert [headers for _, _, headers in asked if "Authorization" in headers] == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_is_sent_is_not_redirected_to_others(elsewhere, method):
    """Bodies go where they are meant to go."""
    place, asked = elsewhere
    with hostile.registry(hostile.says(status=307, Location=f"http://{place}/x")) as (host, _):
        registry = Registry(host, patience=hostile.patience())
        with pytest.raises(RegistryError, match=f"redirects {method}"):
            registry.transport.send(method, "team/x/blobs/uploads/", what="test", body=b"secret")
    assert asked == []


def test_an_upload_elsewhere_gets_no_password(elsewhere, tmp_path):
    """Its URL is the right to use it."""
    place, asked = elsewhere

    def behave(handler):
        there = handler.command == "HEAD"
        return answer(handler, b"", 404) if there else answer(handler, b"", 202, Location=f"http://{place}/upload")

    with hostile.registry(asking(behave)) as (host, _):
        login(tmp_path, host, place)
        with pytest.raises(RegistryAuthError):
            ask(host, "push", tmp_path / "client")
    assert asked
    assert [headers for _, _, headers in asked if "Authorization" in headers] == []


HERE = ("http://127.0.0.1:80/x", "https://localhost/x", "http://[::1]:80/x", "https://127.1.2.3:5000/x")
NO_ADDRESS = ("https://a@registry.example/x", "https://registry.example\\@other/x", "gopher://registry.example/x", "//:x@y/z")


@pytest.mark.parametrize(
    ("place", "what"),
    [*((place, "this machine itself") for place in HERE), *((place, "no address of a registry") for place in NO_ADDRESS)],
)
def test_another_machine_leads_nobody_to_this_one(place, what):
    """What listens on loopback is not for registries; an address is a host and a path, whatever libraries think."""
    with pytest.raises(RegistryError, match=what):
        transport.Transport("registry.example").resolve(place, "https://registry.example/v2/")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("https://Registry.example/v2/", "https://registry.example:443/x", True),
        ("http://127.0.0.1:80/x", "http://127.0.0.1/", True),
        ("https://registry.example/", "http://registry.example/", False),
        ("https://registry.example/", "https://registry.example:444/", False),
        ("https://registry.example/", "https://registry.example.other/", False),
    ],
)
def test_who_gets_a_password_is_told_by_scheme_host_and_port(one, other, is_same):
    """However they are written."""
    assert (transport._origin(one) == transport._origin(other)) is is_same


def test_a_registry_sets_no_cookies():
    """What it gives is not sent to it, nor to others on this machine."""
    with hostile.registry(hostile.says({"tags": []}, Set_Cookie="id=5; Path=/")) as (host, seen), Registry(host, patience=hostile.patience()) as registry:
        assert registry.tags("team/x") == registry.tags("team/x") == ()
    assert [headers for _, _, headers in seen if "Cookie" in headers] == []


TOKENS = [
    *(b"", b"{}", b"[]", b"null", b'"x"', b'{"token": 5}', b'{"token": ["x"]}', b'{"token": ""}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}'),
    *(b'{"token": "\\u20ac"}', b'{"token": "\\ud800"}', b'{"token": "%s"}' % (b"a" * 70_000), b'{"token": "a", "expires_in": "x"}', b"[" * 100_000),
    *(b'{"token": "a", "expires_in": []}', b'{"access_token": {}}', b'{"token": null, "access_token": null}'),
]


@pytest.mark.parametrize("document", TOKENS, ids=lambda document: document[:30].decode("latin-1"))
def test_a_token_of_any_shape_is_a_token_or_a_line(document, tmp_path):
    """What is no token becomes no header, and is not shown."""

    def behave(handler):
        if handler.path.startswith("/token"):
            return answer(handler, document)
        return answer(handler, b"", 401, WWW_Authenticate=f'Bearer realm="http://{handler.headers["Host"]}/token"')

    with hostile.registry(behave) as (host, _), pytest.raises(RegistryError, match="without a token") as caught:
        ask(host, "tags", tmp_path)
    assert is_one_line(caught.value.what)


@pytest.mark.parametrize("lifetime", [-5, 0, 0.5, 1e300])
def test_a_token_may_live_as_short_or_long_as_it_likes(lifetime):
    """It is asked for again where it is over, and used for a day at most."""

    def behave(handler):
        if handler.path.startswith("/token"):
            return answer(handler, {"token": "right", "expires_in": lifetime})
        if handler.headers.get("Authorization") == "Bearer right":
            return answer(handler, {"tags": ["v1"]})
        return answer(handler, b"", 401, WWW_Authenticate=f'Bearer realm="http://{handler.headers["Host"]}/token"')

    with hostile.registry(behave) as (host, _), Registry(host, patience=hostile.patience()) as registry:
        assert registry.tags("team/x") == ("v1",)


def test_a_token_request_is_not_redirected_with_its_secret(elsewhere, tmp_path):
    """An identity token is in the body, which goes to the token server alone."""
    place, asked = elsewhere

    def behave(handler):
        if handler.path.startswith("/token"):
            return answer(handler, b"", 307, Location=f"http://{place}/token")
        return answer(handler, b"", 401, WWW_Authenticate=f'Bearer realm="http://{handler.headers["Host"]}/token"')

    with hostile.registry(behave) as (host, _):
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": SECRET, "identitytoken": "long-lived"}}}))
        with pytest.raises(RegistryError, match="redirects POST"):
            ask(host, "tags", tmp_path / "client")
    assert asked == []


# What must go on working


def test_a_slow_server_is_not_an_attack():
    """What comes late, in pieces, and over several pages is taken."""
    pieces = [b"HTTP/1.1 200 OK\r\n", b"Content-Length: 16\r\n", b"\r\n", b'{"tags": ', b'["v1"]}']
    with hostile.registry(hostile.raw(*pieces, pause=0.05)) as (host, _), Registry(host, patience=hostile.patience()) as registry:
        assert registry.tags("team/x") == ("v1",)


def test_blobs_elsewhere_are_found():
    """A redirect of a blob to another server is what large registries answer."""
    with hostile.registry(hostile.holding({sha256(TEN): TEN})) as (store, _):
        behave = hostile.says(status=307, Location=f"http://{store}/{sha256(TEN)}")
        with hostile.registry(behave) as (host, _), Registry(host, patience=hostile.patience()) as registry:
            assert registry.content("team/x", sha256(TEN)) == TEN


def test_a_registry_that_tells_no_size_is_asked_for_the_manifest():
    """The specification asks for no such header; what is attached names the size of what it is attached to."""
    body = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []})
    head = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {sha256(body)}\r\nContent-Type: {MANIFEST}\r\n"

    def behave(handler):
        length = "" if handler.command == "HEAD" else f"Content-Length: {len(body)}\r\n"
        hostile.raw(f"{head}{length}\r\n".encode(), b"" if handler.command == "HEAD" else body)(handler)

    with hostile.registry(behave) as (host, _), Registry(host, patience=hostile.patience()) as registry:
        assert registry.find("team/x", "v1") == (MANIFEST, sha256(body), len(body))


def test_an_image_has_only_so_much_attached(monkeypatch):
    """Each signed document costs a run of cosign, and whoever may push may attach any number."""
    monkeypatch.setattr(documents, "ATTACHED", 1)
    with Distribution(api=True).serve() as served, Registry(served.host) as registry:
        subject = registry.put_manifest("team/x", "v1", hostile.IMAGE, hostile.MANIFEST)
        published = documents.Published(registry=registry, repository="team/x", name="x", manifest=hostile.IMAGE)
        registry.attach("team/x", subject, "application/y", [])
        assert len(published.referrers()) == 1
        registry.attach("team/x", subject, "application/z", [])
        with pytest.raises(UntrustedError, match="2 manifests attached"):
            published.referrers()


def test_what_others_write_into_a_list_of_referrers_stays():
    """Fields that we do not know, of entries that we do not know."""
    with Distribution().serve() as served, Registry(served.host) as registry:
        registry.push_blob("team/x", Source.of(b"{}"))
        subject = registry.put_manifest("team/x", "v1", hostile.IMAGE, hostile.MANIFEST)
        entry = {
            "digest": OTHER,
            "size": 5,
            "mediaType": "application/x",
            "data": "eA==",
            "urls": ["https://x.example/"],
            "platform": {"os": "linux", "variant": "v8"},
        }
        listing = canonical({"schemaVersion": 2, "mediaType": hostile.INDEX, "manifests": [entry], "annotations": {"a": "b"}, "other": 1})
        registry.put_manifest("team/x", subject.replace(":", "-"), listing, hostile.INDEX)
        registry.attach("team/x", subject, "application/y", [])
        index = json.loads(registry.manifest("team/x", subject.replace(":", "-")).body)
    assert index["manifests"][0] == entry
    assert (index["other"], index["annotations"], len(index["manifests"])) == (1, {"a": "b"}, 2)
