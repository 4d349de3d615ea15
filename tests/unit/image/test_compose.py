"""Composition: what goes into an image, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import product
from pathlib import Path
from typing import IO, cast

import pytest

from torchstrata.errors import ComposeError
from torchstrata.image.compose import LAYER_LIMIT, Runtime, Section, check, compose, sha256
from torchstrata.image.loadable import END, Loadable, prefix, stream
from torchstrata.store.layer import Entry, Layer

RUNTIME = Runtime(
    env={"PATH": "/opt/venv/bin:/usr/bin", "ODD": "a b=$(c)"},
    labels={"torchstrata.torch": "2.8.0"},
    user="1000:0",
    entrypoint=("/usr/bin/tini", "--"),
    command=("bash",),
    workdir="/workspace",
    ports=(8888,),
    created="2026-11-24T00:00:00Z",
)


def layer(title: str) -> Layer:
    """Return a layer whose digests follow from its title."""
    return Layer(
        digest=sha256(title.encode()),
        diff_id=sha256(f"{title} tar".encode()),
        size=len(title),
        unpacked=2 * len(title),
        media_type="application/vnd.oci.image.layer.v1.tar+zstd",
        title=title,
    )


SECTIONS = (
    Section(origin="payload", label="payload of base", layers=(layer("cublas"), layer("torch"))),
    Section(origin="os", label="OS part of base", layers=(layer("rootfs"),)),
)


def entries(*paths: str, kind: str = "dir") -> list[Entry]:
    """Return listed paths of one kind."""
    return [Entry(path=path, kind=kind) for path in paths]  # type: ignore[arg-type]


def test_manifest_lists_layers_bottom_to_top() -> None:
    """The payload comes first: sections keep their order, and the config lists the same layers by diffID."""
    image = compose("cell-base", SECTIONS, RUNTIME)
    manifest, config = json.loads(image.manifest), json.loads(image.config)
    assert [entry["digest"] for entry in manifest["layers"]] == [layer(title).digest for title in ("cublas", "torch", "rootfs")]
    assert config["rootfs"]["diff_ids"] == [layer(title).diff_id for title in ("cublas", "torch", "rootfs")]


def test_manifest_names_the_config_by_digest() -> None:
    """Config descriptor and image digest are the SHA-256 of the very bytes."""
    image = compose("cell-base", SECTIONS, RUNTIME)
    described = json.loads(image.manifest)["config"]
    assert (described["digest"], described["size"]) == (sha256(image.config), len(image.config))
    assert image.digest == sha256(image.manifest)


def test_same_inputs_give_same_bytes() -> None:
    """Composing has no other input than its arguments."""
    assert compose("cell-base", SECTIONS, RUNTIME) == compose("cell-base", SECTIONS, RUNTIME)


def test_another_platform_is_named_in_the_config_alone() -> None:
    """Layers are what they are; whoever runs the image reads from its config what for."""
    here, there = compose("cell-base", SECTIONS, RUNTIME), compose("cell-base", SECTIONS, RUNTIME, "linux/arm64")
    configs = [json.loads(image.config) for image in (here, there)]
    assert [(config.pop("os"), config.pop("architecture")) for config in configs] == [("linux", "amd64"), ("linux", "arm64")]
    assert configs[0] == configs[1]
    assert here.layers == there.layers


def test_an_archive_names_the_platform_of_each_image() -> None:
    """An engine picks from the index of an archive what fits it, or what was asked for."""
    image = compose("cell-base", SECTIONS, RUNTIME, "linux/arm64")
    given = Loadable(config=image.config, manifest=image.manifest, tags=(), layers=image.layers, platform="linux/arm64")
    beside = prefix(image.layers[:1], "linux/arm64")
    content = b"".join(stream([given, beside], (), Path)) + END
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        index = json.loads(cast("IO[bytes]", archive.extractfile("index.json")).read())
    assert [entry["platform"] for entry in index["manifests"]] == [{"os": "linux", "architecture": "arm64"}] * 2
    assert json.loads(beside.config)["architecture"] == "arm64"


def test_history_names_every_layer() -> None:
    """``docker history`` shows a line for each layer, with the wheel or package that it came from."""
    history = json.loads(compose("cell-base", SECTIONS, RUNTIME).config)["history"]
    assert [entry["comment"] for entry in history] == ["cublas", "torch", "rootfs"]


def test_environment_keeps_order_and_characters() -> None:
    """Values reach the config as they are, whatever characters they hold."""
    assert json.loads(compose("cell-base", SECTIONS, RUNTIME).config)["config"]["Env"] == ["PATH=/opt/venv/bin:/usr/bin", "ODD=a b=$(c)"]


def test_too_many_layers_are_refused() -> None:
    """The budget leaves room for images that people derive."""
    many = Section(origin="payload", label="many", layers=tuple(layer(f"wheel {number}") for number in range(LAYER_LIMIT + 1)))
    with pytest.raises(ComposeError, match="49 layers"):
        compose("cell-base", (many,), RUNTIME)


OF_PAYLOAD = ("opt/venv", "opt/venv/bin/pip", "opt/cuda", "opt/cuda/lib/libfoo.so", "opt/cuda-12.4/bin/nvcc")
HIDING = ("file", "link", "whiteout", "opaque")


@pytest.mark.parametrize(
    ("path", "kind", "why"),
    [
        *((path, kind, "belongs to the payload") for path, kind in product(OF_PAYLOAD, ("dir", *HIDING))),
        *((path, kind, "erase the payload") for path, kind in product(("", "opt"), HIDING)),
    ],
)
def test_os_layer_in_the_payload_is_refused(path: str, kind: str, why: str) -> None:
    """An OS layer lies above it: anything of it there, and all but a directory on a parent, would erase files."""
    with pytest.raises(ComposeError, match=why):
        check("cell-base", [("os", layer("rootfs"), entries(path, kind=kind))])


def test_os_layer_may_have_the_opt_directory() -> None:
    """Distributions ship an empty /opt, which hides nothing."""
    check("cell-base", [("payload", layer("torch"), entries("opt", "opt/venv")), ("os", layer("rootfs"), entries("opt", "opt/other"))])


@pytest.mark.parametrize(
    ("path", "below", "above", "why"),
    [
        ("opt/venv/lib/python3.13/site-packages/nvidia", "link", "dir", "not a directory in layer 'a' and a directory"),
        ("opt/venv/x", "dir", "file", "a directory in layer 'a' and not a directory in layer 'b'"),
    ],
)
def test_directory_over_link_is_refused(path: str, below: str, above: str, why: str) -> None:
    """Above the link to ``/opt/cuda/nvidia`` it would hide CUDA; a file over a directory would erase a whole tree."""
    layers = [("payload", layer(name), entries(path, kind=kind)) for name, kind in (("a", below), ("b", above))]
    with pytest.raises(ComposeError, match=why):
        check("cell-base", layers)  # type: ignore[arg-type]
