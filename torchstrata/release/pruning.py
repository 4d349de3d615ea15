"""What may go from a registry: by age and count per channel, never what anything needs. Pure: it returns a plan.

Deleting a manifest deletes every tag that names it, so a digest goes only if no tag that stays names it. Blobs are
not deleted at all: those that no manifest needs any more are freed by the registry's own garbage collection.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from torchstrata.registry.dated_tag import DatedTag, PushNumber, is_dated
from torchstrata.release.ledger import Ledger, LedgerEntry

OWNED: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")
"""Tags that belong to a manifest: lists of referrers, and cosign's ``.sig``, ``.att`` and ``.sbom``."""

IDENTITY: Final = re.compile(r"[0-9a-f]{64}")
"""Tags of parts."""

DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldManifest:
    """A manifest in a repository.

    :param size: bytes of its own.
    :param blobs: bytes by digest.
    :param subject: digest of the manifest that it refers to.
    :param children: digests of the manifests that it lists.
    """

    digest: str
    size: int
    blobs: Mapping[str, int]
    artifact_type: str = ""
    subject: str | None = None
    children: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What one repository holds.

    :param tags: digest by tag.
    :param manifests: by digest; what tags and the ledger lead to, and what refers to that.
    :param outdated: digests of copies of the ledger that a newer one continues.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, HeldManifest] = field(default_factory=dict)
    outdated: frozenset[str] = frozenset()

    @functools.cached_property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Tags by digest."""
        tags: dict[str, list[str]] = {}
        for tag, digest in sorted(self.tags.items()):
            tags.setdefault(digest, []).append(tag)
        return {digest: tuple(named) for digest, named in tags.items()}

    @functools.cached_property
    def _referrers(self) -> Mapping[str, tuple[str, ...]]:
        """Digests of what refers to a manifest, as its subject or by a tag, by its digest."""
        pairs = [(manifest.subject, manifest.digest) for manifest in self.manifests.values() if manifest.subject]
        pairs += [(owner, digest) for tag, digest in sorted(self.tags.items()) if (owner := owner_of(tag)) and digest in self.manifests]
        referrers: dict[str, dict[str, None]] = {}  # ordered sets
        for owner, digest in pairs:
            referrers.setdefault(owner, {})[digest] = None
        return {owner: tuple(digests) for owner, digests in referrers.items()}

    def referrers(self, digest: str, seen: set[str] | None = None) -> tuple[str, ...]:
        """Return what refers to a manifest, and what refers to that, referrers before what they refer to.

        :param seen: digests that are left out; those that are returned are added.
        """
        return _below(digest, lambda digest: self._referrers.get(digest, ()), seen)

    @functools.cached_property
    def images(self) -> tuple[str, ...]:
        """Digests of manifests that stand for themselves, by their names: in no order that a registry's answers decide."""
        referrers = chain.from_iterable(self._referrers.values())
        listed = chain.from_iterable(manifest.children for manifest in self.manifests.values())
        others = {*referrers, *listed, *self.outdated}
        return tuple(sorted(self.manifests.keys() - others, key=lambda digest: (self.names.get(digest, ()), digest)))

    def orphans(self) -> tuple[str, ...]:
        """Return the digests of manifests that are gone, and that something still refers to."""
        return tuple(owner for owner in self._referrers if owner not in self.manifests)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How much of the past a channel keeps of each cell: what breaks both limits may go; without limits, nothing.

    :param count: sets of images, the present one included.
    :param time: since they were replaced.
    """

    count: int | None = None
    time: dt.timedelta | None = None

    def keeps(self, rank: int, age: dt.timedelta) -> bool:
        """Return whether something stays that is the ``rank``-th, from 0, and was replaced so long ago."""
        if self.count is None and self.time is None:
            return True
        return (self.count is not None and rank < self.count) or (self.time is not None and age < self.time)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What decides.

    :param rules: by channel.
    :param chosen: channels that images may go from.
    :param entry: the channel that takes new images; images that no channel ever held count as its.
    :param pinned: digests that stay.
    :param needed: identities of parts that a build of today would use.
    """

    rules: Mapping[str, Rule]
    chosen: frozenset[str]
    entry: str
    pinned: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """Something that may go, with all that belongs to it.

    :param is_part: whether it is in the repository of parts.
    :param manifests: digests, in the order in which they are to be deleted.
    :param freed: bytes that nothing else needs.
    """

    what: str
    why: str
    manifests: tuple[str, ...]
    is_part: bool = False
    freed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruning:
    """What may go, and why each image stays that does."""

    removals: tuple[Removal, ...]
    kept: Mapping[str, str]

    @property
    def freed(self) -> int:
        """Bytes that nothing needs afterwards."""
        return sum(removal.freed for removal in self.removals)


def owner_of(tag: str) -> str | None:
    """Return the digest of the manifest that a tag belongs to by its name, ``None`` if it stands for itself."""
    match = OWNED.fullmatch(tag)
    return f"sha256:{match[1]}" if match else None


