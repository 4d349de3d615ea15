"""Push images, so that a tag never points to something incomplete, whenever the push ends.

Parts first (their blobs are then mounted into the image's repository), then blobs and configs, the manifests by
digest, what is attached to them, and the tags last, when everything of all images is there. What the registry has is
not sent again, so a push that was cut off goes on when it is run again.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar

from torchstrata.errors import ImmutableTagError
from torchstrata.image.compose import MANIFEST, Image
from torchstrata.progress import ignore
from torchstrata.registry import dated_tag, pool
from torchstrata.registry.dated_tag import DatedTag, is_dated
from torchstrata.registry.parts import PartRepository
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import OnBytes, Sent, Source
from torchstrata.store.layer import Layer
from torchstrata.store.part import Part

T = TypeVar("T")

Attach = Callable[[Registry, str, Image], None]
"""Attaches records, signatures and so on to an image that is in the registry, before it gets its tags."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """An image and the tags that it gets, without the repository."""

    image: Image
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What a push did, in bytes of blobs: sent, mounted from another repository, and left since they were there.

    :param parts: how many parts the registry did not have.
    :param digests: of the images, by name.
    """

    sent: int
    mounted: int
    present: int
    parts: int
    digests: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pusher:
    """Pushes to one repository.

    :param open_blob: returns the file of a blob by digest and size; asked only for what the registry lacks.
    :param part_repository: where parts go; ``None`` to push images only.
    :param attach: called for each image between its manifest and its tags.
    :param is_immutable: says of a tag whether it never moves.
    :param on_bytes: told of bytes of blobs on their way.
    """

    registry: Registry
    repository: str
    open_blob: Callable[[str, int], Path]
    part_repository: PartRepository | None = None
    attach: Attach = ignore
    is_immutable: Callable[[str], bool] = is_dated
    on_bytes: OnBytes = ignore

    def push(self, publications: Sequence[Publication], parts: Mapping[str, Part] | None = None) -> PushReport:
        """Push images, and the parts that they consist of, by identity.

        :raises ImmutableTagError: a tag that never moves points to something else; nothing was sent then.
        :raises RegistryError: the registry refuses or is silent; no tag has moved then, unless tags were under way.
        """
        self._check_tags(publications)
        lacking = self.part_repository.lacks(parts) if self.part_repository and parts else ()
        sent = self._push_parts({identity: parts[identity] for identity in lacking} if parts else {})
        images = [publication.image for publication in publications]
        sent += self._outcomes(functools.partial(self._blob, source) for source in self._sources(images))
        self._outcomes(functools.partial(self._manifest, image, image.digest) for image in images)
        for image in images:
            self.attach(self.registry, self.repository, image)
        for publication in publications:
            for tag in publication.tags:
                self._manifest(publication.image, tag)
        return _report(sent, len(lacking), images)

    def _push_parts(self, parts: Mapping[str, Part]) -> list[Sent]:
        """Push parts, first their blobs, then the manifests; layers in the images' repository are mounted."""
        part_repository = self.part_repository
        if part_repository is None or not parts:
            return []
        layers = self._layers(parts.values())
        small = chain.from_iterable(part_repository.sources(identity, part) for identity, part in parts.items())
        push = functools.partial(self.registry.push_blob, part_repository.repository, mount_from=(self.repository,), on_bytes=self.on_bytes)
        sent = self._outcomes(functools.partial(push, source) for source in (*layers, *{source.digest: source for source in small}.values()))
        self._outcomes(functools.partial(part_repository.put, identity, part) for identity, part in parts.items())
        return sent

    def _sources(self, images: Iterable[Image]) -> list[Source]:
        """Return every blob of the images once."""
        images = tuple(images)
        configs = {image.config: Source.of(image.config) for image in images}
        return [*self._layers(images), *configs.values()]

    def _layers(self, owners: Iterable[Image | Part]) -> list[Source]:
        """Return every layer of images or parts once."""
        layers = chain.from_iterable(owner.layers for owner in owners)
        once = {layer.digest: layer for layer in layers}.values()
        return [Source(digest=layer.digest, size=layer.size, open=functools.partial(self._open, layer)) for layer in once]

    def _open(self, layer: Layer) -> IO[bytes]:
        return self.open_blob(layer.digest, layer.size).open("rb")

    def _blob(self, source: Source) -> Sent:
        origins = (self.part_repository.repository,) if self.part_repository else ()
        return self.registry.push_blob(self.repository, source, mount_from=origins, on_bytes=self.on_bytes)

    def _manifest(self, image: Image, reference: str) -> str:
        return self.registry.put_manifest(self.repository, reference, image.manifest, MANIFEST, immutable=self.is_immutable(reference))

    def _outcomes(self, tasks: Iterable[Callable[[], T]]) -> list[T]:
        return pool.outcomes(tasks, "push", self.registry.cancel)

    def _check_tags(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            for tag in filter(self.is_immutable, publication.tags):
                check_tag(self.registry, self.repository, tag, publication.image.digest)


def check_tag(registry: Registry, repository: str, tag: str, digest: str) -> None:
    """Refuse to push under a tag that never moves and names something else.

    :raises ImmutableTagError: it does.
    """
    present = registry.find(repository, tag)
    if present and present.digest != digest:
        name = f"{registry.host}/{repository}:{tag}"
        raise ImmutableTagError(f"{name} never moves, and points to {present.digest}, not to {digest}", fix="push under a new tag")


def dated(registry: Registry, repository: str, start: str, digest: str, tags: Iterable[str], today: dt.date) -> str:  # noqa: PLR0913, PLR0917  # of one place
    """Return the dated tag of what is to be pushed: of today, or the last one if that names the same.

    :param start: the tag's stem.
    :param tags: of the repository.
    """
    pushes = dated_tag.pushes(start, tags)
    last = str(DatedTag(stem=start, push=pushes[-1])) if pushes else ""
    present = registry.find(repository, last) if last else None
    if present and present.digest == digest:
        return last
    return str(DatedTag(stem=start, push=dated_tag.following(pushes, today)))


def _report(sent: Sequence[Sent], parts: int, images: Iterable[Image]) -> PushReport:
    size = {way: sum(blob.size for blob in sent if blob.way == way) for way in ("sent", "mounted", "present")}
    return PushReport(**size, parts=parts, digests={image.name: image.digest for image in images})
