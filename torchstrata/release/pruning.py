"""What may go from a registry: by age and count per channel, and never what anything needs. Pure: holdings and a ledger in, a plan out.

Deleting a manifest deletes every tag that names it, so a digest goes only if no tag that stays names it. Blobs are not deleted at
all: those that no manifest needs any more are freed by the registry's own garbage collection.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    def _owned(self) -> Mapping[str, tuple[str, ...]]:
        """Digests of what belongs to a manifest, by its digest."""
        pairs = [(each.subject, each.digest) for each in self.manifests.values() if each.subject]
        pairs += [(owner, digest) for tag, digest in sorted(self.tags.items()) if (owner := owner_of(tag)) and digest in self.manifests]
        belongings: dict[str, dict[str, None]] = {}  # ordered sets
        for owner, digest in pairs:
            belongings.setdefault(owner, {})[digest] = None
        return {owner: tuple(owned) for owner, owned in belongings.items()}

    def belongings(self, digest: str, seen: set[str] | None = None) -> tuple[str, ...]:
        """Return what belongs to a manifest, and to that, what belongs to something first; without what was ``seen``, which grows."""
        return _below(digest, lambda each: self._owned.get(each, ()), seen)

    @functools.cached_property
    def images(self) -> tuple[str, ...]:
        """Digests of manifests that stand for themselves."""
        owned = {each for belongings in self._owned.values() for each in belongings}
        listed = {each for manifest in self.manifests.values() for each in manifest.children}
        others = owned | listed | self.outdated
        return tuple(digest for digest in self.manifests if digest not in others)

    def orphans(self) -> tuple[str, ...]:
        """Return the digests of manifests that are gone, and still own something."""
        return tuple(owner for owner in self._owned if owner not in self.manifests)


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
        return sum(each.freed for each in self.removals)


def owner_of(tag: str) -> str | None:
    """Return the digest of the manifest that a tag belongs to by its name, ``None`` if it stands for itself."""
    found = OWNED.fullmatch(tag)
    return f"sha256:{found[1]}" if found else None


def plan(images: Holdings, parts: Holdings, ledger: Ledger, policy: Policy, now: dt.datetime) -> Pruning:
    """Return what may go.

    :param parts: what the repository of parts holds; empty if parts are to stay.
    """
    kept = _kept(images, ledger, policy, now)
    removals = [*_images(images, kept, policy), *_leftovers(images), *_leftovers(parts, is_part=True)]
    removals += _parts(parts, {blob for digest in kept for blob in images.manifests[digest].blobs}, policy)
    needed = frozenset(each for digest in kept for each in (digest, *images.belongings(digest)))
    safe = [_spared(each, parts if each.is_part else images, removals, frozenset() if each.is_part else needed) for each in removals]
    return Pruning(removals=tuple(_weighed([each for each in safe if each.manifests], images, parts)), kept=kept)


def _kept(images: Holdings, ledger: Ledger, policy: Policy, now: dt.datetime) -> dict[str, str]:
    """Return why images stay, by digest, with what they list."""
    past = [*_past(ledger, policy, now), *_elsewhere(ledger, policy)]
    reasons = [*_tagged(images, policy), *past, *_dated(images, ledger, policy, now), *_nameless(images, ledger)]
    found: dict[str, str] = {}
    for digest, why in reasons:
        for each in (digest, *_children(images, digest)):
            if each in images.manifests:
                found.setdefault(each, why)
    return found


def _children(images: Holdings, digest: str) -> tuple[str, ...]:
    """Return what a manifest lists, and what that lists."""
    return _below(digest, lambda each: images.manifests[each].children if each in images.manifests else ())


def _below(digest: str, of: Callable[[str], Iterable[str]], seen: set[str] | None = None) -> tuple[str, ...]:
    """Return all that ``of`` leads to from a digest, each once and after what it leads to itself.

    Whoever may push decides how deep that goes and how often one thing leads to another, so this neither recurses nor goes twice.

    :param seen: what earlier calls have gone through; this one leaves it out, and adds what it finds.
    """
    found: dict[str, None] = {}
    seen = set() if seen is None else seen
    seen.add(digest)
    todo = [(digest, iter(of(digest)))]
    while todo:
        above, rest = todo[-1]
        following = next((each for each in rest if each not in seen), None)
        if following is not None:
            seen.add(following)
            todo.append((following, iter(of(following))))
        else:
            todo.pop()
            found[above] = None
    return tuple(each for each in found if each != digest)


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
    """Return each set of images that a channel held of a cell, and how long ago it was replaced; the present one first."""
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
    """Yield images of the last day, whose numbers must not be used again, and those of no channel that the rule of the first one keeps."""
    claimed = _claimed(images, ledger)
    rule = policy.rules.get(policy.entry, Rule()) if policy.entry in policy.chosen else Rule()
    for builds in _builds(images).values():
        for rank, (build, digest) in enumerate(sorted(builds, reverse=True)):
            age = now - dt.datetime.strptime(build.day, "%Y%m%d").replace(tzinfo=dt.UTC)
            if age < 2 * DAY:
                yield digest, "it is new"
            elif digest not in claimed and rule.keeps(rank, age):
                yield digest, f"{policy.entry} keeps it"


def _claimed(images: Holdings, ledger: Ledger) -> frozenset[str]:
    """Return what a channel ever held: images, and of an index those that it lists, which stay and go with it."""
    named = {digest for entry in ledger.entries for digest in entry.images.values()}
    return frozenset(each for digest in named for each in (digest, *_children(images, digest)))


def _nameless(images: Holdings, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Yield images that no tag names and the ledger does not know: a push gives them their tags last."""
    claimed = _claimed(images, ledger)
    yield from ((digest, "a push may be under way") for digest in images.images if digest not in claimed and digest not in images.names)


