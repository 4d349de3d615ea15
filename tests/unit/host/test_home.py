"""The user's directories, and a user who has none: no name on this machine, and no HOME."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from torchstrata.errors import StoreError
from torchstrata.host import home
from torchstrata.locks import pip_config
from torchstrata.release import ledger_branch
from torchstrata.store.store import CACHE_VARIABLE, Store


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be such a user."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_who_has_no_name_has_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As who moves a channel, too, where git knows nobody."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    assert home.login() == str(os.geteuid())
    assert str(ledger_branch.author(tmp_path)) == str(os.geteuid())


def test_directories_follow_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They lie below HOME."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home.directory() == tmp_path
    for found in (home.config("pip"), home.cache("x")):
        assert found is not None
        assert found.is_relative_to(tmp_path)


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_has_no_settings() -> None:
    """Pip's settings are then those of the system alone."""
    assert (home.directory(), home.config("pip"), home.cache("x")) == (None, None, None)
    assert pip_config.read(os.environ).retries > 0


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_must_say_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the variable that cures."""
    with pytest.raises(StoreError, match="no home directory") as caught:
        Store.open()
    assert CACHE_VARIABLE in caught.value.fix
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert Store.open().root == tmp_path
