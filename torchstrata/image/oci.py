"""Documents of the OCI specifications, from registries and directories: read as types, within limits, or refused.

Image specification 1.1: descriptor.md, manifest.md, image-index.md, config.md. Distribution specification 1.1: lists
of tags and of referrers. Fields that nothing here asks for may be anything. ``urls`` of a descriptor are such:
nothing is fetched from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from torchstrata import decoding
from torchstrata.decoding import FIX
from torchstrata.errors import RegistryError, TorchstrataError
from torchstrata.store.digest import Digest
from torchstrata.store.layer import Size

T = TypeVar("T")

MANIFEST_LIMIT: Final = 4 << 20
"""Bytes of a manifest or an index: the limit of registries (distribution specification, "Pushing Manifests")."""

CONFIG_LIMIT: Final = 8 << 20
"""Bytes of the config of an image or a part."""

LIST_LIMIT: Final = 32 << 20
"""Bytes of a list of tags or referrers, all its pages together; of the index of a directory, too."""

INDEX: Final = "application/vnd.oci.image.index.v1+json"

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""Content of the file ``oci-layout`` (image-layout.md)."""

NAME: Final = "org.opencontainers.image.ref.name"
"""Annotation of an index with the tag of an image."""

MediaType = Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{0,255}\Z")]
"""Without white space and parameters; it becomes a header of HTTP."""

Tag = Annotated[str, msgspec.Meta(pattern=r"\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")]


PORT: Final = re.compile("([1-9][0-9]{0,4})(?:/(?:tcp)?)?")


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an image of an index runs on."""

    os: str = ""
    architecture: str = ""

    @property
    def name(self) -> str:
        """Such as ``linux/arm64``; nothing if it does not say both."""
        return f"{self.os}/{self.architecture}" if self.os and self.architecture else ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What one document says of another, or of a blob."""

    digest: Digest
    size: Size
    media_type: MediaType = ""
    artifact_type: MediaType | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    def annotation(self, name: str) -> str:
        """Return an annotation; nothing if there is none."""
        return (self.annotations or {}).get(name, "")


class ManifestOrIndex(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A manifest or an index; one that would be both is refused, since readers would see different images in it."""

    media_type: MediaType = ""
    artifact_type: MediaType | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers."""
        return (*([self.config] if self.config else []), *(self.layers or ()))

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests of an index."""
        return self.manifests or ()


class TagList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the tags of a repository."""

    tags: tuple[Tag, ...] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """An index, or a page of referrers."""

    manifests: tuple[Descriptor, ...] | None


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, rename={"user": "User", "labels": "Labels", "exposed_ports": "ExposedPorts"}):
    """What an image says of its containers, as far as it is asked for."""

    user: str = ""
    labels: dict[str, str] | None = None
    exposed_ports: dict[str, Any] | None = None


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of an image as tars."""

    diff_ids: tuple[Digest, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The config of an image, as far as it is asked for."""

    os: str = ""
    architecture: str = ""
    config: RunConfig | None = None
    rootfs: RootFs | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return (self.config.labels if self.config else None) or {}

    @property
    def user(self) -> str:
        """Its user."""
        return self.config.user if self.config else ""

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports that its services listen on."""
        return tcp_ports((self.config.exposed_ports if self.config else None) or ())


def tcp_ports(exposed: Iterable[str]) -> tuple[int, ...]:
    """Return the TCP ports among what an image exposes (``8888/tcp``), sorted."""
    matches = map(PORT.fullmatch, exposed)
    return tuple(sorted(int(match[1]) for match in matches if match))


def read(data: bytes, kind: type[T], name: str, *, limit: int = CONFIG_LIMIT, error: type[TorchstrataError] = RegistryError) -> T:
    """Return what a document says.

    :param name: of the document, for the message.
    :param limit: bytes that it may have.
    :param error: what to raise if it is none of its kind.
    :raises RegistryError: it is no such document; ``error`` names another class.
    """
    return decoding.read(data, kind, name, limit=limit, error=error)


def manifest(data: bytes, name: str, media_type: str = "", error: type[TorchstrataError] = RegistryError) -> ManifestOrIndex:
    """Return what a manifest or an index says.

    :param media_type: by which it was told; nothing if that says nothing.
    :raises RegistryError: it is neither, or says that it has another type; ``error`` names another class.
    """
    document = read(data, ManifestOrIndex, name, limit=MANIFEST_LIMIT, error=error)
    if document.manifests is not None and (document.layers is not None or document.config is not None):
        raise error(f"{name} would be an image and an index at once", fix=FIX)
    if media_type and document.media_type and document.media_type != media_type:
        raise error(f"{name} calls itself {document.media_type}, and comes as {media_type}", fix=FIX)
    return document
