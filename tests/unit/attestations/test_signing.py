"""Who signs and whose signatures count, without cosign: what the environment says, and what cosign is told."""

from __future__ import annotations

import base64
import json
import os

import pytest

from tests.limits import files_of_at_most
from tests.scripts import script
from torchstrata import process
from torchstrata.attestations import cosign, key_pair, signing
from torchstrata.attestations.signing import Signer, Trust
from torchstrata.errors import RegistryError, SigningError, StoreError, UntrustedError


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    """Let no variable of the machine count."""
    for name in (signing.KEY, signing.PUBLIC_KEY, "GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", *signing.AMBIENT):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asked(monkeypatch):
    """Stand at the edge of the process: note what cosign would be asked, and let it agree."""
    words = []

    def run(*args, **_):
        words.append([str(arg) for arg in args[1:]])
        return ""

    monkeypatch.setattr(process, "find", lambda name, fix="": name)
    monkeypatch.setattr(process, "run", run)
    cosign.is_newer.cache_clear()
    yield words
    cosign.is_newer.cache_clear()


def test_without_a_key_nobody_signs():
    """The error says how to make one, and what a job in GitHub Actions needs."""
    with pytest.raises(SigningError) as caught:
        Signer.find()
    assert "inv key" in caught.value.fix
    assert "id-token: write" in caught.value.fix
    assert Signer.present() is None


def test_a_key_is_taken_from_the_environment(monkeypatch):
    """One that is asked for counts more."""
    monkeypatch.setenv(signing.KEY, "team.key")
    assert Signer.find() == Signer(key="team.key")
    assert Signer.find("mine.key") == Signer(key="mine.key")


def test_a_job_that_may_have_an_identity_needs_no_key(monkeypatch):
    """GitHub Actions sets the variable if the job has the permission."""
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example")
    assert Signer.find() == Signer(key=None)


def test_without_a_word_nobody_is_trusted():
    """There is no default that would let anybody's signature pass."""
    with pytest.raises(UntrustedError, match="nothing says whose signatures count"):
        Trust.find()
    with signing.trusted() as trust:
        assert trust is None


@pytest.mark.parametrize("asked", [None, "nowhere.pub", "x" * 300, "."])
def test_a_public_key_that_is_not_there_is_named_before_anything_is_asked(asked, tmp_path, monkeypatch):
    """As an option and as a variable, also where somebody gives the key itself or a directory; a URI is cosign's matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(signing.PUBLIC_KEY, "absent.pub")
    with pytest.raises(SigningError, match=f"no public key: .*/{'absent.pub' if asked is None else asked.strip('.x')}"), signing.trusted(asked):
        pass
    with pytest.raises(SigningError, match="no public key"):
        Trust.find(asked)
    with signing.trusted("env://TEAM") as trust:
        assert trust == Trust(key="env://TEAM")


def test_in_github_actions_the_repositorys_workflows_are_trusted(monkeypatch):
    """Of this repository only: its name is not a pattern."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/py.torch")
    trust = Trust.find()
    assert trust == Trust(identity=r"^https://github\.com/team/py\.torch/\.github/workflows/", issuer=signing.ISSUER)


def test_a_public_key_counts_more_than_github_actions(tmp_path, monkeypatch):
    """And what is asked for counts most."""
    monkeypatch.chdir(tmp_path)
    for name in ("team.pub", "other.pub"):
        (tmp_path / name).touch()
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/images")
    monkeypatch.setenv(signing.PUBLIC_KEY, "team.pub")
    assert Trust.find() == Trust(key="team.pub")
    assert Trust.find(key="other.pub") == Trust(key="other.pub")
    assert Trust.find(identity="^me$", issuer="https://issuer.example") == Trust(identity="^me$", issuer="https://issuer.example")


