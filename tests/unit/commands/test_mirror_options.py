"""What ``inv mirror`` makes of its words before it copies anything."""

from __future__ import annotations

import pytest

from torchstrata.commands import mirror
from torchstrata.errors import MirrorError


@pytest.mark.parametrize(
    ("word", "is_directory"),
    [
        ("registry.example/team", False),
        ("localhost/team", False),
        ("host:5000", False),
        ("copy", True),
        ("./a.b", True),
        ("~/copy", True),
        ("long" * 100, True),
    ],
)
def test_words_that_mean_a_directory(word, is_directory):
    """What is no host with a dot or a port, however long it is."""
    assert mirror.is_directory(word) is is_directory


@pytest.mark.parametrize("origin", ["./nowhere", "./" + "long" * 100])
def test_an_origin_that_is_not_there_is_named(origin):
    """It would be taken for a directory without images."""
    with pytest.raises(MirrorError, match="there is no directory"):
        mirror._check_origin(origin)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(bytes(100_000))])
def test_public_key_that_is_none(make, tmp_path):
    """It would go into the directory, for people to trust."""
    make(tmp_path / "key.pub")
    with pytest.raises(MirrorError, match="no public key: ") as refused:
        mirror._key(str(tmp_path / "key.pub"))
    assert "--key" in refused.value.fix


def test_public_key(tmp_path):
    """A file is read; what is kept elsewhere people get from there."""
    (tmp_path / "team.pub").write_bytes(b"key")
    assert mirror._key(str(tmp_path / "team.pub")) == b"key"
    assert mirror._key("awskms://alias/images") is None
