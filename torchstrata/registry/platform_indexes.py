"""Indexes in a registry: the images of one name for all platforms of a row, found, checked, and put under one tag.

Each platform's images are pushed by themselves, perhaps by machines of their own, under their own dated tags. An index
is made of them only when every platform is there, made from the same revision; until then no tag of the name moves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torchstrata.errors import AbsentError, ImageIndexError
from torchstrata.image import image_index, oci
from torchstrata.image.compose import MANIFEST
from torchstrata.image.image_index import ImageIndex, PlatformImage
from torchstrata.matrix.matrix import Cell
from torchstrata.progress import ignore
from torchstrata.registry import dated_tag, push
from torchstrata.registry.client import Manifest
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.registry import Registry
from torchstrata.text import printable

SAME: Final = ("torchstrata.cell", "torchstrata.flavour", "torchstrata.torch", "torchstrata.os")
"""Labels that the images of an index have in common."""

REVISION: Final = "org.opencontainers.image.revision"

AttachIndex = Callable[[Registry, str, ImageIndex], None]
"""Signs an index that is in the registry and attaches its record, before it gets its tags."""


def images(registry: Registry, repository: str, index: Manifest, name: str) -> Mapping[str, Manifest]:
    """Return the manifest of each image of an index by its platform.

    :param name: of the index, for messages.
    :raises ImageIndexError: it is no index of this program; or an image of it is gone, or says that it is another one.
    """
    return {listed.platform: _image(registry, repository, listed, name) for listed in image_index.read(index.body, name).images}


def _image(registry: Registry, repository: str, listed: PlatformImage, name: str) -> Manifest:
    try:
        manifest = registry.manifest(repository, listed.digest)
        if (manifest.media_type, len(manifest.body)) != (MANIFEST, listed.size):
            what = f"{len(manifest.body)} bytes of {manifest.media_type}"
            raise ImageIndexError(f"{name} lists {listed.digest} as what it is not: it is {what}", fix=image_index.REMEDY)
        says = image_index.of_config(registry.image_config(repository, listed.digest))
    except AbsentError as error:
        raise ImageIndexError(f"{name} has no image for {listed.platform} any more: {listed.digest} is gone", fix=image_index.REMEDY) from error
    if says != listed.platform:
        raise ImageIndexError(f"{name} lists {listed.digest} for {listed.platform}, and it is for {printable(says or 'none')}", fix=image_index.REMEDY)
    return manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Joiner:
    """Makes indexes in one repository.

    :param attach: called for each index between its manifest and its tags.
    """

    registry: Registry
    repository: str
    attach: AttachIndex = ignore

    def find(self, cell: Cell, image: str, revisions: Mapping[str, str], until: PushNumber | None = None) -> ImageIndex:
        """Return the index of what was pushed last of an image, for every platform of its row.

        :param revisions: what the image of each platform must be made from, as it says itself.
        :param until: leave out what was pushed after that.
        :raises ImageIndexError: a platform was not pushed, is another image, or is of another revision; it is named.
        """
        tags, name = self.registry.tags(self.repository), f"{cell.id}-{image}"
        last = {platform: dated_tag.last(dated_tag.stem(cell, image, platform), tags, until) for platform in cell.platforms}
        if missing := [platform for platform, tag in last.items() if tag is None]:
            raise ImageIndexError(f"{name} was not pushed for {', '.join(missing)}", fix=_push(cell, missing[0]))
        manifests = {platform: self.registry.manifest(self.repository, str(tag)) for platform, tag in last.items() if tag}
        configs = {platform: self.registry.image_config(self.repository, manifest.digest) for platform, manifest in manifests.items()}
        _check_alike(cell, name, configs, revisions)
        platform_images = tuple(PlatformImage(platform=platform, digest=manifest.digest, size=len(manifest.body)) for platform, manifest in manifests.items())
        return ImageIndex(name=name, images=platform_images)

    def tag(self, cell: Cell, image: str, index: ImageIndex) -> str:
        """Return the dated tag of an index: of today, or the last one if it has not changed since."""
        start, today = dated_tag.stem(cell, image), dt.datetime.now(dt.UTC).date()
        return push.dated(self.registry, self.repository, start, index.digest, self.registry.tags(self.repository), today)

    def put(self, index: ImageIndex, *tags: str) -> None:
        """Push an index whose images are there: by digest, what is attached to it, and its tags last.

        :raises ImmutableTagError: a tag that never moves points to something else; nothing was sent then.
        """
        for tag in filter(dated_tag.is_dated, tags):
            push.check_tag(self.registry, self.repository, tag, index.digest)
        self.registry.put_manifest(self.repository, index.digest, index.body, oci.INDEX)
        self.attach(self.registry, self.repository, index)
        for tag in tags:
            self.registry.put_manifest(self.repository, tag, index.body, oci.INDEX, immutable=dated_tag.is_dated(tag))


def _check_alike(cell: Cell, name: str, configs: Mapping[str, oci.ImageConfig], revisions: Mapping[str, str]) -> None:
    """Refuse images that are not the same one for several platforms.

    :raises ImageIndexError: one is for another platform than its tag says, another image than the first, or older.
    """
    first = next(iter(configs.values()))
    expected = {"user": first.user, **{label: first.labels.get(label) for label in SAME}, "torchstrata.cell": cell.id}
    for platform, config in configs.items():
        says = image_index.of_config(config)
        if says != platform:
            raise ImageIndexError(f"{name} for {platform} is an image for {printable(says or 'none')}", fix=_push(cell, platform))
        for label, value in expected.items():
            actual = config.user if label == "user" else config.labels.get(label)
            if actual != value:
                raise ImageIndexError(
                    f"{name} for {platform} is another image: its {label} is {printable(str(actual))}, not {value}", fix=_push(cell, platform)
                )
        if config.labels.get(REVISION) != revisions[platform]:
            other = printable(str(config.labels.get(REVISION)))[:12]
            raise ImageIndexError(f"{name} for {platform} was made from {other}, and not from {revisions[platform][:12]}", fix=_push(cell, platform))


def _push(cell: Cell, platform: str) -> str:
    return f"push it from this commit: inv push {cell.names[0]} --platform {platform}"
