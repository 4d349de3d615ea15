"""Where ``inv mirror`` copies from."""

from __future__ import annotations

import pytest

from torchstrata.commands import mirror
from torchstrata.errors import MirrorError


def test_a_directory_that_is_not_there_is_none_without_images(tmp_path, monkeypatch):
    """The error names it; a registry, or none, is asked itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cell").mkdir()
    for origin in (None, "cell", "registry.example/team"):
        mirror._check_origin(origin)
    with pytest.raises(MirrorError, match=r"there is no directory \./clel"):
        mirror._check_origin("./clel")
