"""A registry as builds use it: parts that need not be made, blobs that need not be here, images that are pushed."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Self

from torchstrata.attestations import seals, signing
from torchstrata.attestations.signing import Trust
from torchstrata.building.assembly import Composed
from torchstrata.building.plan import Bytecode, Item, OsPart, Plan
from torchstrata.errors import RegistryError
from torchstrata.image import image_index, oci, runtime
from torchstrata.image.image_index import ImageIndex, PlatformImage
from torchstrata.layers.strata import Stratum
from torchstrata.matrix.matrix import Cell
from torchstrata.progress import ignore
from torchstrata.registry import dated_tag, push
from torchstrata.registry.parts import REPOSITORY, PartRepository, Verify, nobody, unchecked
from torchstrata.registry.patience import Patience
from torchstrata.registry.push import Attach, Publication, Pusher, PushReport
from torchstrata.registry.reference import Place
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import OnBytes
from torchstrata.store.codec import Codec
from torchstrata.store.part import Part
from torchstrata.store.store import Store

VARIABLE: Final = "TORCHSTRATA_REGISTRY"


def place(asked: str | None, configured: str | None = None) -> Place | None:
    """Return the registry that was asked for, else ``$TORCHSTRATA_REGISTRY``, else that of ``matrix.yaml``, else none.

    :raises RegistryError: it is no registry.
    """
    text = asked or os.environ.get(VARIABLE) or configured
    return Place.parse(text) if text else None


def required(asked: str | None, configured: str | None = None) -> Place:
    """Return the registry to use.

    :raises RegistryError: none is known.
    """
    where = place(asked, configured)
    if where is None:
        raise RegistryError("no registry is known", fix=f"give --registry HOST[/PATH], set {VARIABLE}, or write registry: into matrix.yaml")
    return where


class Tally:
    """Counts bytes from many threads."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def count(self, more: int) -> None:
        """Add to the total."""
        with self._lock:
            self.total += more


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A registry as builds use it.

    :param repository: of the images.
    """

    registry: Registry
    repository: str
    part_repository: PartRepository
    tally: Tally

    @classmethod
    def open(  # noqa: PLR0913  # two are for tests
        cls, where: Place, name: str, store: Store, *, trust: Trust | None = None, verify: Verify = nobody, patience: Patience | None = None
    ) -> Self:
        """Return the registry at ``where`` with the images called ``name``; nothing is asked yet.

        :param trust: whose parts are used; what ``verify`` lets pass, if ``None``: nothing, unless it is given.
        """
        registry, tally, repository = Registry(where.host, scheme=where.scheme, patience=patience), Tally(), where.repository(REPOSITORY)
        verify = seals.verifier(registry, repository, trust) if trust else verify
        part_repository = PartRepository(registry=registry, repository=repository, store=store, verify=verify, on_bytes=tally.count)
        return cls(registry=registry, repository=where.repository(name), part_repository=part_repository, tally=tally)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, where: Place | None, name: str, store: Store, *, unsealed: bool = False) -> Iterator[Self | None]:
        """Yield the registry at ``where``, if there is one; what is under way ends when the block ends in an exception.

        :param unsealed: use parts whoever has pushed them.
        """
        if where is None:
            yield None
            return
        with signing.trusted() as trust:
            remote = cls.open(where, name, store, trust=None if unsealed else trust, verify=unchecked if unsealed else nobody)
            with remote.registry:
                yield remote

    @property
    def is_trusted(self) -> bool:
        """Whether anything says which of its parts may be used."""
        return self.part_repository.verify is not nobody

    @property
    def name(self) -> str:
        """Registry and repository of the images."""
        return f"{self.registry.host}/{self.repository}"

    @property
    def downloaded(self) -> int:
        """Bytes that were read from parts so far."""
        return self.tally.total

    def fill(self, plan: Plan, codec: Codec, *, locked: bool = False) -> Plan:
        """Return the plan with the parts that the registry has; what making the other parts needs is in the store then.

        :param locked: OS parts with other versions than the lock's do not count.
        :raises RegistryError: the registry does not answer, or a part in it is damaged.
        """
        parts = self.part_repository.find(item.identity for item in plan.missing())
        filled = plan.filled(parts).fitting(locked=locked)
        self.part_repository.fetch(dict(_needed(filled, codec)))
        return filled

    def greet(self) -> None:
        """Ask for the tags of the images, before somebody builds for minutes what cannot be pushed.

        :raises RegistryError: the registry does not answer, or wants a login.
        """
        self.registry.tags(self.repository)

    def open_blob(self, digest: str, size: int | None = None) -> Path:
        """Return the file of a blob; fetch it if the store lacks it."""
        return self.part_repository.open_blob(digest, size)

    def fetch_layers(self, composed: Sequence[Composed]) -> None:
        """Bring all layers of images into the store."""
        self.part_repository.fetch({layer.digest: layer.size for layer in chain.from_iterable(one.image.layers for one in composed)})

    def publications(self, composed: Sequence[Composed], *, names: bool = False) -> tuple[Publication, ...]:
        """Return images with their dated tags: of today, or the last one if the image has not changed since.

        :param names: let them also have the names that they have in an engine, such as ``2.8-cu121-devel``; in a row
            of several platforms those are the index's.
        """
        tags, today = self.registry.tags(self.repository), dt.datetime.now(dt.UTC).date()
        moving = {one.image.digest: _names(one) for one in composed if names and not is_joined(one)}
        dated = functools.partial(push.dated, self.registry, self.repository, tags=tags, today=today)
        return tuple(Publication(image=one.image, tags=(dated(stem(one), one.image.digest), *moving.get(one.image.digest, ()))) for one in composed)

    def push(self, plan: Plan, publications: Sequence[Publication], *, attach: Attach = ignore, on_bytes: OnBytes = ignore) -> PushReport:
        """Push images with the parts that they consist of.

        :raises RegistryError: see :meth:`torchstrata.registry.push.Pusher.push`.
        """
        pusher = Pusher(
            registry=self.registry, repository=self.repository, open_blob=self.open_blob, part_repository=self.part_repository, attach=attach, on_bytes=on_bytes
        )
        return pusher.push(publications, parts_of(plan, self.part_repository.store))


def parts_of(plan: Plan, store: Store) -> Mapping[str, Part]:
    """Return the parts of a plan that was built, by identity; those that were made are in the store by now."""
    parts = {item.identity: store.known(item.identity) or item.part for item in plan.items()}
    return {identity: part for identity, part in parts.items() if part}


def stem(one: Composed) -> str:
    """Return what the dated tags of an image begin with; the named variant has its name for a flavour."""
    return dated_tag.stem(one.plan.cell, image_of(one), platform_of(one))


def image_of(one: Composed) -> str:
    """Return the flavour of an image, or its name if it is the named variant, which starts as root."""
    return one.plan.cell.all_in_one if _config(one).user == runtime.ROOT else one.plan.flavour


def platform_of(one: Composed) -> str:
    """Return the platform of an image, as its config says."""
    return image_index.of_config(_config(one))


def _config(one: Composed) -> oci.ImageConfig:
    return oci.read(one.image.config, oci.ImageConfig, one.image.name)


def is_joined(one: Composed) -> bool:
    """Return whether an image is of a row of several platforms, whose names are those of an index."""
    return len(one.plan.cell.platforms) > 1


def indexes(composed: Iterable[Composed]) -> tuple[tuple[Cell, str, ImageIndex], ...]:
    """Return the index of each cell and image that was composed for every platform of its row."""
    by_image: dict[tuple[str, str], list[Composed]] = {}
    for one in filter(is_joined, composed):
        by_image.setdefault((one.plan.cell.id, image_of(one)), []).append(one)
    whole = [ones for ones in by_image.values() if {platform_of(one) for one in ones} == set(ones[0].plan.cell.platforms)]
    return tuple((ones[0].plan.cell, image_of(ones[0]), _index(ones)) for ones in whole)


def _index(ones: Sequence[Composed]) -> ImageIndex:
    images = tuple(PlatformImage(platform=platform_of(one), digest=one.image.digest, size=len(one.image.manifest)) for one in ones)
    return ImageIndex(name=f"{ones[0].plan.cell.id}-{image_of(ones[0])}", images=images)


def _names(one: Composed) -> tuple[str, ...]:
    return tuple(tag.rpartition(":")[2] for tag in one.tags)


def _needed(plan: Plan, codec: Codec) -> Iterable[tuple[str, int | None]]:
    """Yield digest and size (``None``: an extra) of the blobs of found parts from which other parts are made."""
    parts = {item.identity: item.part for item in plan.items() if item.part}
    for item in plan.missing():
        if isinstance(item.source, Stratum):  # what its CUDA strata leave to it, not their gigabytes
            for need in item.source.needs:
                part = parts.get(need.identity(codec))
                yield from ((digest, None) for digest in part.extras.values()) if part else ()
        for identity in _whole(item, plan, codec):
            if part := parts.get(identity):
                yield from ((digest, None) for digest in part.extras.values())
                yield from ((layer.digest, layer.size) for layer in part.layers)


def _whole(item: Item, plan: Plan, codec: Codec) -> list[str]:
    """Return the identities of those parts that making ``item`` reads whole."""
    if isinstance(item.source, Bytecode):
        return [item.source.base, *(source.identity(codec) for source in item.source.sources)]
    if isinstance(item.source, OsPart):
        system, lineage = item.source.system, item.source.lineage
        parts = ((other.identity, other.source) for other in plan.items() if isinstance(other.source, OsPart))
        return [identity for identity, part in parts if part.system == system and part.lineage == lineage[: len(part.lineage)]]
    return []