def plan(images: Holdings, parts: Holdings, ledger: Ledger, policy: Policy, now: dt.datetime) -> Pruning:
    """Return what may go.

    :param parts: what the repository of parts holds; empty if parts are to stay.
    """
    kept = _kept(images, ledger, policy, now)
    removals = [*_images(images, kept, policy), *_leftovers(images), *_leftovers(parts, is_part=True)]
    removals += _parts(parts, chain.from_iterable(images.manifests[digest].blobs for digest in kept), policy)
    needed = frozenset(chain(kept, *map(images.referrers, kept)))
    safe = [_spared(removal, parts if removal.is_part else images, removals, frozenset() if removal.is_part else needed) for removal in removals]
    return Pruning(removals=tuple(_weighed([removal for removal in safe if removal.manifests], images, parts)), kept=kept)


def _kept(images: Holdings, ledger: Ledger, policy: Policy, now: dt.datetime) -> dict[str, str]:
    """Return why images stay, by digest, with what they list."""
    past = [*_past(ledger, policy, now), *_elsewhere(ledger, policy)]
    reasons = [*_tagged(images, policy), *past, *_dated(images, ledger, policy, now), *_nameless(images, ledger)]
    kept: dict[str, str] = {}
    for digest, why in reasons:
        for held in (digest, *_children(images, digest)):
            if held in images.manifests:
                kept.setdefault(held, why)
    return kept


def _children(images: Holdings, digest: str) -> tuple[str, ...]:
    """Return what a manifest lists, and what that lists."""
    return _below(digest, lambda digest: images.manifests[digest].children if digest in images.manifests else ())


def _below(digest: str, of: Callable[[str], Iterable[str]], seen: set[str] | None = None) -> tuple[str, ...]:
    """Return all that ``of`` leads to from a digest, each digest once, and after those that it leads to.

    Whoever pushes decides how deep that goes and how often a digest comes. So this neither recurses nor repeats.

    :param seen: digests that earlier calls have followed; this call leaves them out, and adds its own.
    """
    finished: dict[str, None] = {}
    seen = set() if seen is None else seen
    seen.add(digest)
    todo = [(digest, iter(of(digest)))]
    while todo:
        above, rest = todo[-1]
        following = next((digest for digest in rest if digest not in seen), None)
        if following is not None:
            seen.add(following)
            todo.append((following, iter(of(following))))
        else:
            todo.pop()
            finished[above] = None
    return tuple(below for below in finished if below != digest)


