"""What a build has to do with a registry: parts that it need not make, blobs that it need not have, images that it pushes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from torchstrata.build import Composed
from torchstrata.codec import Codec
from torchstrata.errors import RegistryError
from torchstrata.parts import REPOSITORY, Shelf, Verify, unchecked
from torchstrata.plan import Bytecode, Item, OsPart, Plan
from torchstrata.push import Attach, Publication, Pusher, PushReport, nothing
from torchstrata.reference import Place
from torchstrata.registry import Registry
from torchstrata.store import Part, Store
from torchstrata.strata import Stratum
from torchstrata.upload import OnBytes

VARIABLE: Final = "TORCHSTRATA_REGISTRY"


def place(asked: str | None, configured: str | None) -> Place | None:
    """Return the registry to use: what was asked for, else ``$TORCHSTRATA_REGISTRY``, else what ``matrix.yaml`` names, else none.

    :raises RegistryError: it is no registry.
    """
    text = asked or os.environ.get(VARIABLE) or configured
    return Place.parse(text) if text else None


def required(asked: str | None, configured: str | None) -> Place:
    """Return the registry to use.

    :raises RegistryError: none is known.
    """
    found = place(asked, configured)
    if found is None:
        raise RegistryError("no registry is known to push to", fix=f"give --registry HOST[/PATH], set {VARIABLE}, or write registry: into matrix.yaml")
    return found


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A registry as builds use it.

    :param repository: of the images.
    """

    registry: Registry
    repository: str
    shelf: Shelf

    @classmethod
    def open(cls, where: Place, name: str, store: Store, *, verify: Verify = unchecked, on_bytes: OnBytes = nothing) -> Self:
        """Return the registry at ``where`` with the images called ``name``; nothing is asked yet."""
        registry = Registry(where.host, scheme=where.scheme)
        shelf = Shelf(registry=registry, repository=where.repository(REPOSITORY), store=store, verify=verify, on_bytes=on_bytes)
        return cls(registry=registry, repository=where.repository(name), shelf=shelf)

    def fill(self, plan: Plan, codec: Codec) -> Plan:
        """Return the plan with the parts that the registry has; what is still to be made finds what it needs in the store.

        :raises RegistryError: the registry does not answer, or a part in it is damaged.
        """
        filled = plan.filled(self.shelf.find(item.identity for item in plan.missing()))
        self.shelf.fetch(digest for digest in _needed(filled, codec))
        return filled

    def open_blob(self, digest: str, size: int | None = None) -> Path:
        """Return the file of a blob; fetch it if the store lacks it."""
        return self.shelf.open_blob(digest, size)

    def fetch_layers(self, composed: Sequence[Composed]) -> None:
        """Bring all layers of images into the store."""
        self.shelf.fetch(layer.digest for one in composed for layer in one.image.layers)

    def push(self, plan: Plan, composed: Sequence[Composed], *, attach: Attach = nothing, on_bytes: OnBytes = nothing) -> PushReport:
        """Push composed images with their parts; their tags are those that they have in an engine.

        :raises RegistryError: see :meth:`torchstrata.push.Pusher.push`.
        """
        pusher = Pusher(registry=self.registry, repository=self.repository, open_blob=self.open_blob, shelf=self.shelf, attach=attach, on_bytes=on_bytes)
        publications = [Publication(image=one.image, tags=tuple(tag.rpartition(":")[2] for tag in one.tags)) for one in composed]
        return pusher.push(publications, self._parts(plan))

    def _parts(self, plan: Plan) -> Mapping[str, Part]:
        """Return the parts of a plan that was built; those that were made are in the store by now."""
        found = {item.identity: self.shelf.store.known(item.identity) or item.part for item in plan.items()}
        return {identity: part for identity, part in found.items() if part}


def _needed(plan: Plan, codec: Codec) -> Iterable[str]:
    """Yield the blobs that the items still to be made are made from, as far as they belong to parts that were found."""
    parts = {item.identity: item.part for item in plan.items() if item.part}
    for item in plan.missing():
        if isinstance(item.source, Stratum):  # what its CUDA strata leave to it, not their gigabytes
            for need in item.source.needs:
                part = parts.get(need.identity(codec))
                yield from part.extras.values() if part else ()
        for identity in _whole(item, plan, codec):
            yield from parts[identity].digests if identity in parts else ()


def _whole(item: Item, plan: Plan, codec: Codec) -> list[str]:
    """Return the identities of those parts that making ``item`` reads whole."""
    if isinstance(item.source, Bytecode):
        return [item.source.base, *(source.identity(codec) for source in item.source.sources)]
    if isinstance(item.source, OsPart):
        return [other.identity for other in plan.items() if isinstance(other.source, OsPart) and other.source.system == item.source.system]
    return []
