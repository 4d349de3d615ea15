"""Reads the services that an image declares, and runs nothing in it.

An engine gives the files of a container that never starts; a registry gives the small layers on top.
"""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Final, cast

import zstandard

from torchstrata.building.engine import Engine
from torchstrata.containers import running
from torchstrata.decoding import FIX
from torchstrata.drift.reading import ContainerFiles
from torchstrata.errors import RegistryError, StoreError
from torchstrata.host import temporary
from torchstrata.host.leavings import Leaving
from torchstrata.image import declarations
from torchstrata.image.declarations import LIMIT, OWN, DeclaredService
from torchstrata.image.oci import Descriptor
from torchstrata.image.runtime import ETC
from torchstrata.registry.registry import Registry
from torchstrata.store import codec

SMALL: Final = 1 << 20
"""Bytes of the largest layer that is read; the layer of an image's facts has some tens of kB."""

UNPACKED: Final = 8 << 20
"""Bytes that are read of a layer, unpacked."""

LOOKED_AT: Final = 8
"""Layers that are read, from the top: our images have their facts in the topmost; derived images add layers above."""


def in_engine(engine: Engine, identity: str) -> Mapping[str, DeclaredService]:
    """Return the services of an image of an engine, by name.

    :raises ContainerError: a file that declares them is not what it must be.
    """
    with running.refusals(), temporary.directory() as scratch:  # the container goes with it, even after a kill
        container = Leaving.of("container", f"torchstrata-{uuid.uuid4().hex}").listed(scratch).name
        engine.client.api.create_container(identity, ["true"], name=container)
        files = ContainerFiles(engine, container).below(f"/{ETC}")
    return declarations.read({path.lstrip("/"): content for path, (_, content) in files.items()})


def in_registry(registry: Registry, repository: str, layers: Sequence[Descriptor]) -> Mapping[str, DeclaredService]:
    """Return the services of an image of a registry, by name.

    :param layers: of its manifest, bottom to top.
    :raises ContainerError: a file that declares them is not what it must be.
    :raises RegistryError: a layer cannot be read.
    """
    files: dict[str, bytes] = {}
    for layer in [layer for layer in reversed(layers[-LOOKED_AT:]) if layer.size <= SMALL]:
        blob = registry.content(repository, layer.digest, limit=layer.size)
        files = dict(_files(blob, layer)) | files
        if OWN in files:
            break
    return declarations.read(files)


def _files(blob: bytes, layer: Descriptor) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the files of a layer that declare services."""
    try:
        data = cast("IO[bytes]", codec.decompressor(io.BytesIO(blob), layer.media_type)).read(UNPACKED)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if declarations.is_declaration(path) and (file := archive.extractfile(member)):
                    yield path, file.read(LIMIT + 1)
    except (tarfile.TarError, zstandard.ZstdError, OSError, EOFError, StoreError) as error:
        raise RegistryError(f"layer {layer.digest[:19]} cannot be read: {error}", fix=FIX) from error
