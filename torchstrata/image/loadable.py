"""The archive that an engine loads: an OCI image layout in a tar, made while it is sent, never written anywhere.

It also has the ``manifest.json`` of ``docker save``, which is the only index that the classic image store reads. Image
specification: https://github.com/opencontainers/image-spec (image-layout.md).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, Image, canonical, descriptor, manifest, platform_fields, sha256
from torchstrata.store.codec import CHUNK
from torchstrata.store.layer import PLATFORM, Layer, OpenBlob

BLOCK: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * BLOCK)
"""What ends a tar. An engine starts to unpack when it has come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loadable:
    """An image that can be loaded into an engine.

    :param config: its config, as JSON bytes.
    :param manifest: its manifest, as JSON bytes.
    :param tags: names in the engine, such as ``pytorch-cuda:2.8-cu121-base``.
    :param layers: bottom to top.
    :param platform: that its config names.
    """

    config: bytes
    manifest: bytes
    tags: tuple[str, ...]
    layers: tuple[Layer, ...]
    platform: str = PLATFORM

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of its layers' tars, bottom to top."""
        return tuple(layer.diff_id for layer in self.layers)


def of(image: Image, tags: tuple[str, ...], platform: str) -> Loadable:
    """Return a composed image as an engine takes it."""
    return Loadable(config=image.config, manifest=image.manifest, tags=tags, layers=image.layers, platform=platform)


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ChainID of every prefix of ``diff_ids`` (OCI config.md), by which an engine knows unpacked layers."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(sha256(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return tuple(chains)


def prefix(layers: Sequence[Layer], platform: str = PLATFORM) -> Loadable:
    """Return the nameless image of the lowest layers of another, which makes an engine unpack them early."""
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    labels = {"torchstrata.prefix": str(len(layers))}
    config = canonical({**platform_fields(platform), "config": {"Cmd": ["true"], "Labels": labels}, "rootfs": rootfs})
    return Loadable(config=config, manifest=manifest(layers, config), tags=(), layers=tuple(layers), platform=platform)


def stream(images: Sequence[Loadable], layers: Iterable[Layer], open_blob: OpenBlob) -> Iterator[bytes]:
    """Yield the archive of ``images`` with the blobs of ``layers`` only, up to the :data:`END` that the caller sends.

    Images carry no names: whoever loads them names them once they have been checked, so that a name never points to an
    image that is not whole.
    """
    yield from _member("oci-layout", oci.LAYOUT)
    yield from _member("index.json", canonical(_index(images)))
    yield from _member("manifest.json", canonical([_saved(image) for image in images]))
    for data in dict.fromkeys(chain.from_iterable((image.config, image.manifest) for image in images)):
        yield from _member(_path(sha256(data)), data)
    for layer in {layer.digest: layer for layer in layers}.values():
        yield _header(_path(layer.digest), layer.size)
        with open_blob(layer.digest).open("rb") as blob:
            while chunk := blob.read(CHUNK):
                yield chunk
        yield bytes(-layer.size % BLOCK)


def _index(images: Sequence[Loadable]) -> dict[str, Any]:
    return {"schemaVersion": 2, "manifests": [_described(image) for image in images]}


def _described(image: Loadable) -> dict[str, Any]:
    return {**descriptor(MANIFEST, image.manifest), "platform": platform_fields(image.platform)}


def _saved(image: Loadable) -> dict[str, Any]:
    return {"Config": _path(sha256(image.config)), "RepoTags": None, "Layers": [_path(layer.digest) for layer in image.layers]}


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf()


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data))
    yield data + bytes(-len(data) % BLOCK)