def _tagged(images: Holdings, policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield what is pinned, and what tags name that are not dated."""
    yield from ((digest, "pinned") for digest in sorted(policy.pinned))
    for tag, digest in images.tags.items():
        if not (is_dated(tag) or owner_of(tag)):
            yield digest, f"tag {tag}"


def _past(ledger: Ledger, policy: Policy, now: dt.datetime) -> Iterator[tuple[str, str]]:
    """Yield what channels hold, what a rollback would go to, and what their rules keep."""
    for tag, digest in ledger.state.tags.items():
        yield digest, f"the ledger's tag {tag}"
    for channel, cell in ledger.state.current:
        stays = _stays(ledger.history(channel, cell), now)
        back = next((images for images, _ in stays[1:] if not ledger.state.is_withdrawn(channel, cell, images)), None)
        for rank, (images, age) in enumerate(stays):
            rule = policy.rules.get(channel, Rule())
            why = "holds it" if rank == 0 else "rolls back to it" if images == back else "keeps it" if rule.keeps(rank, age) else ""
            if why:
                yield from ((digest, f"{channel} {why}") for digest in images.values())


def _stays(history: Sequence[LedgerEntry], now: dt.datetime) -> list[tuple[Mapping[str, str], dt.timedelta]]:
    """Return each set of images that a channel held of a cell, the present one first, and its age since replaced."""
    ended: dict[tuple[tuple[str, str], ...], dt.datetime] = {}
    ends = [entry.moment for entry in history[1:]] + [now]
    for entry, end in zip(history, ends, strict=True):
        images = tuple(sorted(entry.images.items()))
        ended.pop(images, None)
        ended[images] = end
    return [(dict(images), now - end) for images, end in reversed(ended.items())]


def _elsewhere(ledger: Ledger, policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield what channels held that were not chosen, and so stays."""
    for entry in ledger.entries:
        if entry.channel not in policy.chosen:
            yield from ((digest, f"{entry.channel} held it") for digest in entry.images.values())


def _dated(images: Holdings, ledger: Ledger, policy: Policy, now: dt.datetime) -> Iterator[tuple[str, str]]:
    """Yield images of the last day, whose numbers are taken, and those of no channel that the entry's rule keeps."""
    claimed = _claimed(images, ledger)
    rule = policy.rules.get(policy.entry, Rule()) if policy.entry in policy.chosen else Rule()
    for pushes in _pushes(images).values():
        for rank, (push, digest) in enumerate(sorted(pushes, reverse=True)):
            age = now - dt.datetime.strptime(push.day, "%Y%m%d").replace(tzinfo=dt.UTC)
            if age < 2 * DAY:
                yield digest, "it is new"
            elif digest not in claimed and rule.keeps(rank, age):
                yield digest, f"{policy.entry} keeps it"


def _claimed(images: Holdings, ledger: Ledger) -> frozenset[str]:
    """Return what a channel ever held: images, and of an index those that it lists, which stay and go with it."""
    return frozenset(chain(ledger.digests, *(_children(images, digest) for digest in ledger.digests)))


def _nameless(images: Holdings, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Yield images that no tag names and the ledger does not know: a push gives them their tags last."""
    claimed = _claimed(images, ledger)
    yield from ((digest, "a push may be under way") for digest in images.images if digest not in claimed and digest not in images.names)


def _pushes(images: Holdings) -> Mapping[str, list[tuple[PushNumber, str]]]:
    """Return pushes with their digests, by what their tags begin with."""
    pushes: dict[str, list[tuple[PushNumber, str]]] = {}
    for tag, digest in images.tags.items():
        if dated := DatedTag.parse(tag):
            pushes.setdefault(dated.stem, []).append((dated.push, digest))
    return pushes


def _images(images: Holdings, kept: Mapping[str, str], policy: Policy) -> Iterator[Removal]:
    """Yield the images that nothing keeps."""
    for digest in images.images:
        if digest not in kept:
            names = " ".join(images.names.get(digest, ())) or digest
            yield Removal(what=names, why=f"older than {', '.join(sorted(policy.chosen))} keeps", manifests=_whole(images, digest))


def _whole(holdings: Holdings, digest: str) -> tuple[str, ...]:
    """Return a manifest with its referrers, and the same of what it lists; the manifest itself before what it lists."""
    seen: set[str] = set()
    whole = [*holdings.referrers(digest, seen), digest]
    for child in reversed(_children(holdings, digest)):
        if child in holdings.manifests and child not in seen:
            whole += [*holdings.referrers(child, seen), child]
    return tuple(whole)


def _leftovers(holdings: Holdings, *, is_part: bool = False) -> Iterator[Removal]:
    """Yield what refers to manifests that are gone, and copies of the ledger that are outdated."""
    for owner in holdings.orphans():
        yield Removal(what=f"signatures and referrers of {owner}", why="it is gone", manifests=holdings.referrers(owner), is_part=is_part)
    for digest in sorted(holdings.outdated):
        yield Removal(what=f"copy of the ledger {digest}", why="a newer one continues it", manifests=(*holdings.referrers(digest), digest))


def _parts(parts: Holdings, layers: Iterable[str], policy: Policy) -> Iterator[Removal]:
    """Yield the parts of which no image that stays has a layer, and which no build of today would use."""
    needed = frozenset(layers)
    for digest in parts.images:
        identities = [tag for tag in parts.names.get(digest, ()) if IDENTITY.fullmatch(tag)]
        others = len(identities) != len(parts.names.get(digest, ()))
        if identities and not others and not policy.needed.intersection(identities) and not needed.intersection(parts.manifests[digest].blobs):
            why = "no image has a layer of it, no lock needs it"
            yield Removal(what=f"part {identities[0][:12]}", why=why, manifests=_whole(parts, digest), is_part=True)


def _spared(removal: Removal, holdings: Holdings, removals: Iterable[Removal], needed: frozenset[str]) -> Removal:
    """Return a removal without what is needed, and without the digests that a tag names which stays."""
    going = set(chain.from_iterable(other.manifests for other in removals if other.is_part == removal.is_part)) - needed
    safe = [digest for digest in removal.manifests if digest in going and all(_goes(tag, holdings, going) for tag in holdings.names.get(digest, ()))]
    return replace(removal, manifests=tuple(safe))


def _goes(tag: str, holdings: Holdings, going: set[str]) -> bool:
    """Return whether a tag goes: with the image or part that it names, or with what it belongs to."""
    owner = owner_of(tag)
    if owner is None:
        return is_dated(tag) or IDENTITY.fullmatch(tag) is not None
    return owner in going or owner not in holdings.manifests


def _weighed(removals: Sequence[Removal], images: Holdings, parts: Holdings) -> Iterator[Removal]:
    """Yield removals with the bytes that each frees, each blob counted once."""
    needed = {*_staying_blobs(images, removals, is_part=False), *_staying_blobs(parts, removals, is_part=True)}
    for removal in removals:
        manifests = [(parts if removal.is_part else images).manifests[digest] for digest in removal.manifests]
        blobs = dict(chain.from_iterable(manifest.blobs.items() for manifest in manifests))
        freed = sum(size for blob, size in blobs.items() if blob not in needed) + sum(manifest.size for manifest in manifests)
        needed |= set(blobs)
        yield replace(removal, freed=freed)


def _staying_blobs(holdings: Holdings, removals: Iterable[Removal], *, is_part: bool) -> Iterable[str]:
    """Return the blobs of those manifests of a repository that stay."""
    going = set(chain.from_iterable(removal.manifests for removal in removals if removal.is_part == is_part))
    return chain.from_iterable(manifest.blobs for digest, manifest in holdings.manifests.items() if digest not in going)
