"""A directory with images, an OCI image layout (image specification 1.1, image-layout.md), to copy from and to.

``index.json`` names every tag, and lists without a name what refers to other manifests, for clients such as oras.

A directory that somebody else has made may hold anything under any name. So only files are read, through no link, no
more of them than they may have, and each manifest as the type that it must be.

:mod:`torchstrata.image.layout` writes layouts of images that were just built, whose blobs share disk blocks with the
store. Here blobs are streams from anywhere, and what earlier copies left stays: one writer for both would do neither.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from torchstrata import progress
from torchstrata.errors import AbsentError, IntegrityError
from torchstrata.host.filesystem import OTHER_DIRECTORY, disk, refuse_links, turn, whole
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.oci import Descriptor
from torchstrata.progress import ignore
from torchstrata.registry.client import SMALL, Manifest
from torchstrata.registry.reference import TAG
from torchstrata.registry.registry import Referrer
from torchstrata.registry.replica import Copy, referrer
from torchstrata.registry.upload import OnBytes, Sent, Source
from torchstrata.store.codec import CHUNK
from torchstrata.store.digest import file_name
from torchstrata.store.sink import HashingReader

DAMAGED: Final = "copy it again: remove the file first, or the whole directory"


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The layout below ``root``.

    :param complete: writes what else belongs there, before the index names anything.
    """

    root: Path
    complete: Callable[[Directory, Copy], None] = ignore

    def __str__(self) -> str:
        return str(self.root)

    # As origin

    @functools.cached_property
    def listed(self) -> tuple[Descriptor, ...]:
        """Descriptors in the index, none if there is none yet.

        :raises IntegrityError: it is no index.
        """
        path = self.root / "index.json"
        if not os.path.lexists(path):
            return ()
        content = _read(self.root, path, oci.LIST_LIMIT)
        return oci.read(content, oci.Index, f"{path}, which is no index of an OCI image layout,", limit=oci.LIST_LIMIT, error=IntegrityError).manifests or ()

    @property
    def tags(self) -> Mapping[str, str]:
        """Digest by tag."""
        named = ((descriptor.annotation(oci.NAME), descriptor.digest) for descriptor in self.listed)
        return {tag: digest for tag, digest in named if tag and TAG.fullmatch(tag)}

    def find(self, reference: str) -> str | None:
        """Return the digest that a tag or digest names."""
        digests = {descriptor.digest for descriptor in self.listed}
        return reference if reference in digests else self.tags.get(reference)

    def manifest(self, digest: str) -> Manifest:
        """Return a manifest, verified.

        :raises AbsentError: it is not there.
        :raises IntegrityError: it has other bytes, or is no manifest.
        """
        listed = next((descriptor.media_type for descriptor in self.listed if descriptor.digest == digest), "")
        content = self.content(digest, oci.MANIFEST_LIMIT)
        own_type = oci.manifest(content, f"manifest {digest[:19]}", listed, IntegrityError).media_type
        return Manifest(content, listed or own_type or MANIFEST, digest)

    def content(self, digest: str, limit: int = SMALL) -> bytes:
        """Return a small blob, verified.

        :param limit: bytes that it may have.
        :raises AbsentError: it is not there.
        :raises IntegrityError: it has other bytes, or too many.
        """
        path = self._present(digest)
        content = _read(self.root, path, limit)
        if sha256(content) != digest:
            raise IntegrityError(f"{path} has other bytes than its name says", fix=DAMAGED)
        return content

    def referrers(self, digest: str) -> tuple[Referrer, ...]:
        """Return what refers to a manifest."""
        return self._referrers.get(digest, ())

    @functools.cached_property
    def _referrers(self) -> Mapping[str, tuple[Referrer, ...]]:
        referrers: dict[str, tuple[Referrer, ...]] = {}
        for digest in dict.fromkeys(descriptor.digest for descriptor in self.listed):
            manifest = self.manifest(digest)
            if subject := manifest.document(IntegrityError).subject:
                referrers[subject.digest] = (*referrers.get(subject.digest, ()), referrer(manifest))
        return referrers

    @contextlib.contextmanager
    def source(self, digest: str, size: int) -> Iterator[Source]:
        """Yield a blob.

        :raises AbsentError: it is not there.
        :raises IntegrityError: it has another size, or other bytes.
        """
        path = self._present(digest)
        source = Source(digest=digest, size=size, open=lambda: _opened(self.root, path))
        with disk(path, OTHER_DIRECTORY):
            if _size(self.root, path) != size or not source.is_intact():
                raise IntegrityError(f"{path} has other bytes than its name says", fix=DAMAGED)
        yield source

    def _present(self, digest: str) -> Path:
        """Return where a blob is.

        :raises AbsentError: it is not there.
        """
        path = self.path(digest)
        if not os.path.lexists(path):
            raise AbsentError(f"{self.root} has no {digest}", fix="copy it again: it goes on where it stopped")
        return path

    # As target

    def path(self, digest: str) -> Path:
        """Return the path of a blob."""
        return self.root / "blobs" / "sha256" / file_name(digest)

    def has(self, digest: str, size: int) -> bool:
        """Return whether a blob is there; it got its name when it was whole."""
        path = self.path(digest)
        return os.path.lexists(path) and _size(self.root, path) == size

    def take(self, source: Source, on_bytes: OnBytes) -> Sent:
        """Take a blob.

        :raises IntegrityError: it has other bytes.
        :raises DiskFullError: there is no space left.
        :raises StoreError: it cannot be written, or a link leads elsewhere.
        """
        with source.open() as stream, self._whole(self.path(source.digest)) as file:
            read = HashingReader(stream, lambda data: on_bytes(len(data)))
            shutil.copyfileobj(read, file, CHUNK)
            if read.digest != source.digest:
                raise IntegrityError(f"what should be {source.digest} has other bytes", fix="copy it again; if it stays so, the origin is damaged")
        return Sent(way="sent", size=source.size)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let one process at a time write there: each takes over what the index says, and adds to it.

        :raises StoreError: there can be no such directory.
        """
        with contextlib.ExitStack() as held:
            with disk(self.root, OTHER_DIRECTORY):
                held.enter_context(turn(self.root, lambda: progress.aside(f"another process is writing to {self.root}; waiting for it")))
            yield

    def put(self, manifest: Manifest) -> None:
        """Take a manifest."""
        self.write(self.path(manifest.digest), manifest.body)

    def finish(self, copy: Copy) -> None:
        """Write what else belongs there, and the index last."""
        self.complete(self, copy)
        self.write(self.root / "oci-layout", oci.LAYOUT)
        unchanged = [msgspec.to_builtins(descriptor) for descriptor in self.listed if not _replaced(descriptor, copy)]
        described = chain.from_iterable(_described(manifest, copy.names(digest)) for digest, manifest in copy.manifests.items())
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*unchanged, *described]}
        self.write(self.root / "index.json", canonical(index))

    def write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Write a small file, so that nobody ever sees half of it.

        :raises StoreError: it cannot be written, or a link leads elsewhere.
        """
        with self._whole(path, mode) as file:
            file.write(content)

    @contextlib.contextmanager
    def _whole(self, path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
        """Yield where to write what becomes ``path`` when the block ends well."""
        with disk(path, OTHER_DIRECTORY):
            refuse_links(self.root, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path, mode) as file:
                yield file


def _size(root: Path, path: Path) -> int:
    """Return the bytes of a file.

    :raises IntegrityError: it is none: reading a pipe, a device or what a link leads to may never end.
    :raises StoreError: a link leads out of ``root``.
    """
    with disk(path, OTHER_DIRECTORY):
        refuse_links(root, path)
        status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(f"{path} is no file", fix=DAMAGED)
    return status.st_size


def _opened(root: Path, path: Path) -> IO[bytes]:
    """Open a file, and nothing that somebody puts in its place meanwhile.

    :raises IntegrityError: it is none.
    """
    _size(root, path)
    with disk(path, OTHER_DIRECTORY):
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise IntegrityError(f"{path} is no file", fix=DAMAGED)
    return file


def _read(root: Path, path: Path, limit: int) -> bytes:
    """Return the content of a file.

    :raises IntegrityError: it is none, or has more bytes than ``limit``.
    """
    with _opened(root, path) as file, disk(path, OTHER_DIRECTORY):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise IntegrityError(f"{path} has more than the {limit} bytes that it may have", fix=DAMAGED)
    return content


def _replaced(listed: Descriptor, copy: Copy) -> bool:
    """Return whether an older index's entry is replaced: its manifest was copied again, or its tag names another."""
    tag = listed.annotation(oci.NAME)
    return tag in copy.tags if tag else listed.digest in copy.manifests


def _described(manifest: Manifest, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a manifest: one for each of its names, or one without."""
    base = referrer(manifest).descriptor
    if not manifest.document().artifact_type:
        base.pop("artifactType")
    for name in names or [""]:
        annotations = {**base.get("annotations", {}), **({oci.NAME: name} if name else {})}
        yield {**{key: value for key, value in base.items() if key != "annotations"}, **({"annotations": annotations} if annotations else {})}
