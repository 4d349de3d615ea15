"""The client of a registry, with what is attached to images: signatures, SBOMs, records.

Distribution specification 1.1, "Listing Referrers", with the fallback for registries that lack that API ("Referrers Tag Schema":
an index under the tag ``sha256-HEX``), which other clients read and write too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torchstrata import decoding
from torchstrata.errors import AbsentError, RegistryError
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.oci import Descriptor
from torchstrata.registry.client import Client, Found
from torchstrata.registry.upload import Source
from torchstrata.store.digest import checked

EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
EMPTY: Final = b"{}"
"""The config of an artifact that has none (image specification, "Guidelines for Artifact Usage")."""

TITLE: Final = "org.opencontainers.image.title"

WRITES: Final = 5
"""Times that an index is read again, since another client may have written it meanwhile."""

_writing = threading.Lock()
"""One writer of fallback indexes in this process at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """A file to attach; ``title`` is the name under which ``oras pull`` writes it."""

    content: bytes
    media_type: str
    title: str = ""

    @property
    def descriptor(self) -> dict[str, Any]:
        """Its descriptor."""
        annotations = {"annotations": {TITLE: self.title}} if self.title else {}
        return {"mediaType": self.media_type, "digest": sha256(self.content), "size": len(self.content), **annotations}


@dataclass(frozen=True, kw_only=True, slots=True)
class Referrer:
    """A manifest that refers to another."""

    digest: str
    size: int
    artifact_type: str
    media_type: str = MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptor(self) -> dict[str, Any]:
        """Its descriptor in an index."""
        annotations = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, "artifactType": self.artifact_type, **annotations}


class Registry(Client):
    """The registry at ``host``: everything that a client does, and referrers."""

    def referrers(self, repository: str, digest: str, artifact_type: str | None = None) -> tuple[Referrer, ...]:
        """Return what refers to the manifest ``digest``; of one artifact type only, if it is given."""
        found = self._by_api(repository, digest, artifact_type)
        if found is None:
            found = [_referrer(each) for each in self._index(repository, digest).manifests or ()]
        return tuple(each for each in found if artifact_type in {None, each.artifact_type})

    def attach(self, repository: str, subject: str, artifact_type: str, blobs: Sequence[Attachment], annotations: Mapping[str, str] | None = None) -> Referrer:
        """Attach files to the manifest ``subject``; the same files with the same annotations are the same artifact, pushed once.

        :raises AbsentError: there is no such subject.
        """
        found = self.find(repository, subject)
        if found is None:
            raise AbsentError(f"{self.host}/{repository} has no {subject} to attach to", fix="push the image first")
        for content in dict.fromkeys((EMPTY, *(each.content for each in blobs))):
            self.push_blob(repository, Source.of(content))
        body = canonical(_artifact(found, artifact_type, blobs, annotations or {}))
        made = Referrer(digest=sha256(body), size=len(body), artifact_type=artifact_type, annotations=annotations or {})
        self.put_manifest(repository, made.digest, body, MANIFEST)
        if not self.has_referrers:
            self.enlist(repository, found.digest, made)
        return made

    def enlist(self, repository: str, subject: str, referrer: Referrer) -> None:
        """See to it that ``referrer`` is listed: by the registry itself, or in the fallback index."""
        if self._by_api(repository, subject, None) is None:
            self._rewrite(repository, subject, add=referrer)

    def delete(self, repository: str, digest: str) -> bool:
        """Delete a manifest and, where the registry does not do it, its entry among the referrers of its subject.

        :returns: whether there was such a manifest.
        :raises RegistryError: the registry does not allow it.
        """
        try:
            subject = self.manifest(repository, digest).document().subject
        except AbsentError:
            return False
        gone = self.remove(repository, digest)
        if subject and self._by_api(repository, subject.digest, None) is None:
            self._rewrite(repository, subject.digest, remove=digest)
        return gone

    def _by_api(self, repository: str, digest: str, artifact_type: str | None) -> list[Referrer] | None:
        """Ask the API; return ``None`` if the registry does not have it."""
        if self.has_referrers is False:
            return None
        options = {"params": {"artifactType": artifact_type}} if artifact_type else {}
        place, what = f"{repository}/referrers/{checked(digest)}", f"list what refers to {digest}"
        try:
            pages = list(self._pages(place, repository, what, oci.Index, headers={"Accept": oci.INDEX}, **options))
        except AbsentError:
            self.has_referrers = False
            return None
        self.has_referrers = True
        return [_referrer(each) for page in pages for each in page.manifests or ()]

    def _index(self, repository: str, digest: str) -> oci.Index:
        """Return the fallback index of a manifest, an empty one if there is none."""
        return oci.read(self._raw_index(repository, digest), oci.Index, f"{self.host}/{repository}:{fallback_tag(digest)}", limit=oci.MANIFEST_LIMIT)

    def _raw_index(self, repository: str, digest: str) -> bytes:
        try:
            return self.manifest(repository, fallback_tag(digest)).body
        except AbsentError:
            return canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []})

    def _rewrite(self, repository: str, subject: str, *, add: Referrer | None = None, remove: str | None = None) -> None:
        """Change the fallback index, and look whether the change is there: another client may have written at the same time."""
        with _writing:
            for _ in range(WRITES):
                index = _entries(self._raw_index(repository, subject), f"{self.host}/{repository}:{fallback_tag(subject)}")
                kept = [each for each in index["manifests"] if each["digest"] != remove]
                if add and add.digest not in {each["digest"] for each in kept}:
                    kept.append(add.descriptor)
                if kept == index["manifests"]:
                    return
                self.put_manifest(repository, fallback_tag(subject), canonical({**index, "manifests": kept}), oci.INDEX)
        raise RegistryError(f"others keep writing the referrers of {subject} in {repository}", fix="run it again when they are done")


def fallback_tag(digest: str) -> str:
    """Return the tag of the index that lists what refers to ``digest``."""
    return digest.replace(":", "-")


def _artifact(subject: Found, artifact_type: str, blobs: Sequence[Attachment], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of an artifact (image specification, "Guidelines for Artifact Usage")."""
    empty = {"mediaType": EMPTY_TYPE, "digest": sha256(EMPTY), "size": len(EMPTY)}
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [each.descriptor for each in blobs] or [empty],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
        **({"annotations": dict(annotations)} if annotations else {}),
    }


def _entries(body: bytes, name: str) -> dict[str, Any]:
    """Return an index with all that other clients have written into it, which stays there; its descriptors have been read as such.

    :raises RegistryError: it is none.
    """
    known = oci.read(body, oci.Index, name, limit=oci.MANIFEST_LIMIT)
    index = oci.read(body, dict[str, Any], name, limit=oci.MANIFEST_LIMIT)
    try:
        canonical(index)
    except RecursionError:
        raise RegistryError(f"{name} is nested too deeply", fix=decoding.FIX) from None
    return {**index, "manifests": index["manifests"] if known.manifests else []}


def _referrer(listed: Descriptor) -> Referrer:
    return Referrer(
        digest=listed.digest,
        size=listed.size,
        artifact_type=listed.artifact_type or "",
        media_type=listed.media_type or MANIFEST,
        annotations=listed.annotations or {},
    )
