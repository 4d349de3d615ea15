"""Debian's docker-registry on loopback, as teams run it: with TLS by an authority of their own, passwords or tokens.

It is unpacked, not installed, so that no service starts and no root is needed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests import programs
from tests.serving import answer, serving
from tests.waiting import PATIENCE, until

NAME: Final = "torch-pusher"
PASSWORD: Final = "open sesame"
HTPASSWD: Final = f"{NAME}:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"
"""bcrypt of the password; the server takes no other hash."""


def program() -> Path:
    """Return the server: what is installed, else Debian's package, unpacked."""
    return programs.directory("docker-registry") / "docker-registry"


DAYS: Final = "1000"
"""How long certificates hold: also for programs whose clock is a year ahead."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test, and a certificate by it for this machine itself."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Authority:
        """Make both with openssl, as RFC 5280 asks: from 3.13 on, Python's ssl refuses an authority that does not say what its key is for."""
        made = cls(root)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl("req", "-x509", *key, *usage, "-days", DAYS, "-subj", "/CN=A team's authority", "-keyout", root / "ca.key", "-out", made.certificate)
        _openssl("req", *key, "-subj", "/CN=localhost", "-keyout", made.server_key, "-out", root / "server.csr")
        (root / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n")
        by = ["-CA", made.certificate, "-CAkey", root / "ca.key", "-CAcreateserial", "-extfile", root / "names"]
        _openssl("x509", "-req", "-in", root / "server.csr", *by, "-days", DAYS, "-out", made.server)
        return made

    @property
    def certificate(self) -> Path:
        """The authority's certificate."""
        return self.root / "ca.crt"

    @property
    def server(self) -> Path:
        """The server's certificate."""
        return self.root / "server.crt"

    @property
    def server_key(self) -> Path:
        """Its key."""
        return self.root / "server.key"

    def context(self) -> ssl.SSLContext:
        """Return what a server needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        return context


def _openssl(*words: str | Path) -> None:
    """Run openssl by the kernel's clock, as registries do, whatever this program's says."""
    unmoved = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, env=unmoved)


@dataclass
class Tokens:
    """A token server, as large registries have one: it signs what a registry then believes.

    :param lifetime: seconds of a token.
    :param may: actions that our user gets of those asked for.
    """

    authority: Authority
    lifetime: int = 300
    may: frozenset[str] = frozenset({"pull", "push", "delete"})
    asked: list[Mapping[str, list[str]]] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[Tokens]:
        """Run it, with TLS."""
        tokens = self

        class TokenHandler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                expected = f"Basic {base64.b64encode(f'{NAME}:{PASSWORD}'.encode()).decode()}"
                if self.headers.get("Authorization") != expected:
                    self.send_error(401)
                    return
                query = parse_qs(urlsplit(self.path).query)
                tokens.asked.append(query)
                body = json.dumps({"token": tokens.sign(query.get("scope", [])), "expires_in": tokens.lifetime}).encode()
                answer(self, body)

        with serving(TokenHandler, self.authority.context()) as port:
            self.url = f"https://127.0.0.1:{port}/token"
            yield self

    def sign(self, scopes: list[str]) -> str:
        """Return a token (JWT, ES256, with the certificate in it)."""
        certificate = "".join(self.authority.server.read_text().splitlines()[1:-1])
        access = [{"type": kind, "name": name, "actions": sorted(set(actions.split(",")) & self.may)} for kind, name, actions in (s.split(":") for s in scopes)]
        now = self._time()
        claims = {"iss": "tests", "sub": NAME, "aud": "registry", "exp": now + self.lifetime, "nbf": now - 60, "iat": now, "jti": str(now), "access": access}
        signed = f"{_coded({'typ': 'JWT', 'alg': 'ES256', 'x5c': [certificate]})}.{_coded(claims)}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.authority.server_key)]
        der = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_base64(_raw_signature(der))}"

    def _time(self) -> int:
        """Return the kernel's time, by which registries judge tokens: this program's clock may have been moved."""
        stamp = self.authority.server.with_name("now")
        stamp.touch()
        return int(stamp.stat().st_mtime)


def _coded(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw_signature(der: bytes) -> bytes:
    """Return the two numbers of an ECDSA signature, as JWTs have them (RFC 7518, section 3.4)."""
    first = der[4 : 4 + der[3]]
    second = der[4 + der[3] + 2 :]
    return first.lstrip(b"\0").rjust(32, b"\0") + second.lstrip(b"\0").rjust(32, b"\0")


@dataclass
class Served:
    """A registry that runs: its host with port, its directory, its log; and blobs whose bytes were seen to be right."""

    host: str
    root: Path
    intact: set[str] = field(default_factory=set)

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.root / "log").read_text()

    @property
    def storage(self) -> Path:
        """Where it keeps everything."""
        return self.root / "data/docker/registry/v2"

    def blob(self, digest: str) -> Path:
        """Return the file of a blob, which repositories share."""
        name = digest.removeprefix("sha256:")
        return self.storage / f"blobs/sha256/{name[:2]}/{name}/data"

    def holds(self, repository: str, digest: str) -> bool:
        """Return whether a repository has a blob, as its disk says; no client is asked."""
        return (self.storage / "repositories" / repository / "_layers/sha256" / digest.removeprefix("sha256:") / "link").exists()

    def tags(self, repository: str) -> dict[str, str]:
        """Return the digest behind each tag."""
        links = (self.storage / "repositories" / repository / "_manifests/tags").glob("*/current/link")
        return {path.parent.parent.name: path.read_text() for path in links}

    def incomplete(self, repository: str) -> list[tuple[str, str]]:
        """Return what tags of a repository lead to that is not there, or has other bytes than its digest says."""
        lacking = []
        for tag, digest in self.tags(repository).items():
            document = json.loads(self.blob(digest).read_bytes())
            wanted = [each["digest"] for each in (document["config"], *document["layers"])]
            lacking += [(tag, each) for each in wanted if not self.holds(repository, each)]
            lacking += [(tag, each) for each in (digest, *wanted) if not self._is_intact(each)]
        return lacking

    def _is_intact(self, digest: str) -> bool:
        if digest not in self.intact and self.blob(digest).exists() and f"sha256:{hashlib.sha256(self.blob(digest).read_bytes()).hexdigest()}" == digest:
            self.intact.add(digest)
        return digest in self.intact

    def damage(self, digest: str) -> None:
        """Change a byte of a blob on its disk."""
        path = self.blob(digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@contextlib.contextmanager
def registry(
    root: Path, *, authority: Authority | None = None, passwords: bool = False, tokens: Tokens | None = None, relative: bool = False
) -> Iterator[Served]:
    """Run a registry until the block ends.

    :param relative: it gives relative Locations.
    """
    port = free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "relativeurls": relative, "secret": "of these tests"},
    }
    if authority:
        settings["http"]["tls"] = {"certificate": str(authority.server), "key": str(authority.server_key)}
    if passwords:
        (root / "htpasswd").write_text(HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(root / "htpasswd")}}
    if tokens:
        bundle = str(tokens.authority.certificate)
        settings["auth"] = {"token": {"realm": tokens.url, "service": "registry", "issuer": "tests", "rootcertbundle": bundle}}
    (root / "config.json").write_text(json.dumps(settings))  # JSON is YAML too
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([program(), "serve", root / "config.json"], stdout=log, stderr=log)
    try:
        listening(port, process, root / "log")
        yield Served(f"127.0.0.1:{port}", root)
    finally:
        end(process)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server takes connections on a port of loopback."""
    until(lambda: _takes(port), f"a server on port {port}", alive=lambda: process.poll() is None, state=log.read_text)


def _takes(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
        return True
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Tell a server to end, and wait for that."""
    process.terminate()
    process.wait(PATIENCE)


def login(directory: Path, *hosts: str) -> None:
    """Write Docker's configuration with our user's password for some registries."""
    known = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": known} for host in hosts}}))
