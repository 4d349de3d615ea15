"""A company's certificate authority, trusted without root."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted
from tests.waiting import PATIENCE

SERVER = """
import http.server, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("/certs/server.pem")
server = http.server.HTTPServer(("0.0.0.0", 4443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True); server.serve_forever()
"""
MAKE = """
cd /tmp/ca && openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=Company CA' -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=mirror -keyout s.key -out s.csr 2>/dev/null
printf 'subjectAltName=DNS:mirror\\nauthorityKeyIdentifier=keyid\\nbasicConstraints=CA:FALSE\\n' >ext && openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile ext -out s.pem 2>/dev/null
cat s.pem s.key
"""


@pytest.fixture(scope="module")
def certificates(client, tmp_path_factory):
    """A directory with ``ca.pem`` and the certificate of a server named ``mirror``."""
    directory = tmp_path_factory.mktemp("certs")
    client.run("mkdir", "-p", "/tmp/ca")
    (directory / "server.pem").write_text(client.run("sh", "-c", MAKE).out)
    (directory / "ca.pem").write_text(client.run("cat", "/tmp/ca/ca.pem").out)
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def mirror(start_shared, certificates):
    """A server whose certificate the company's authority has signed: a package index, a git repository, an apt repository."""
    box = start_shared("/usr/bin/python3", "-c", SERVER, volumes=mounted(certificates, "/certs", "ro"), working_dir="/tmp")
    setup = "mkdir -p /tmp/simple/probe /tmp/dists/stable && cd /tmp && git init -q --bare repo.git && git -C repo.git update-server-info"
    assert box.run("sh", "-c", f"{setup}; echo '<html></html>' >/tmp/simple/probe/index.html").status == 0
    box.until(lambda: box.run("curl", "-sk", "https://127.0.0.1:4443/").status == 0, "the server")
    return box


USES = {
    "curl": "curl -sSf https://mirror:4443/",
    "git": "git ls-remote https://mirror:4443/repo.git",
    "requests": "python -c \"from pip._vendor import requests; requests.get('https://mirror:4443/').raise_for_status()\"",
    "pip": "! pip download --retries 0 --no-deps --index-url https://mirror:4443/simple/ probe 2>&1 | grep -iE 'ssl|certificate'",
    "uv": "uv pip install --index-url https://mirror:4443/simple/ probe 2>&1 | grep -iE 'no (versions|solution)'",
    "urllib": "python -c \"import urllib.request; urllib.request.urlopen('https://mirror:4443/')\"",
    "apt": "apt-get -o Debug::Acquire::https=1 -o Dir::State=/tmp/apt -o Dir::Cache=/tmp/apt -o Dir::Etc::SourceList=/tmp/apt/list -o Dir::Etc::SourceParts=- update 2>&1"
    " | grep -iE '404|does not have a Release'",
}


@pytest.fixture(scope="module")
def employee(start_shared, certificates, mirror):
    """A container with the variable, and one without, once their own starts are over; ``employee[True]`` is the first."""
    options = {"volumes": mounted(certificates, "/certs", "ro"), "extra_hosts": {"mirror": mirror.address}}
    patient = dict.fromkeys(("PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT"), f"{PATIENCE:.0f}")
    environments = {True: patient | {"TORCHSTRATA_CA_FILE": "/certs/ca.pem"}, False: patient}
    boxes = {given: start_shared("sleep", "infinity", environment=each, **options) for given, each in environments.items()}
    for box in boxes.values():
        assert box.has_begun()
        setup = "mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial && echo 'deb https://mirror:4443/ stable main' >/tmp/apt/list"
        assert box.run("sh", "-c", setup).status == 0
    return boxes


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("trusted", [True, False], ids=["with", "without"])
def test_trust(employee, use, trusted):
    """Each program that a start brings up trusts a server of the company's with the variable, and does not without."""
    done = employee[trusted].run("torchstrata-entrypoint", "sh", "-c", USES[use])
    assert (done.status == 0) is trusted, done.out + done.err


BESIDE = [use for use in USES if use not in {"apt", "requests"}]
"""What people run by ``docker exec``, as Dev Containers and CI systems do; apt there is root's, whose shells have the system's authorities. What
requests would look at beats what people tell their programs, so that no image sets it."""


@pytest.mark.parametrize("use", BESIDE)
@pytest.mark.parametrize("trusted", [True, False], ids=["with", "without"])
def test_trust_beside_the_start(employee, use, trusted):
    """So does each program that ``docker exec`` runs."""
    done = employee[trusted].run("sh", "-c", USES[use])
    assert (done.status == 0) is trusted, done.out + done.err


BUNDLE = "/var/lib/torchstrata/ca-bundle.crt"


def test_bundle_goes_with_the_variable(start, certificates):
    """A container that starts anew without the variable, as after ``docker commit``, trusts the system's authorities alone."""
    box = start("sleep", "infinity", environment={"TORCHSTRATA_CA_FILE": "/certs/ca.pem"}, volumes=mounted(certificates, "/certs", "ro"))
    assert box.has_begun()
    assert box.run("test", "-f", BUNDLE, "-a", "!", "-L", BUNDLE).status == 0
    assert box.run("torchstrata-entrypoint", "true", env={"TORCHSTRATA_CA_FILE": ""}).status == 0
    assert box.run("readlink", BUNDLE).out.strip() == "/etc/ssl/certs/ca-certificates.crt"


@pytest.mark.parametrize("options", [{"user": "12345:12345"}, {"read_only": True, "tmpfs": {"/tmp": "mode=1777"}}], ids=["other group", "read-only"])
def test_bundle_that_cannot_be_written(start, certificates, options):
    """Where the lasting bundle is not this user's, what the start brings up trusts the company all the same, and nothing is complained of."""
    count = "grep -c 'BEGIN CERTIFICATE' $SSL_CERT_FILE $PIP_CERT; readlink /var/lib/torchstrata/ca-bundle.crt"
    box = start("sh", "-c", count, environment={"TORCHSTRATA_CA_FILE": "/certs/ca.pem"}, volumes=mounted(certificates, "/certs", "ro"), **options)
    assert box.ended() == 0
    assert "/etc/ssl/certs" in box.log
    assert f"{BUNDLE}:" not in box.log
    assert "authorities cannot" not in box.errors


def test_public_authorities_stay(start, certificates):
    """The public authorities are still trusted beside the company's."""
    count = "grep -c 'BEGIN CERTIFICATE' $SSL_CERT_FILE; grep -c 'BEGIN CERTIFICATE' /etc/ssl/certs/ca-certificates.crt"
    box = start("sh", "-c", count, environment={"TORCHSTRATA_CA_FILE": "/certs/ca.pem"}, volumes=mounted(certificates, "/certs", "ro"))
    box.ended()
    both, public = map(int, box.container.logs(stderr=False).split())
    assert both == public + 1


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("nonsense", "has no certificate in PEM form")])
def test_file_that_is_none(start, tmp_path, content, said):
    """A file that is missing or no certificate is named in one line; the command runs."""
    if content:
        (tmp_path / "ca.pem").write_text(content)
    tmp_path.chmod(0o755)
    box = start("true", environment={"TORCHSTRATA_CA_FILE": "/certs/ca.pem"}, volumes=mounted(tmp_path, "/certs", "ro"))
    assert box.ended() == 0
    assert len([line for line in box.errors.splitlines() if f"TORCHSTRATA_CA_FILE=/certs/ca.pem {said}" in line]) == 1
