"""Images in a directory, as an OCI image layout (image specification 1.1, image-layout.md)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Final

from torchstrata.errors import IntegrityError
from torchstrata.host.filesystem import OTHER_DIRECTORY, disk, refuse_links, whole
from torchstrata.image import image_index, oci
from torchstrata.image.compose import MANIFEST, canonical, descriptor, sha256
from torchstrata.image.image_index import PlatformImage
from torchstrata.image.loadable import Loadable
from torchstrata.store import store as stores
from torchstrata.store.codec import CHUNK
from torchstrata.store.digest import digest_of, file_name
from torchstrata.store.layer import Layer
from torchstrata.store.store import Store

ELSEWHERE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""How systems say that they cannot copy within the kernel."""


def write(directory: Path, images: Sequence[Loadable], store: Store, *, share: bool = False) -> None:
    """Write ``images`` into ``directory``; the index comes last, so that it never names what is not there.

    A tag that images of several platforms have names an index of them.

    Blobs are copies, which have the disk's blocks in common with the store where the file system can: whoever changes
    one does not change the store. The digest of each is checked as it lies there. Of several writers one writes at a
    time.

    :param share: let blobs be the store's own files, in a directory of the store's that only programs read which
        check digests.
    :raises DiskFullError: there is no space left.
    :raises IntegrityError: a blob in the store is damaged.
    :raises StoreError: the directory cannot be written, or leads elsewhere by a link in it, or the store lacks a blob.
    """
    blobs = directory / "blobs" / "sha256"
    named = {tag: _named(tag, images) for tag in chain.from_iterable(image.tags for image in images)}
    with store.lock(stores.identity(layout=str(directory.absolute()))), disk(directory, OTHER_DIRECTORY):
        refuse_links(directory, blobs / "any")
        blobs.mkdir(parents=True, exist_ok=True)
        for layer in dict.fromkeys(chain.from_iterable(image.layers for image in images)):
            (_share if share else _place)(store, layer, blobs / file_name(layer.digest))
        indexes = [body for body, media_type in named.values() if media_type == oci.INDEX]
        for content in (*chain.from_iterable((image.config, image.manifest) for image in images), *indexes):
            _write(blobs / file_name(sha256(content)), content)
        _write(directory / "oci-layout", oci.LAYOUT)
        described = [_described(tag, *named[tag]) for tag in named]
        _write(directory / "index.json", canonical({"schemaVersion": 2, "manifests": described}))


def _share(store: Store, layer: Layer, target: Path) -> None:
    blob = store.open_blob(layer.digest, layer.size)
    if not target.exists():
        os.link(blob, target)


def _place(store: Store, layer: Layer, target: Path) -> None:
    """Copy a blob, unless it is there already, whole.

    :raises IntegrityError: what was copied has another digest.
    """
    if target.is_file() and not target.is_symlink() and digest_of(target) == layer.digest and target.stat().st_nlink == 1:
        return
    with store.open_blob(layer.digest, layer.size).open("rb") as blob, whole(target) as file:
        _copy(blob, file)
        if digest_of(Path(file.name)) != layer.digest:
            store.forget(layer.digest)
            raise IntegrityError(f"blob {layer.digest} is damaged in {store.root}", fix="build again: it is made anew")


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a file; the kernel copies, or lets both share the bytes, where it can (copy_file_range(2))."""
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
            pass
    except OSError as error:
        if error.errno not in ELSEWHERE:
            raise
    except AttributeError:  # not Linux
        pass
    source.seek(target.seek(0, os.SEEK_END))
    while chunk := source.read(CHUNK):
        target.write(chunk)
    target.flush()


def _write(path: Path, content: bytes) -> None:
    with whole(path) as file:
        file.write(content)


def _named(tag: str, images: Sequence[Loadable]) -> tuple[bytes, str]:
    """Return what a tag names, and its media type: an image, or the index of its images for several platforms.

    :raises ImageIndexError: two of its images are for one platform.
    """
    tagged = [image for image in images if tag in image.tags]
    if len(tagged) == 1:
        return tagged[0].manifest, MANIFEST
    configs = [oci.read(image.config, oci.ImageConfig, tag) for image in tagged]
    listed = tuple(
        PlatformImage(platform=image_index.of_config(config), digest=sha256(image.manifest), size=len(image.manifest))
        for image, config in zip(tagged, configs, strict=True)
    )
    index = image_index.compose(listed)
    image_index.read(index, tag)
    return index, oci.INDEX


def _described(tag: str, body: bytes, media_type: str) -> dict[str, object]:
    return {**descriptor(media_type, body), "annotations": {oci.NAME: tag.rpartition(":")[2]}}