def test_a_key_signs_without_any_service(asked, tmp_path, monkeypatch):
    """Nothing goes to a log, and the key is found from every directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError):  # the bundle, which cosign would have written
        Signer(key="team.key").sign_blob(b"x")
    (command,) = [words for words in asked if "--help" not in words]
    assert f"--key={tmp_path / 'team.key'}" in command
    assert "--tlog-upload=false" in command


def test_keyless_signatures_go_to_the_log(asked):
    """There the log is what proves the time, so nothing is left out."""
    with pytest.raises(StoreError):
        Signer(key=None).sign_blob(b"x")
    (command,) = asked
    assert not [word for word in command if "tlog" in word or "--key" in word]


@pytest.mark.parametrize("key", ["awskms://alias/team", "env://COSIGN_PRIVATE_KEY"])
def test_keys_elsewhere_are_named_as_they_are(key):
    """A URI is no path."""
    assert signing._absolute(key) == key


def test_keyless_trust_asks_for_identity_and_issuer(asked):
    """And does not ignore the log."""
    Trust(identity="^team$", issuer="https://issuer.example").check_blob(b"x", b"{}")
    (command,) = asked
    assert "--certificate-identity-regexp=^team$" in command
    assert "--certificate-oidc-issuer=https://issuer.example" in command
    assert not [word for word in command if "ignore-tlog" in word or "trusted-root" in word]


@pytest.mark.parametrize("kind", ["a file", "a directory"])
def test_cosign_is_told_of_the_cas_that_docker_knows(tmp_path, monkeypatch, kind):
    """Those of the registry's directory and of requests, in one file; and who we are."""
    place = tmp_path / "certs.d" / "registry.example:5000"
    place.mkdir(parents=True)
    for name, content in (("ca.crt", "one"), ("client.cert", "x"), ("client.key", "y")):
        (place / name).write_text(content)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "two.pem").write_text("two")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle / "two.pem" if kind == "a file" else bundle))
    monkeypatch.setattr("torchstrata.registry.certificates.DIRECTORIES", (tmp_path / "certs.d", tmp_path / "none"))
    options = cosign.registry_options("registry.example:5000", tmp_path)
    assert options == [
        f"--registry-cacert={tmp_path / 'cas.pem'}",
        f"--registry-client-cert={place / 'client.cert'}",
        f"--registry-client-key={place / 'client.key'}",
    ]
    assert (tmp_path / "cas.pem").read_text().split() == ["one", "two"]
    assert cosign.registry_options("other.example", tmp_path)[1:] == []


def test_a_certificate_that_is_gone_is_one_line(tmp_path, monkeypatch):
    """OpenSSL passes such a variable over, so that nobody else tells."""
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(RegistryError, match=r"none\.pem cannot be read: No such file") as caught:
        cosign.registry_options("registry.example", tmp_path)
    assert "SSL_CERT_FILE" in caught.value.fix


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_key_needs_a_password(monkeypatch, tmp_path, is_asked):
    """At a terminal Ctrl-D is none; elsewhere nobody is asked."""

    def end(_):
        raise EOFError

    monkeypatch.delenv(key_pair.PASSWORD, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: is_asked, raising=False)
    monkeypatch.setattr("getpass.getpass", end)
    with pytest.raises(SigningError, match="nobody has typed a password"):
        key_pair.make_key(tmp_path / "team")


def test_a_place_for_keys_that_cannot_be_is_named(tmp_path, monkeypatch):
    """Its name is too long for the disk."""
    script(tmp_path / "cosign", "echo private >cosign.key; echo public >cosign.pub")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(key_pair.PASSWORD, "")
    with pytest.raises(SigningError, match="cannot be written: File name too long"):
        key_pair.make_key(tmp_path / ("x" * 300))
    assert key_pair.make_key(tmp_path / "team").read_text() == "public\n"


def test_half_a_key_does_not_stay(tmp_path):
    """The next try would say that there is one already."""
    path = tmp_path / "team.key"
    with files_of_at_most(3), pytest.raises(SigningError, match="cannot be written: File too large"):
        key_pair._write_new(path, b"a long key", 0o600)
    key_pair._write_new(path, b"a long key", 0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"a long key", 0o600)
    with pytest.raises(SigningError, match="File exists"):
        key_pair._write_new(path, b"another", 0o600)
    assert path.read_bytes() == b"a long key"


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b"[]",
        json.dumps({"dsseEnvelope": {"payload": "e30="}}).encode(),
        json.dumps({"dsseEnvelope": {"payload": base64.b64encode(b"[]").decode()}}).encode(),
    ],
)
def test_what_is_no_attestation_is_refused(bundle):
    """Before cosign is asked."""
    with pytest.raises(UntrustedError, match="no bundle"):
        Trust(key="x").check_attestation(bundle, b"{}")


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("WARNING: x\nError: no signatures found\nerror during command execution: no signatures found\n", "no signatures found"),
        (
            "error during command execution: invalid signature when validating ASN.1 encoded signature\n",
            "invalid signature when validating ASN.1 encoded signature",
        ),
        ("something else\n", "something else"),
    ],
)
def test_what_cosign_says_becomes_one_line(tail, message):
    """Without its prefixes and warnings."""
    assert cosign._message(process.Failed(("cosign", "verify"), 1, tail)) == message
