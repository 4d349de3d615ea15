"""The client of a registry, with what is attached to images: signatures, SBOMs, records.

Distribution specification 1.1, "Listing Referrers", with the fallback for registries that lack that API ("Referrers
Tag Schema": an index under the tag ``sha256-HEX``), which other clients read and write too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from torchstrata import decoding
from torchstrata.errors import AbsentError, RegistryError
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.image.oci import Descriptor
from torchstrata.registry.client import Client
from torchstrata.registry.upload import Source
from torchstrata.store.digest import checked

EMPTY: Final = b"{}"
"""The config of an artifact that has none (image specification, "Guidelines for Artifact Usage")."""

TITLE: Final = "org.opencontainers.image.title"

Json = dict[str, Any]


def descriptor(media_type: str, digest: str, size: int, title: str = "") -> Json:
    """Return the descriptor of a blob.

    :param title: the name of its file, for clients that write it.
    """
    annotations = {"annotations": {TITLE: title}} if title else {}
    return {"mediaType": media_type, "digest": digest, "size": size, **annotations}


EMPTY_CONFIG: Final = descriptor("application/vnd.oci.empty.v1+json", sha256(EMPTY), len(EMPTY))


def artifact(artifact_type: str, layers: Sequence[Json], config: Json = EMPTY_CONFIG, **more: Json) -> bytes:
    """Return the manifest of an artifact (image specification, "Guidelines for Artifact Usage").

    :param more: its subject and its annotations; empty ones are left out.
    """
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": config, "layers": list(layers) or [EMPTY_CONFIG]}
    return canonical(document | {name: value for name, value in more.items() if value})


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
        return descriptor(self.media_type, sha256(self.content), len(self.content), self.title)


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
        listed = self._by_api(repository, digest, artifact_type)
        if listed is None:
            listed = [_referrer(referrer) for referrer in self._index(repository, digest).manifests or ()]
        return tuple(referrer for referrer in listed if artifact_type in {None, referrer.artifact_type})

    def attach(self, repository: str, subject: str, artifact_type: str, blobs: Sequence[Attachment], annotations: Mapping[str, str] | None = None) -> Referrer:
        """Attach files to the manifest ``subject``; the same files and annotations are the same artifact, pushed once.

        :raises AbsentError: there is no such subject.
        """
        head = self.find(repository, subject)
        if head is None:
            raise AbsentError(f"{self.host}/{repository} has no {subject} to attach to", fix="push the image first")
        for content in dict.fromkeys((EMPTY, *(blob.content for blob in blobs))):
            self.push_blob(repository, Source.of(content))
        layers = [blob.descriptor for blob in blobs]
        body = artifact(artifact_type, layers, subject=descriptor(*head), annotations=dict(annotations or {}))
        referrer = Referrer(digest=sha256(body), size=len(body), artifact_type=artifact_type, annotations=annotations or {})
        self.put_manifest(repository, referrer.digest, body, MANIFEST)
        if not self.has_referrers:
            self.enlist(repository, head.digest, referrer)
        return referrer

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
        return [_referrer(listed) for listed in chain.from_iterable(page.manifests or () for page in pages)]

    def _index(self, repository: str, digest: str) -> oci.Index:
        """Return the fallback index of a manifest, an empty one if there is none."""
        return oci.read(self._raw_index(repository, digest), oci.Index, f"{self.host}/{repository}:{fallback_tag(digest)}", limit=oci.MANIFEST_LIMIT)

    def _raw_index(self, repository: str, digest: str) -> bytes:
        try:
            return self.manifest(repository, fallback_tag(digest)).body
        except AbsentError:
            return canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []})

    def _rewrite(self, repository: str, subject: str, *, add: Referrer | None = None, remove: str | None = None) -> None:
        """Change the fallback index, and look whether the change stays: another client may write at the same time."""
        with _writing:
            for _ in range(WRITES):
                index = _entries(self._raw_index(repository, subject), f"{self.host}/{repository}:{fallback_tag(subject)}")
                entries = [entry for entry in index["manifests"] if entry["digest"] != remove]
                if add and add.digest not in {entry["digest"] for entry in entries}:
                    entries.append(add.descriptor)
                if entries == index["manifests"]:
                    return
                self.put_manifest(repository, fallback_tag(subject), canonical({**index, "manifests": entries}), oci.INDEX)
        raise RegistryError(f"others keep writing the referrers of {subject} in {repository}", fix="run it again when they are done")


def fallback_tag(digest: str) -> str:
    """Return the tag of the index that lists what refers to ``digest``."""
    return digest.replace(":", "-")


def _entries(body: bytes, name: str) -> dict[str, Any]:
    """Return an index with all that other clients have written into it; its descriptors have been read as such.

    :raises RegistryError: it is none.
    """
    parsed = oci.read(body, oci.Index, name, limit=oci.MANIFEST_LIMIT)
    index = oci.read(body, dict[str, Any], name, limit=oci.MANIFEST_LIMIT)
    try:
        canonical(index)
    except RecursionError:
        raise RegistryError(f"{name} is nested too deeply", fix=decoding.FIX) from None
    return {**index, "manifests": index["manifests"] if parsed.manifests else []}


def _referrer(listed: Descriptor) -> Referrer:
    return Referrer(
        digest=listed.digest,
        size=listed.size,
        artifact_type=listed.artifact_type or "",
        media_type=listed.media_type or MANIFEST,
        annotations=listed.annotations or {},
    )
