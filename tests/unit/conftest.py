"""What unit tests of several folders work with."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchstrata.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")
