"""A directory with images, as an OCI image layout (image specification 1.1, image-layout.md), as origin and as target of copies.

``index.json`` names every tag, and lists without a name what refers to another manifest, where clients such as oras look for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from torchstrata.content.codec import CHUNK
from torchstrata.content.compose import MANIFEST, canonical, sha256
from torchstrata.content.digest import DIGEST, file_name
from torchstrata.content.store import disk
from torchstrata.distribution.client import Manifest
from torchstrata.distribution.reference import TAG
from torchstrata.distribution.registry import Referrer
from torchstrata.distribution.upload import OnBytes, Sent, Source
from torchstrata.errors import AbsentError, IntegrityError
from torchstrata.mirroring.replica import Copy, referrer

NAME: Final = "org.opencontainers.image.ref.name"
VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'

DAMAGED: Final = "copy it again: remove the file first, or the whole directory"


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The layout below ``root``.

    :param complete: writes what else belongs there, before the index names anything.
    """

    root: Path
    complete: Callable[[Directory, Copy], None] = lambda *_: None

    def __str__(self) -> str:
        return str(self.root)

    # As origin

    @functools.cached_property
    def listed(self) -> tuple[Mapping[str, Any], ...]:
        """Descriptors in the index, none if there is none yet.

        :raises IntegrityError: it is no index.
        """
        path = self.root / "index.json"
        if not path.exists():
            return ()
        try:
            found = json.loads(path.read_bytes())["manifests"]
            return tuple(each for each in found if DIGEST.fullmatch(each["digest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path} is no index of an OCI image layout: {error}", fix=DAMAGED) from error

    @property
    def tags(self) -> Mapping[str, str]:
        """Digest by tag."""
        named = ((each.get("annotations", {}).get(NAME), each["digest"]) for each in self.listed)
        return {tag: digest for tag, digest in named if tag and TAG.fullmatch(tag)}

    def find(self, reference: str) -> str | None:
        """Return the digest that a tag or digest names."""
        known = {each["digest"] for each in self.listed}
        return reference if reference in known else self.tags.get(reference)

    def manifest(self, digest: str) -> Manifest:
        """Return a manifest, verified.

        :raises AbsentError: it is not there.
        :raises IntegrityError: it has other bytes.
        """
        listed = next((each["mediaType"] for each in self.listed if each["digest"] == digest), MANIFEST)
        return Manifest(self.content(digest), listed, digest)

    def content(self, digest: str) -> bytes:
        """Return a small blob, verified.

        :raises AbsentError: it is not there.
        :raises IntegrityError: it has other bytes.
        """
        path = self.path(digest)
        if not path.exists():
            raise AbsentError(f"{self.root} has no {digest}", fix="copy it again: it goes on where it stopped")
        content = path.read_bytes()
        if sha256(content) != digest:
            raise IntegrityError(f"{path} has other bytes than its name says", fix=DAMAGED)
        return content

    def referrers(self, digest: str) -> tuple[Referrer, ...]:
        """Return what refers to a manifest."""
        return self._referrers.get(digest, ())

    @functools.cached_property
    def _referrers(self) -> Mapping[str, tuple[Referrer, ...]]:
        found: dict[str, tuple[Referrer, ...]] = {}
        for digest in dict.fromkeys(each["digest"] for each in self.listed):
            manifest = self.manifest(digest)
            subject = (json.loads(manifest.body).get("subject") or {}).get("digest")
            if subject:
                found[subject] = (*found.get(subject, ()), referrer(manifest))
        return found

    @contextlib.contextmanager
    def source(self, digest: str, size: int) -> Iterator[Source]:
        """Yield a blob.

        :raises AbsentError: it is not there.
        :raises IntegrityError: it has another size.
        """
        path = self.path(digest)
        if not path.exists():
            raise AbsentError(f"{self.root} has no {digest}", fix="copy it again: it goes on where it stopped")
        if path.stat().st_size != size or not Source.file(path, digest).is_intact():
            raise IntegrityError(f"{path} has other bytes than its name says", fix=DAMAGED)
        yield Source.file(path, digest)

    # As target

    def path(self, digest: str) -> Path:
        """Return where a blob is."""
        return self.root / "blobs" / "sha256" / file_name(digest)

    def has(self, digest: str, size: int) -> bool:
        """Return whether a blob is there; it got its name when it was whole."""
        path = self.path(digest)
        return path.exists() and path.stat().st_size == size

    def take(self, source: Source, on_bytes: OnBytes) -> Sent:
        """Take a blob.

        :raises IntegrityError: it has other bytes.
        :raises DiskFullError: there is no space left.
        """
        with source.open() as stream:
            self._write(self.path(source.digest), stream, source.digest, on_bytes)
        return Sent(way="sent", size=source.size)

    def put(self, manifest: Manifest) -> None:
        """Take a manifest."""
        self.write(self.path(manifest.digest), manifest.body)

    def finish(self, copy: Copy) -> None:
        """Write what else belongs there, and the index last."""
        self.complete(self, copy)
        self.write(self.root / "oci-layout", VERSION)
        kept = [each for each in self.listed if not _replaced(each, copy)]
        described = [entry for digest, manifest in copy.manifests.items() for entry in _described(manifest, copy.names(digest))]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [*kept, *described]}
        self.write(self.root / "index.json", canonical(index))

    def write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Write a small file, so that nobody ever sees half of it."""
        partial = path.with_name(f".{path.name}.partial")
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.chmod(mode)
            partial.replace(path)

    def _write(self, path: Path, stream: IO[bytes], digest: str, on_bytes: OnBytes) -> None:
        partial, seen = path.with_name(f".{path.name}.partial"), hashlib.sha256()
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                while data := stream.read(CHUNK):
                    seen.update(data)
                    file.write(data)
                    on_bytes(len(data))
                file.flush()
                os.fsync(file.fileno())
            if f"sha256:{seen.hexdigest()}" != digest:
                raise IntegrityError(f"what should be {digest} has other bytes", fix="copy it again; if it stays so, the origin is damaged")
            partial.replace(path)


def _replaced(listed: Mapping[str, Any], copy: Copy) -> bool:
    """Return whether an entry of an older index is described anew: the manifest was copied again, or its tag names another."""
    tag = listed.get("annotations", {}).get(NAME)
    return tag in copy.tags if tag else listed["digest"] in copy.manifests


def _described(manifest: Manifest, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a manifest: one for each of its names, or one without."""
    base = referrer(manifest).descriptor
    if not json.loads(manifest.body).get("artifactType"):
        base.pop("artifactType")
    for name in names or [""]:
        annotations = {**base.get("annotations", {}), **({NAME: name} if name else {})}
        yield {**{key: value for key, value in base.items() if key != "annotations"}, **({"annotations": annotations} if annotations else {})}
