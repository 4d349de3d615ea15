"""What a repository holds. Registries list tags only: the rest is found from these and from known digests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from torchstrata.errors import AbsentError, PruneError
from torchstrata.registry import client, pool
from torchstrata.registry.registry import Registry, fallback_tag
from torchstrata.release import ledger_copy
from torchstrata.release.ledger import Ledger
from torchstrata.release.pruning import HeldManifest, Holdings, owner_of

MANY: Final = 200_000
"""Manifests of one repository."""


def scan(registry: Registry, repository: str, also: Iterable[str] = ()) -> Holdings:
    """Return what a repository holds: what its tags name, what refers to that, and so on.

    :param also: digests that no tag may name any more.
    """
    heads = pool.answers(lambda tag: registry.find(repository, tag), registry.tags(repository))
    tags = {tag: head.digest for tag, head in heads.items() if head}
    manifests: dict[str, HeldManifest] = {}
    todo = {*tags.values(), *also, *(owner for tag in tags if (owner := owner_of(tag)))}
    seen = set(todo)
    while todo:
        answers = pool.answers(lambda digest: _read(registry, repository, digest, tags), todo)
        todo = set()
        for manifest, referrers in filter(None, answers.values()):
            manifests[manifest.digest] = manifest
            todo |= {*manifest.children, *referrers} - seen
        seen |= todo
        if len(seen) > MANY:
            what = f"{registry.host}/{repository} has more than {MANY} manifests, or no end of them"
            raise PruneError(what, fix="ask its admin")
    return Holdings(tags=tags, manifests=manifests)


def _read(registry: Registry, repository: str, digest: str, tags: Iterable[str]) -> tuple[HeldManifest, tuple[str, ...]] | None:
    """Return a manifest and the digests of what refers to it; ``None`` if there is none."""
    try:
        manifest = registry.manifest(repository, digest)
    except AbsentError:
        return None
    is_listed = registry.has_referrers is not False or fallback_tag(digest) in tags
    return parse(manifest), tuple(referrer.digest for referrer in registry.referrers(repository, digest)) if is_listed else ()


def parse(manifest: client.Manifest) -> HeldManifest:
    """Return what a manifest needs and belongs to.

    :raises RegistryError: it is none.
    """
    document = manifest.document()
    return HeldManifest(
        digest=manifest.digest,
        size=len(manifest.body),
        blobs={descriptor.digest: descriptor.size for descriptor in document.blobs},
        artifact_type=document.artifact_type or "",
        subject=document.subject.digest if document.subject else None,
        children=tuple(descriptor.digest for descriptor in document.children),
    )


def with_outdated(holdings: Holdings, registry: Registry, repository: str, copy: Ledger | None) -> Holdings:
    """Return holdings that know which copies the present ledger continues; a copy being written is none of them."""
    nameless = (manifest for digest, manifest in holdings.manifests.items() if digest not in holdings.names)
    contents = {manifest.digest: _lines(registry, repository, manifest) for manifest in nameless if manifest.artifact_type == ledger_copy.ARTIFACT}
    return replace(holdings, outdated=frozenset(digest for digest, ledger in contents.items() if ledger and copy and copy.continues(ledger)))


def _lines(registry: Registry, repository: str, manifest: HeldManifest) -> Ledger | None:
    """Return the ledger in a copy, ``None`` if it is none: then it is not ours to delete."""
    layers = registry.manifest(repository, manifest.digest).document().layers or ()
    return Ledger.parse(registry.content(repository, layers[0].digest)) if len(layers) == 1 and layers[0].media_type == ledger_copy.LINES else None
