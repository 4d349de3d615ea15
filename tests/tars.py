"""Tars: small ones that tests make, and those of layers that a store holds."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, cast

from torchstrata.store.codec import decompressor
from torchstrata.store.layer import Layer
from torchstrata.store.store import Store


def packed(files: Mapping[str, bytes], mode: str = "w", *, mtime: float = 0, rights: int = 0o644) -> bytes:
    """Return a tar of files, content by path."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]  # any mode that writes
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.mode = len(content), mtime, rights
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


@contextlib.contextmanager
def opened(store: Store, layer: Layer) -> Iterator[tarfile.TarFile]:
    """Open the tar of a layer."""
    with store.open_blob(layer.digest).open("rb") as blob:
        stream = cast("IO[bytes]", decompressor(blob, layer.media_type))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            yield archive
