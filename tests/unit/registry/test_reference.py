"""Names in registries, and which hosts are this machine."""

from __future__ import annotations

import pytest

from torchstrata.attestations.remote import VARIABLE, place, required
from torchstrata.errors import RegistryError
from torchstrata.registry.reference import Place, Reference, is_loopback

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("registry.example/team/x", ("registry.example", "team/x", None, None)),
        ("localhost/x:v1", ("localhost", "x", "v1", None)),
        ("127.0.0.1:5000/a/b-c/d__e:2.8_x", ("127.0.0.1:5000", "a/b-c/d__e", "2.8_x", None)),
        (f"[::1]:5000/x:v1@{DIGEST}", ("[::1]:5000", "x", "v1", DIGEST)),
        (f"registry.example/x@{DIGEST}", ("registry.example", "x", None, DIGEST)),
    ],
)
def test_a_reference_is_read_and_written(text, parts):
    """Host, repository, tag and digest; written it is what it was."""
    parsed = Reference.parse(text)
    assert (parsed.host, parsed.repository, parsed.tag, parsed.digest) == parts
    assert str(parsed) == text
    assert parsed.name == (parts[3] or parts[2] or "latest")


NO_REFERENCE = (
    "x",
    "team/x:v1",
    "registry.example",
    "registry.example/X",
    "registry.example/x:",
    "registry.example/x:a b",
    "registry.example/x@sha256:12",
    "",
)
NO_PLACE = (
    "",
    "ftp://registry.example",
    "registry.example/Team",
    "registry example",
    "registry.example/team:v1",
)


@pytest.mark.parametrize(
    ("parse", "text", "what"),
    [
        *((Reference.parse, text, "names no image") for text in NO_REFERENCE),
        *((Place.parse, text, "is no registry") for text in NO_PLACE),
    ],
)
def test_what_is_no_reference_and_no_place(parse, text, what):
    """It is refused in words, and nothing is guessed: neither a host nor a tag."""
    with pytest.raises(RegistryError, match=what):
        parse(text)


def test_a_place_has_repositories():
    """A path is put before their names."""
    assert Place.parse("registry.example:5000/team/a/").repository("x") == "team/a/x"
    assert Place.parse("http://localhost:5000").repository("x") == "x"
    assert Place.parse("http://localhost:5000").scheme == "http"


HERE = ("localhost", "localhost:5000", "127.0.0.1", "127.3.2.1:80", "[::1]:5000", "[::1]")
ELSEWHERE = ("registry.example", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example:80", "[fe80::1]:5000")


@pytest.mark.parametrize("host", HERE + ELSEWHERE)
def test_which_hosts_are_this_machine(host):
    """All of 127.0.0.0/8, as Docker has it; a name that only looks like it is not."""
    assert is_loopback(host) == (host in HERE)


def test_who_says_which_registry(monkeypatch):
    """The option, then the variable, then matrix.yaml; without any, pushing says what to do."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert place(None, None) is None
    assert place(None, "c.example").host == "c.example"
    monkeypatch.setenv(VARIABLE, "b.example")
    assert place(None, "c.example").host == "b.example"
    assert place("a.example", "c.example").host == "a.example"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(RegistryError, match="no registry is known"):
        required(None, None)
