"""Threads share contexts of TLS, which nothing changes: neither we nor the libraries that use them."""

from __future__ import annotations

import dataclasses
import http.server
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import httpx2
import pytest
import urllib3

from tests.registries import Authority
from tests.serving import answer, serving
from torchstrata import tls
from torchstrata.errors import RegistryError
from torchstrata.layers import wheel_fetch
from torchstrata.locks.pip_config import PipConfig
from torchstrata.registry import certificates
from torchstrata.registry.patience import Patience
from torchstrata.registry.registry import Registry
from torchstrata.tls import BUNDLE_VARIABLES, TRUST_VARIABLES

THREADS, TIMES = 8, 3
KNOWN, UNKNOWN = b"known", b"unknown"
ONCE = Patience(tries=1)
NOTHING_SET = PipConfig(
    index_url=None, extra_index_urls=(), find_links=(), no_index=False, cert=None, client_cert=None, trusted_hosts=(), timeout=60, retries=0
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Return an authority that no bundle knows; ``hashed`` beside it is a directory of certificates, as OpenSSL looks for them."""
    made = Authority.make(tmp_path_factory.mktemp("authority"))
    directory = made.root / "hashed"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(made.certificate.read_bytes())
    subprocess.run(["openssl", "rehash", directory], check=True, capture_output=True)
    return made


@pytest.fixture(autouse=True)
def untold(monkeypatch, tmp_path):
    """Let no variable name certificates, nobody be logged in, and Docker have no certificates."""
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(certificates, "DIRECTORIES", (tmp_path / "certs.d",))


class Hello(http.server.BaseHTTPRequestHandler):
    """Says whether the client has shown a certificate, and hangs up: the next request needs a new connection."""

    def do_GET(self):
        """Answer."""
        answer(self, KNOWN if self.connection.getpeercert() else UNKNOWN, headers={"Connection": "close"})


@pytest.fixture
def server(authority):
    """Run a server with a certificate of the authority that asks who its clients are; yield its port."""
    context = authority.context()
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    with serving(Hello, context) as port:
        yield port


def at_once(ask):
    """Return what ``ask`` returns, several times in each of several threads that begin together."""
    together = threading.Barrier(THREADS)

    def thread(_):
        together.wait()
        return [ask() for _ in range(TIMES)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [*chain.from_iterable(pool.map(thread, range(THREADS)))]


def known_to_docker(authority, host, tmp_path):
    """Put the authority where Docker looks for it, and who we are."""
    place = tmp_path / "certs.d" / host
    place.mkdir(parents=True)
    for name, source in {"ca.crt": authority.certificate, "client.cert": authority.server, "client.key": authority.server_key}.items():
        (place / name).write_bytes(source.read_bytes())


WAYS = {
    **{f"{name}, a file": (name, "ca.crt") for name in BUNDLE_VARIABLES},
    **{f"{name}, a directory": (name, "hashed") for name in BUNDLE_VARIABLES},
    "SSL_CERT_FILE": ("SSL_CERT_FILE", "ca.crt"),
    "SSL_CERT_DIR": ("SSL_CERT_DIR", "hashed"),
}


@pytest.mark.parametrize("way", WAYS)
def test_registries_are_asked_without_changing_the_context(monkeypatch, authority, server, way):
    """However the authority is named, each connection of each thread is verified with the one context, which refuses to be changed."""
    name, file = WAYS[way]
    monkeypatch.setenv(name, str(authority.root / file))
    with Registry(f"127.0.0.1:{server}", patience=ONCE) as registry:
        assert at_once(lambda: registry.transport.send("GET", "x", what="test").content) == [UNKNOWN] * THREADS * TIMES
        assert isinstance(context_of(registry), tls.SealedContext)


def test_docker_s_certificates_are_complete_from_the_beginning(authority, server, tmp_path):
    """The authority and the client's certificate of ``certs.d`` as well."""
    host = f"127.0.0.1:{server}"
    known_to_docker(authority, host, tmp_path)
    with Registry(host, patience=ONCE) as registry:
        assert at_once(lambda: registry.transport.send("GET", "x", what="test").content) == [KNOWN] * THREADS * TIMES
        assert isinstance(context_of(registry), tls.SealedContext)


def test_an_authority_that_nobody_named_is_refused(server):
    """The context verifies, whatever it is asked with."""
    with Registry(f"127.0.0.1:{server}", patience=ONCE) as registry, pytest.raises(RegistryError, match="CA is not known"):
        registry.transport.send("GET", "x", what="test", verify=False)


@pytest.mark.parametrize("name", BUNDLE_VARIABLES)
@pytest.mark.parametrize("file", ["ca.crt", "hashed"])
def test_pools_of_connections_are_told_of_no_file(monkeypatch, authority, server, name, file):
    """Not even for a moment: in that moment another thread's new connection would load it into the context."""
    told = []
    for attribute in ("ca_certs", "ca_cert_dir", "cert_file", "key_file"):
        monkeypatch.setattr(urllib3.HTTPSConnectionPool, attribute, property(lambda _: None, lambda _, value: told.append(value)), raising=False)
    monkeypatch.setenv(name, str(authority.root / file))
    with Registry(f"127.0.0.1:{server}", patience=ONCE) as registry:
        assert registry.transport.send("GET", "x", what="test").content == UNKNOWN
    assert set(told) == {None}


def context_of(registry):
    """Return the context of a registry's connections."""
    return registry.transport._session.get_adapter("https://x").poolmanager.connection_pool_kw["ssl_context"]


SETTINGS = {
    "the system's": lambda authority: {},
    "a file": lambda authority: {"cert": str(authority.certificate)},
    "a directory": lambda authority: {"cert": str(authority.root / "hashed")},
    "nobody's": lambda authority: {"trusted_hosts": ("127.0.0.1",)},
}
"""Settings of pip, by whose certificates they make it believe."""


@pytest.mark.parametrize("whose", SETTINGS)
def test_indexes_are_asked_without_changing_the_context(monkeypatch, authority, server, whose):
    """The client of wheels does not change its contexts either."""
    if whose == "the system's":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with wheel_fetch._client.__wrapped__(dataclasses.replace(NOTHING_SET, **SETTINGS[whose](authority))) as client:
        assert at_once(lambda: client.get(f"https://127.0.0.1:{server}/x").content) == [UNKNOWN] * THREADS * TIMES
    transports = (client._transport, client._transport_for_url(httpx2.URL(f"https://127.0.0.1:{server}")))
    assert {type(each._pool._ssl_context) for each in transports} == {tls.SealedContext}


CHANGES = {
    "a bundle": lambda context: context.load_verify_locations("/etc/ssl/certs/ca-certificates.crt"),
    "the system's": lambda context: context.load_default_certs(),
    "OpenSSL's": lambda context: context.set_default_verify_paths(),
    "a certificate": lambda context: context.load_cert_chain("x.pem"),
    "ciphers": lambda context: context.set_ciphers("ALL"),
    "protocols": lambda context: context.set_alpn_protocols(["h2"]),
    "the mode": lambda context: setattr(context, "check_hostname", False),
    "the version": lambda context: setattr(context, "minimum_version", ssl.TLSVersion.TLSv1),
    "flags": lambda context: setattr(context, "verify_flags", ssl.VERIFY_CRL_CHECK_LEAF),
    "the kind": lambda context: setattr(context, "__class__", ssl.SSLContext),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_sealed_context_refuses_changes(change):
    """Each way is refused, and nothing has changed; what it has already is taken for done."""
    context = tls.sealed(ssl.create_default_context())
    before = settings(context)
    with pytest.raises(RuntimeError, match="threads share"):
        CHANGES[change](context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    assert settings(context) == before


def settings(context):
    """Return what can be read of a context."""
    names = ("check_hostname", "verify_mode", "verify_flags", "options", "minimum_version", "maximum_version")
    return [type(context), context.cert_store_stats(), context.get_ciphers(), *(getattr(context, name) for name in names)]


def test_every_method_that_changes_a_context_is_known():
    """A new Python may have one more: then this fails until it is looked at."""
    reads = {"cert_store_stats", "get_ca_certs", "get_ciphers", "session_stats", "wrap_bio", "wrap_socket"}
    methods = {name for name in dir(ssl.SSLContext) if not name.startswith("_") and callable(getattr(ssl.SSLContext, name))}
    assert methods - reads - {"sslobject_class", "sslsocket_class"} <= set(vars(tls.SealedContext))
