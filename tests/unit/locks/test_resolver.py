"""Resolving for real, from a folder of small wheels: pip's find-links, so no network."""

from __future__ import annotations

import http.server

import pytest

from tests.registries import Authority
from tests.serving import answer, serving
from tests.standin import PackageIndex
from tests.wheelhouse import wheel
from torchstrata.errors import LockError
from torchstrata.locks import resolver

TARGET = resolver.ResolverTarget(python="3.13", platform="linux/amd64", exclude_newer="2026-11-17T00:00:00Z", undated=())


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Return a function that puts a wheel into the one folder where pip is configured to look."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {folder}\nindex-url =\nextra-index-url =\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))

    def put(name: str, version: str, *requires: str, tag: str = "py3-none-any"):
        return wheel(folder, name, version, {}, more="\n".join(f"Requires-Dist: {one}" for one in requires), tag=tag)

    return put


def test_newest_wheels_with_hash_and_size(publish):
    """The newest wheels are pinned, with the hash and size of the very file, though find-links tells neither."""
    publish("a", "1.0")
    pin, _ = publish("a", "2.0", "b>=1")
    publish("b", "1.5")
    a, b = resolver.resolve(["a"], (), TARGET)
    assert (a, b.version) == (pin, "1.5")


def test_kept_pins_are_kept(publish):
    """A pin of the parent's stays as it is, though a newer version is there."""
    publish("a", "1.0")
    (old,) = resolver.resolve(["a"], (), TARGET)
    publish("a", "2.0")
    assert resolver.resolve(["a"], (old,), TARGET) == (old,)


def test_no_solution_quotes_the_resolver(publish):
    """What cannot be resolved is one line, with the resolver's reason."""
    publish("a", "1.0", "b>=2")
    publish("b", "1.0")
    with pytest.raises(LockError, match=r"uv finds no solution: .*b") as caught:
        resolver.resolve(["a"], (), TARGET)
    assert "\n" not in caught.value.what


def test_certificates_that_are_not_there_are_one_line(publish, monkeypatch, tmp_path):
    """The resolver has its own; the size of a file is asked for with pip's."""
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(LockError, match=r"size of a-1\.0-py3-none-any\.whl cannot be found: .*none\.pem") as caught:
        resolver._size("https://127.0.0.1:1/a-1.0-py3-none-any.whl")
    assert "cert" in caught.value.fix


def test_wheels_of_other_platforms_do_not_count(publish):
    """A package that has wheels for another Python only is no solution."""
    publish("a", "1.0", tag="cp310-cp310-manylinux_2_17_x86_64")
    with pytest.raises(LockError, match="uv finds no solution"):
        resolver.resolve(["a"], (), TARGET)


@pytest.mark.parametrize(
    ("name", "value"),
    [("UV_PRERELEASE", "allow"), ("UV_RESOLUTION", "lowest"), ("UV_CONSTRAINT", "/nowhere/constraints.txt"), ("UV_EXCLUDE_NEWER", "2001-01-01T00:00:00Z")],
)
def test_variables_of_uv_decide_nothing(publish, monkeypatch, name, value):
    """The same inputs give the same lock to everybody: such variables are for other work."""
    publish("a", "1.0")
    pin, _ = publish("a", "2.0")
    publish("a", "3.0rc1")
    monkeypatch.setenv(name, value)
    assert resolver.resolve(["a"], (), TARGET) == (pin,)


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS"])
def test_an_index_of_the_tools_own_packages_is_none_of_wheels(unconfigured_pip, monkeypatch, tmp_path, name):
    """Builds ask where pip is configured to look; what uv alone is told they would not find."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with (
        PackageIndex(folder=tmp_path / "pip", is_dated=True).serve() as ours,
        PackageIndex(folder=tmp_path / "uv", is_dated=True).serve() as other,
    ):
        ours.add("a", "1.0")
        other.add("a", "2.0")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", ours.url)
        monkeypatch.setenv("PIP_INDEX_URL", ours.url)
        monkeypatch.setenv(name, other.url)
        assert [pin.version for pin in resolver.resolve(["a"], (), TARGET)] == ["1.0"]
        assert other.requests == []


@pytest.mark.parametrize("name", ["PIP_CERT", "REQUESTS_CA_BUNDLE"])
def test_the_authority_that_pip_knows(unconfigured_pip, monkeypatch, tmp_path, name):
    """A site's index has a certificate by its own authority, which builds believe by the same setting."""
    authority = Authority.make(tmp_path)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with PackageIndex(folder=tmp_path / "pip", is_dated=True).serve(authority.context()) as index:
        index.add("a", "1.0")
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setenv(name, str(authority.certificate))
        assert [pin.version for pin in resolver.resolve(["a"], (), TARGET)] == ["1.0"]


@pytest.mark.parametrize("place", ["{wheels} {here}/nowhere", "{wheels} ~nobody-of-that-name/wheels", "wheels", "./wheels"])
def test_directories_of_find_links(publish, monkeypatch, tmp_path, place):
    """As with pip, one that does not exist has nothing, and a relative one is meant from here."""
    pin, _ = publish("a", "1.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", place.format(wheels=tmp_path / "wheels", here=tmp_path))
    assert resolver.resolve(["a"], (), TARGET) == (pin,)


def test_a_fault_of_another_kind_is_not_called_unsolvable(publish, monkeypatch, tmp_path):
    """Newer wheels, and other requirements, would not cure it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(LockError, match=r"uv fails: .*cache") as caught:
        resolver.resolve(["a"], (), TARGET)
    assert caught.value.fix == "correct what it names"


@pytest.mark.parametrize(("status", "says"), [(401, "wants credentials, or other ones"), (403, "uv finds no solution"), (404, "uv finds no solution")])
def test_an_index_that_wants_credentials_is_named(unconfigured_pip, monkeypatch, tmp_path, status, says):
    """As after a token has expired; with 403 PyTorch's own index, and those that lie in buckets, say that they have no such package."""

    class RefusingHandler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, status=status, headers={"WWW-Authenticate": "Basic realm=x"})

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with serving(RefusingHandler) as port:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{port}/simple")
        with pytest.raises(LockError, match=says) as caught:
            resolver.resolve(["a"], (), TARGET)
    assert "secret" not in str(caught.value)
