"""Images in a directory, as an OCI image layout."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.parts import CELL, CODEC, MATRIX, os_part, plan
from torchstrata.building.assembly import Builder
from torchstrata.errors import ImageIndexError, IntegrityError, StoreError
from torchstrata.image import compose, image_index, layout, oci
from torchstrata.progress import PlainReporter
from torchstrata.store.digest import digest_of


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


def blob(directory, image):
    """Return the file of an image's lowest layer in a layout."""
    return directory / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")


def test_whoever_edits_a_layout_edits_no_store(tmp_path, store, images):
    """A layer of the layout is a file of its own: writing into it changes nothing in the store, and the next write mends it."""
    layout.write(tmp_path / "out", images, store)
    with blob(tmp_path / "out", images[0]).open("r+b") as file:
        file.write(b"changed")
    digest = images[0].layers[0].digest
    assert digest_of(store.open_blob(digest)) == digest
    layout.write(tmp_path / "out", images, store)
    assert compose.sha256(blob(tmp_path / "out", images[0]).read_bytes()) == images[0].layers[0].digest


def test_a_link_into_the_store_becomes_a_file(tmp_path, store, images):
    """As an earlier version has made them."""
    layout.write(tmp_path / "out", images, store)
    copied, kept = blob(tmp_path / "out", images[0]), store.open_blob(images[0].layers[0].digest)
    copied.unlink()
    os.link(kept, copied)
    layout.write(tmp_path / "out", images, store)
    assert not copied.samefile(kept)


def test_a_flipped_bit_of_the_store_is_refused(tmp_path, store, images):
    """The digest of what was written is checked: a damaged blob ends it with 13, leaves no index and no half of a file, and is made anew next time."""
    damaged = store.open_blob(images[0].layers[0].digest)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="damaged"):
        layout.write(tmp_path / "out", images, store)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name not in {each.layers[0].digest[7:] for each in images}] == []
    assert not damaged.exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_layers_are_copied_where_the_kernel_does_not(tmp_path, store, images, monkeypatch, number):
    """Between some file systems it refuses, before or in the middle; every byte comes all the same."""

    def refuse(source, target, _):
        os.write(target, os.read(source, 7))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    layout.write(tmp_path / "out", images, store)
    for layer in images[-1].layers:
        assert compose.sha256(read(tmp_path / "out", layer.digest)) == layer.digest


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_in_the_way_of_an_unfinished_file(tmp_path, store, images, make):
    """A directory is told; a FIFO or a link is replaced, and nothing is written through it."""
    layout.write(tmp_path / "out", images, store)
    way = tmp_path / "out" / ".index.json.partial"
    make(way)
    if way.is_dir():
        with pytest.raises(StoreError, match=r"index\.json"):
            layout.write(tmp_path / "out", images, store)
    else:
        layout.write(tmp_path / "out", images, store)
        assert not os.path.lexists(way)


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_a_link_to_another_directory_is_not_followed(tmp_path, store, images, link):
    """Nothing is written where it leads; without it, the layout is."""
    (tmp_path / "victim").mkdir()
    way = tmp_path / "out" / link
    way.parent.mkdir(parents=True)
    way.symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match=f"{link} is a link"):
        layout.write(tmp_path / "out", images, store)
    assert list((tmp_path / "victim").iterdir()) == []
    way.unlink()
    layout.write(tmp_path / "out", images, store)
    assert read(tmp_path / "out", images[0].layers[0].digest)


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


def test_a_tag_of_several_platforms_names_their_index(tmp_path, store, images):
    """A reader picks the image for its machine; a tag that has one image names that, as ever."""
    config = json.loads(images[0].config)
    other = compose.canonical({**config, "architecture": "arm64"})
    about = {**json.loads(images[0].manifest), "config": {"mediaType": compose.CONFIG, "digest": compose.sha256(other), "size": len(other)}}
    arm = dataclasses.replace(images[0], config=other, manifest=compose.canonical(about))
    layout.write(tmp_path / "out", [*images, arm], store)
    base, devel = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]
    assert (base["mediaType"], devel["mediaType"]) == (oci.INDEX, compose.MANIFEST)
    found = image_index.read(read(tmp_path / "out", base["digest"]), "x")
    assert found.digests == {"linux/amd64": compose.sha256(images[0].manifest), "linux/arm64": compose.sha256(arm.manifest)}
    for digest in found.digests.values():
        assert json.loads(read(tmp_path / "out", json.loads(read(tmp_path / "out", digest))["config"]["digest"]))["rootfs"] == config["rootfs"]


def test_two_images_of_one_platform_are_no_index(tmp_path, store, images):
    """Nothing is named then."""
    with pytest.raises(ImageIndexError, match="linux/amd64 twice"):
        layout.write(tmp_path / "out", [images[0], dataclasses.replace(images[1], tags=images[0].tags)], store)
    assert not (tmp_path / "out" / "index.json").exists()
