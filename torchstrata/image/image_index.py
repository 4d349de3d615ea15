"""One name for the images of several platforms: an image index (OCI image specification 1.1, image-index.md). Pure.

An index of this program has exactly one form for its images: sorted by platform, without dates and annotations. So
the same images always make the same index, and an index that is not byte for byte what its images make is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torchstrata.errors import ImageIndexError
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, canonical, platform_fields, sha256
from torchstrata.text import printable

MOST_IMAGES: Final = 16
"""Images of one index; each of them is asked for."""

REMEDY: Final = "do not use it; push every platform of the row, then join them: inv join CELL"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformImage:
    """An image of an index.

    :param platform: such as ``linux/arm64``.
    :param digest: of its manifest.
    :param size: bytes of its manifest.
    """

    platform: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIndex:
    """The images of one name, for two or more platforms.

    :param name: cell and flavour, such as ``2.15-cu132-debian13-devel``.
    :param images: in any order; their platforms differ.
    """

    name: str
    images: tuple[PlatformImage, ...]

    @property
    def body(self) -> bytes:
        """The index itself, as canonical JSON."""
        return compose(self.images)

    @property
    def digest(self) -> str:
        """The digest by which it is known."""
        return sha256(self.body)

    @property
    def digests(self) -> Mapping[str, str]:
        """Digest of each image by its platform, sorted."""
        return {image.platform: image.digest for image in sorted(self.images, key=lambda image: image.platform)}


def compose(images: Sequence[PlatformImage]) -> bytes:
    """Return the one index of some images."""
    described = [_described(image) for image in sorted(images, key=lambda image: image.platform)]
    return canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": described})


def _described(image: PlatformImage) -> dict[str, object]:
    platform = platform_fields(image.platform)
    return {"mediaType": MANIFEST, "digest": image.digest, "size": image.size, "platform": platform}


def of_config(config: oci.ImageConfig) -> str:
    """Return the platform that an image says it is for, such as ``linux/arm64``; nothing if it does not say."""
    return f"{config.os}/{config.architecture}" if config.os and config.architecture else ""


def read(body: bytes, name: str) -> ImageIndex:
    """Return the images that an index lists.

    :param name: of the index, for messages.
    :raises RegistryError: it is no index at all.
    :raises ImageIndexError: it lists a platform twice, or another index, or what is no image, or too much; or it is
        not what its images make.
    """
    listed = oci.manifest(body, name, oci.INDEX).children
    if not 0 < len(listed) <= MOST_IMAGES:
        raise ImageIndexError(f"{name} lists {len(listed)} images, and may list 1 to {MOST_IMAGES}", fix=REMEDY)
    for child in listed:
        _check_kind(child, name)
    images = tuple(PlatformImage(platform=_platform(child), digest=child.digest, size=child.size) for child in listed)
    twice = [platform for platform, count in Counter(image.platform for image in images).items() if count > 1]
    if twice:
        raise ImageIndexError(f"{name} has {printable(twice[0])} twice, so that nodes may run either", fix=REMEDY)
    index = ImageIndex(name=name, images=images)
    if index.body != body:
        raise ImageIndexError(f"{name} is not as this program writes an index of these images", fix=REMEDY)
    return index


def _check_kind(listed: oci.Descriptor, name: str) -> None:
    """Refuse what no index of ours lists: another index, what is no OCI image, an image without a platform."""
    if listed.media_type != MANIFEST:
        kind = "another index" if listed.media_type == oci.INDEX else printable(listed.media_type or "something without a type")
        raise ImageIndexError(f"{name} lists {kind}, {listed.digest[:19]}, where an image must be", fix=REMEDY)
    if not _platform(listed):
        raise ImageIndexError(f"{name} does not say which platform {listed.digest[:19]} is for", fix=REMEDY)


def _platform(listed: oci.Descriptor) -> str:
    return listed.platform.name if listed.platform else ""


def require(present: Collection[str], wanted: Collection[str], name: str) -> None:
    """Refuse images that are not those of exactly the platforms that there must be.

    :param name: of what they belong to, for messages.
    :raises ImageIndexError: one is missing, or is one too many; it is named.
    """
    if missing := sorted(set(wanted) - set(present)):
        raise ImageIndexError(f"{name} has no image for {', '.join(missing)}", fix=REMEDY)
    if foreign := sorted(set(present) - set(wanted)):
        raise ImageIndexError(f"{name} has an image for {printable(', '.join(foreign))}, which its row does not have", fix=REMEDY)
