"""One layer of an image, as the OCI image specification describes it, and what lies in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from torchstrata.platforms import PLATFORM as PLATFORM  # noqa: PLC0414  # most rooms know it by this module
from torchstrata.store.digest import Digest

EPOCH: Final = 315_619_200
"""Modification time of every file in a layer: 1980-01-02 UTC, the first day of zip archives in every time zone."""

PAYLOAD_ROOTS: Final = ("opt/venv", "opt/cuda")
"""Paths of the payload and of an image's user; ``opt/cuda`` stands for every path that begins with it."""

Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 45)]
"""Bytes, 32 TiB at most."""

OpenBlob = Callable[[str], Path]
"""Returns the file of a blob by its digest."""

EntryKind = Literal["dir", "file", "link", "whiteout", "opaque"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A compressed tar in the content store.

    :param digest: ``sha256:...`` of the compressed bytes.
    :param diff_id: ``sha256:...`` of the tar.
    :param size: compressed bytes.
    :param unpacked: bytes of the tar.
    :param media_type: OCI media type, which names the compression.
    :param title: one line for the image's history, such as ``torch 2.8.0``.
    """

    digest: Digest
    diff_id: Digest
    size: Size
    unpacked: Size
    media_type: str
    title: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path of a layer: without leading ``/`` or ``./``, without trailing ``/``; whiteouts carry the hidden path.

    :param content: of a file in a wheel, hash and size; of a link that torchstrata makes, its target; else empty.
    """

    path: str
    kind: EntryKind
    content: str = ""


def in_payload(path: str) -> bool:
    """Return whether a path belongs to the payload rather than to the operating system."""
    venv, cuda = PAYLOAD_ROOTS
    return path == venv or path.startswith((f"{venv}/", cuda))
