"""Resolving for real, from a folder of small wheels: pip's find-links, so no network."""

from __future__ import annotations

import pytest

from tests.wheelhouse import wheel
from torchstrata.errors import LockError
from torchstrata.locks import resolver

TARGET = resolver.ResolverTarget(python="3.13", platform="linux/amd64", exclude_newer="2026-11-17T00:00:00Z", undated=())


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Return a function that puts a wheel into the one folder where pip is configured to look."""
    folder = tmp_path / "shelf"
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


def test_newest_wheels_with_hash_and_size(shelf):
    """The newest wheels are pinned, with the hash and size of the very file, though find-links tells neither."""
    shelf("a", "1.0")
    pin, _ = shelf("a", "2.0", "b>=1")
    shelf("b", "1.5")
    a, b = resolver.resolve(["a"], (), TARGET)
    assert (a, b.version) == (pin, "1.5")


def test_kept_pins_are_kept(shelf):
    """A pin of the parent's stays as it is, though a newer version is there."""
    shelf("a", "1.0")
    (old,) = resolver.resolve(["a"], (), TARGET)
    shelf("a", "2.0")
    assert resolver.resolve(["a"], (old,), TARGET) == (old,)


def test_no_solution_quotes_the_resolver(shelf):
    """What cannot be resolved is one line, with the resolver's reason."""
    shelf("a", "1.0", "b>=2")
    shelf("b", "1.0")
    with pytest.raises(LockError, match=r"uv finds no solution: .*b") as caught:
        resolver.resolve(["a"], (), TARGET)
    assert "\n" not in caught.value.what


def test_certificates_that_are_not_there_are_one_line(shelf, monkeypatch, tmp_path):
    """The resolver has its own; the size of a file is asked for with pip's."""
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(LockError, match=r"size of a-1\.0-py3-none-any\.whl cannot be found: .*none\.pem") as caught:
        resolver._size("https://127.0.0.1:1/a-1.0-py3-none-any.whl")
    assert "cert" in caught.value.fix


def test_wheels_of_other_platforms_do_not_count(shelf):
    """A package that has wheels for another Python only is no solution."""
    shelf("a", "1.0", tag="cp310-cp310-manylinux_2_17_x86_64")
    with pytest.raises(LockError, match="uv finds no solution"):
        resolver.resolve(["a"], (), TARGET)
