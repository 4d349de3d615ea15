"""Bytes that are counted and hashed on their way: into an unfinished file, or out of a stream."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

from torchstrata.host.filesystem import disk, write_all
from torchstrata.progress import ignore
from torchstrata.store.codec import Readable, Stream


class Sink:
    """A file under a temporary name, which counts and hashes what is written to it; a context manager.

    Nothing is left of a block that ends in an exception.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / uuid.uuid4().hex
        self.size = 0
        self._hash = hashlib.sha256()
        with disk(self.path):
            self._file = self.path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append; the bytes are on their way to the disk afterwards."""
        with disk(self.path):
            write_all(self._file, data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> str:
        """Wait until the disk has everything; return the digest, ``sha256:...``."""
        with disk(self.path), self._file:
            os.fsync(self._file.fileno())
        return f"sha256:{self._hash.hexdigest()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)


class HashingReader(Stream):
    """A stream that hashes and counts what is read from another, and hands it on."""

    def __init__(self, stream: Readable, copy: Callable[[bytes], object] = ignore) -> None:
        super().__init__()
        self.size = 0
        self._stream, self._copy = stream, copy
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Digest of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes."""
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        self._copy(data)
        return data
