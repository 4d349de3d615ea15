"""The record of an image: what it was made from and what is in it, as one JSON document that travels with the image.

:mod:`torchstrata.attestations.made` writes it. SBOM and provenance are views of it
(:mod:`torchstrata.attestations.sbom`, :mod:`torchstrata.attestations.provenance`), and two images are compared by
their records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from torchstrata import decoding
from torchstrata.errors import UntrustedError
from torchstrata.image.compose import canonical
from torchstrata.locks.lockfile import Pin

SCHEMA: Final = 1
MEDIA_TYPE: Final = "application/vnd.torchstrata.record.v1+json"


class SourceRepository(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the inputs of the image are kept.

    :param repository: its URL, if git knows one.
    """

    revision: str
    repository: str = ""


class Deb(msgspec.Struct, frozen=True, kw_only=True):
    """A Debian package that a toolchain was made from."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str


class Tools(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is no package of the OS nor of Python: what the lock of a toolchain pins.

    :param package: the compiler's, where it comes as one; the field is older than ``libraries``.
    """

    name: str
    package: Deb | None = None
    libraries: tuple[Deb, ...] = ()
    wheels: tuple[Pin, ...]

    @property
    def packages(self) -> tuple[Deb, ...]:
        """All Debian packages, the compiler's first."""
        return (*((self.package,) if self.package else ()), *self.libraries)


class Inputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the image was made from.

    :param lock: digest of the wheels' lock, in hex; the label ``torchstrata.lock`` has it too.
    :param lock_seen: no wheel that was uploaded later is in the lock.
    :param os_lock: digest of the OS lock up to the flavour, in hex.
    :param os_image: registry reference with digest, or ``mmdebstrap`` with the suite and the identity of the call.
    :param drift: OS packages that are not as locked.
    """

    lock: str
    lock_seen: str
    os_lock: str
    os_lock_date: str
    os_image: str
    codec: str
    toolchain: Tools | None = None
    drift: tuple[str, ...] = ()


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system, such as ``debian13``, ``debian``, ``13``, ``trixie``, and its Python's minor version."""

    id: str
    distribution: str
    release: str
    suite: str
    python: str


class Torch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """torch and what it needs of a host; versions as in the compatibility facts, CPU images have no CUDA.

    :param asked_cuda: the CUDA of the cell's name, whose hosts the image serves.
    """

    version: str
    wheels: str
    git: str
    cuda: str | None = None
    asked_cuda: str | None = None
    cudnn: str | None = None
    nccl: str | None = None
    nvcc: str | None = None
    driver_floor: str | None = None
    architectures: tuple[str, ...] = ()


class RecordedLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A layer, bottom to top; ``part`` is the identity of what it was made as, and the facts layer has none."""

    title: str
    origin: str
    digest: str
    diff_id: str
    media_type: str
    size: int
    unpacked: int
    part: str = ""


UNSHOWN: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves cursors, ends lines or turns letters around; other odd characters may be part of the name of a licence."""

Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+!~:%-]*\Z", max_length=300)]
"""Names and versions of packages: they become lines for pip and apt, where white space would begin something else."""


class LockedWheel(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package as locked, with its licence as an SPDX expression; an empty one says nothing."""

    name: Word
    version: Word
    filename: Word
    sha256: Word
    size: int
    licence: str


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An OS package as dpkg has it in the image."""

    name: Word
    version: Word
    architecture: Word
    source: str
    source_version: str
    licence: str


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one image.

    :param platforms: of the image's row, if they are several; then an index that lists the image lists all of them.
    :param user: numeric ``uid:gid`` that containers start as; it tells the named variant from the flavour.
    :param digest: of the manifest.
    :param config: digest of the config.
    :param size: compressed bytes of all layers.
    :param licences: the words that ``LicenseRef-`` names stand for.
    """

    schema: int
    tool: str
    name: str
    cell: str
    flavour: str
    user: str
    platform: str
    os: System
    created: str
    digest: str
    config: str
    size: int
    unpacked: int
    source: SourceRepository
    inputs: Inputs
    torch: Torch
    layers: tuple[RecordedLayer, ...]
    wheels: tuple[LockedWheel, ...]
    packages: tuple[Package, ...]
    licences: dict[str, str]
    platforms: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it in its one form."""
        return canonical(msgspec.to_builtins(self))


def decode(data: bytes) -> Record:
    """Return the record that ``data`` is.

    :raises UntrustedError: it is none of a schema that is known.
    """
    try:
        decoded = decoding.decode(data, Record)
    except msgspec.DecodeError as error:
        raise UntrustedError(f"this is no record: {error}", fix="read it with the version of this program that wrote it") from error
    if any(map(UNSHOWN.search, _texts(msgspec.to_builtins(decoded)))):
        raise UntrustedError("this is no record: it has characters that cannot be shown", fix="find out who has attached it, and remove it")
    if decoded.schema != SCHEMA:
        raise UntrustedError(f"this is a record of schema {decoded.schema}, not {SCHEMA}", fix="read it with the version of this program that wrote it")
    return decoded


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in what JSON may hold."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
