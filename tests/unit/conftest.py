"""What unit tests of several folders work with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torchstrata.store.store import Store


@pytest.fixture(scope="session", autouse=True)
def _width() -> Iterator[None]:
    """Let lines be as long in every terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture
def unconfigured_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of this machine configure pip: variables that a test sets are all that counts."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what tells all that has been written to standard error so far."""
    told: list[str] = []

    def everything() -> str:
        told.append(capsys.readouterr().err)
        return "".join(told)

    return everything


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")