def _builds(images: Holdings) -> Mapping[str, list[tuple[PushNumber, str]]]:
    """Return builds with their digests, by what their tags begin with."""
    found: dict[str, list[tuple[PushNumber, str]]] = {}
    for tag, digest in images.tags.items():
        if dated := DatedTag.parse(tag):
            found.setdefault(dated.stem, []).append((dated.push, digest))
    return found


def _images(images: Holdings, kept: Mapping[str, str], policy: Policy) -> Iterator[Removal]:
    """Yield the images that nothing keeps."""
    for digest in images.images:
        if digest not in kept:
            names = " ".join(images.names.get(digest, ())) or digest
            yield Removal(what=names, why=f"older than {', '.join(sorted(policy.chosen))} keeps", manifests=_whole(images, digest))


def _whole(holdings: Holdings, digest: str) -> tuple[str, ...]:
    """Return a manifest with all that belongs to it and to what it lists; itself last, so that a run that breaks off finds the rest again."""
    seen: set[str] = set()
    whole = [*holdings.belongings(digest, seen), digest]
    for child in reversed(_children(holdings, digest)):
        if child in holdings.manifests and child not in seen:
            whole += [*holdings.belongings(child, seen), child]
    return tuple(whole)


def _leftovers(holdings: Holdings, *, is_part: bool = False) -> Iterator[Removal]:
    """Yield what belongs to manifests that are gone, and copies of the ledger that are outdated."""
    for owner in holdings.orphans():
        yield Removal(what=f"signatures and referrers of {owner}", why="it is gone", manifests=holdings.belongings(owner), is_part=is_part)
    for digest in sorted(holdings.outdated):
        yield Removal(what=f"copy of the ledger {digest}", why="a newer one continues it", manifests=(*holdings.belongings(digest), digest))


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
    going = {digest for each in removals if each.is_part == removal.is_part for digest in each.manifests} - needed
    safe = tuple(digest for digest in removal.manifests if digest in going and all(_goes(tag, holdings, going) for tag in holdings.names.get(digest, ())))
    return Removal(what=removal.what, why=removal.why, manifests=safe, is_part=removal.is_part)


def _goes(tag: str, holdings: Holdings, going: set[str]) -> bool:
    """Return whether a tag goes: with the image or part that it names, or with what it belongs to."""
    owner = owner_of(tag)
    if owner is None:
        return is_dated(tag) or IDENTITY.fullmatch(tag) is not None
    return owner in going or owner not in holdings.manifests


def _weighed(removals: Sequence[Removal], images: Holdings, parts: Holdings) -> Iterator[Removal]:
    """Yield removals with the bytes that each frees, each blob counted once."""
    going = {(each.is_part, digest) for each in removals for digest in each.manifests}
    sides = ((False, images), (True, parts))
    needed = {blob for is_part, side in sides for digest, each in side.manifests.items() if (is_part, digest) not in going for blob in each.blobs}
    for removal in removals:
        manifests = [(parts if removal.is_part else images).manifests[digest] for digest in removal.manifests]
        blobs = {blob: size for each in manifests for blob, size in each.blobs.items() if blob not in needed}
        needed |= set(blobs)
        freed = sum(blobs.values()) + sum(each.size for each in manifests)
        yield Removal(what=removal.what, why=removal.why, manifests=removal.manifests, is_part=removal.is_part, freed=freed)
