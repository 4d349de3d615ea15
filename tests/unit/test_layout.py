"""Images in a directory, as an OCI image layout."""

from __future__ import annotations

import io
import json
import os

import pytest
from rich.console import Console

from tests.parts import CELL, CODEC, MATRIX, os_part, plan
from torchstrata.building.build import Builder
from torchstrata.content import compose, layout
from torchstrata.content.store import Store
from torchstrata.errors import StoreError
from torchstrata.progress import PlainReporter


@pytest.fixture
def store(tmp_path):
    """Return a store of this test."""
    return Store(tmp_path / "store")


@pytest.fixture
def images(store):
    """Return the images of two flavours."""
    builder = Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO())))
    items = [os_part(store, {f"etc/{flavour}": b"x"}, ("base", "devel")[: count + 1]) for count, flavour in enumerate(("base", "devel"))]
    return [one.loadable for one in builder.build(plan(*items, flavours=("base", "devel"), per_flavour=1))]


def read(directory, digest):
    """Return a blob of a layout."""
    return (directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


def test_index_leads_to_every_byte(tmp_path, store, images):
    """Index, manifests, configs and layers are there under their digests; tags are the specification's reference names."""
    layout.write(tmp_path / "out", images, store)
    assert json.loads((tmp_path / "out" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    described = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]
    assert [one["annotations"]["org.opencontainers.image.ref.name"] for one in described] == [f"{CELL.short}-base", f"{CELL.short}-devel"]
    for one in described:
        content = read(tmp_path / "out", one["digest"])
        assert (compose.sha256(content), len(content)) == (one["digest"], one["size"])
        manifest = json.loads(content)
        for part in (manifest["config"], *manifest["layers"]):
            blob = read(tmp_path / "out", part["digest"])
            assert (compose.sha256(blob), len(blob)) == (part["digest"], part["size"])


def test_layers_take_no_second_place(tmp_path, store, images):
    """On one file system a layer of the layout is the store's own file."""
    layout.write(tmp_path / "out", images, store)
    layer = images[0].layers[0]
    assert (tmp_path / "out" / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")).samefile(store.open_blob(layer.digest))


def test_layers_are_copied_where_links_cannot_be(tmp_path, store, images, monkeypatch):
    """Another file system gets the bytes."""

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    layout.write(tmp_path / "out", images, store)
    for layer in images[-1].layers:
        assert compose.sha256(read(tmp_path / "out", layer.digest)) == layer.digest


def test_writing_again_changes_nothing(tmp_path, store, images):
    """The same images give the same index, and what is there stays."""
    layout.write(tmp_path / "out", images, store)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    layout.write(tmp_path / "out", images, store)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_lost_blob_leaves_no_index(tmp_path, store, images):
    """The index never names what is not there."""
    store.open_blob(images[0].layers[0].digest).unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        layout.write(tmp_path / "out", images, store)
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path, store, images):
    """A file in the way is an error with a cure, not a traceback."""
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="out"):
        layout.write(tmp_path / "out", images, store)
