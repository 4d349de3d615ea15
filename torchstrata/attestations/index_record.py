"""The record of an index: its image for each platform, as one JSON document that is attached to it and signed.

What each image was made from is in its own record (:mod:`torchstrata.attestations.record`); this one names them all.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

import torchstrata
from torchstrata import decoding
from torchstrata.attestations.record import Word
from torchstrata.errors import UntrustedError
from torchstrata.image import oci
from torchstrata.image.compose import canonical
from torchstrata.image.image_index import MOST_IMAGES, ImageIndex
from torchstrata.store.digest import Digest

INDEX_SCHEMA: Final = 1
INDEX_TYPE: Final = "application/vnd.torchstrata.index.v1+json"

PlatformKey = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+/[a-z0-9]+\Z", max_length=64)]


class IndexRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one index.

    :param digest: of the index.
    :param images: digest of each image's manifest, by platform.
    :param user: numeric ``uid:gid`` that containers start as, as in the images' records.
    """

    schema: int
    tool: str
    name: Word
    cell: Word
    flavour: Word
    user: str
    digest: Digest
    images: Annotated[dict[PlatformKey, Digest], msgspec.Meta(min_length=1, max_length=MOST_IMAGES)]

    def encode(self) -> bytes:
        """Return it in its one form."""
        return canonical(msgspec.to_builtins(self))


def of(index: ImageIndex, config: oci.ImageConfig) -> IndexRecord:
    """Return the record of an index.

    :param config: of one of its images; in what is taken from it they are alike.
    """
    return IndexRecord(
        schema=INDEX_SCHEMA,
        tool=torchstrata.__version__,
        name=index.name,
        cell=config.labels["torchstrata.cell"],
        flavour=config.labels["torchstrata.flavour"],
        user=config.user,
        digest=index.digest,
        images=dict(index.digests),
    )


def decode(data: bytes) -> IndexRecord:
    """Return the record that ``data`` is.

    :raises UntrustedError: it is none of a schema that is known.
    """
    try:
        decoded = decoding.decode(data, IndexRecord)
    except msgspec.DecodeError as error:
        raise UntrustedError(f"this is no record of an index: {error}", fix="read it with the version of this program that wrote it") from error
    if decoded.schema != INDEX_SCHEMA:
        raise UntrustedError(f"this is a record of schema {decoded.schema}, not {INDEX_SCHEMA}", fix="read it with the version of this program that wrote it")
    return decoded
