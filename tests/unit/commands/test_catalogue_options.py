"""What ``inv catalogue`` refuses before it looks at any image."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchstrata.catalogue import measurements
from torchstrata.commands import catalogue
from torchstrata.commands.release_options import CatalogueOptions
from torchstrata.errors import CatalogueError


@pytest.mark.parametrize("given", [{"key": Path("/nowhere")}, {"identity": "me"}, {"issuer": "https://x"}, {"registry": "registry.example/team"}])
def test_an_engine_has_no_use_for_what_is_about_a_registry(given, tmp_path):
    """Nothing there is signed: a key would be left out in silence."""
    with pytest.raises(CatalogueError, match="--engine has no use for") as refused:
        catalogue.write(CatalogueOptions(engine=True, output=tmp_path / "site", **given))
    assert f"--{next(iter(given))}" in refused.value.fix
    assert not (tmp_path / "site").exists()


def test_a_place_where_something_else_lies_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    """A registry is read for minutes; one that nobody reaches would be the first to complain."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").touch()
    with pytest.raises(CatalogueError, match="site has other files than those of a catalogue"):
        catalogue.write(CatalogueOptions(output=Path("site"), registry="127.0.0.1:1/team"))


def test_measurements_that_cannot_be_read_are_told(tmp_path):
    """As a catalogue's, with what to do."""
    (tmp_path / next(iter(measurements.TIMES))).mkdir()
    with pytest.raises(CatalogueError, match="measurements: "):
        catalogue._measurements(tmp_path)
