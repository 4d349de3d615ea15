"""The verbs ``inv cache`` and ``inv registry.prune``, which shows what may go, and deletes it with ``--yes``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from rich.table import Table

from torchstrata import progress
from torchstrata.building.plan import Planner
from torchstrata.commands import release
from torchstrata.commands.options import CacheOptions
from torchstrata.commands.release_options import PruneOptions
from torchstrata.errors import PruneError
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.registry import pool
from torchstrata.registry.parts import REPOSITORY
from torchstrata.registry.registry import Registry
from torchstrata.registry.transport import RefusedError
from torchstrata.release import channels, holdings, ledger_copy, pruning
from torchstrata.release.ledger import Ledger
from torchstrata.release.moves import Releases
from torchstrata.release.pruning import Holdings, Policy, Pruning, Removal, Rule
from torchstrata.store.codec import DEFAULT_LEVELS, Codec
from torchstrata.store.store import Store

NOT_ALLOWED: Final = 405
DRY: Final = "nothing was deleted: this was a dry run, --yes does it"
COLLECT: Final = "disk space is freed by the registry's own garbage collection: docs/registry.md, Keeping it small, and copying it"


def cache(options: CacheOptions) -> None:
    """Show the content store, or prune it."""
    store = Store.open()
    if options.prune:
        age = dt.timedelta(days=options.days) if options.days is not None else None
        freed = store.prune(older_than=age, max_bytes=int(options.max_gb * 1e9) if options.max_gb is not None else None)
        progress.say(f"{progress.size(freed)} freed in {store.root}")
        return
    usage = store.usage()
    view = progress.table("part", "size", "last used")
    for part in usage.parts:
        view.add_row(part.title, progress.size(part.size), f"{part.age / 86400:.1f} days ago")
    progress.say(view, f"{progress.size(usage.size)} in {store.root}, of it downloads {progress.size(usage.downloads)}")


def prune(options: PruneOptions) -> None:
    """Show what may go from the team's registry, and delete it if that was asked for.

    :raises PruneError: the registry does not delete, or the ledger moved meanwhile.
    :raises LedgerError: the ledger's branch is not what the registry's copy says.
    """
    rules = policy(matrix.load(), options)
    with release.opened(options, signs=False) as releases:
        base = releases.read()
        part_repository = _part_repository(releases)
        proposal = plan(releases, base.ledger, part_repository if options.parts else None, rules)
        progress.say(table(proposal) if proposal.removals else "nothing may go")
        progress.say(f"{len(proposal.kept)} images stay; {len(proposal.removals)} removals, {progress.size(proposal.freed)} that nothing else there needs")
        if not (proposal.removals and options.yes):
            progress.say(DRY if proposal.removals else "")
            return
        if releases.branch.read().commit != base.commit:
            raise PruneError("the ledger has moved meanwhile; nothing was deleted", fix="run it again, and look at what it shows")
        count = delete(releases.registry, {False: releases.repository, True: part_repository}, proposal)
        progress.say(f"{count} manifests deleted; {COLLECT}")


def policy(table: Matrix, options: PruneOptions) -> Policy:
    """Return what decides: the rules of the matrix, with what was asked for instead.

    :raises MatrixError: there is no such channel.
    :raises PruneError: a limit is too low.
    """
    if (options.keep is not None and options.keep < 1) or (options.older_than is not None and options.older_than < 1):
        raise PruneError("at least one set of images and one day must stay", fix="give --keep 1 or more, and --older-than 1 or more")
    chosen = [table.channel(options.channel)] if options.channel else list(table.channels.values())
    asked = Rule(count=options.keep, time=None if options.older_than is None else dt.timedelta(days=options.older_than))
    rules = {channel.name: Rule(count=channel.keep, time=channel.keep_for) for channel in table.channels.values()}
    if asked != Rule():
        rules |= {channel.name: asked for channel in chosen}
    pinned = frozenset(digest for digest in (*table.pinned, *options.pinned) if digest)
    return Policy(rules=rules, chosen=frozenset(channel.name for channel in chosen), entry=channels.entry(table).name, pinned=pinned)


def plan(releases: Releases, ledger: Ledger, part_repository: str | None, rules: Policy) -> Pruning:
    """Return what may go, by the ledger of the branch, which must be what the registry's copy says.

    :param part_repository: repository of the parts; ``None`` to leave them.
    """
    registry, repository = releases.registry, releases.repository
    copy = ledger_copy.pull(registry, repository, releases.guard)
    ledger_copy.compare(ledger, copy)
    images = holdings.scan(registry, repository, ledger.digests | rules.pinned)
    images = holdings.with_outdated(images, registry, repository, copy)
    parts = holdings.scan(registry, part_repository) if part_repository else Holdings()
    rules = replace(rules, needed=frozenset(_needed(releases.matrix)) if part_repository else frozenset())
    return pruning.plan(images, parts, ledger, rules, releases.now())


def _needed(table: Matrix) -> Iterable[str]:
    """Yield the identities of all parts that the locks of today lead to, with either codec.

    :raises LockError: a lock does not match its inputs, so nobody can say what it needs.
    """
    cells = [cell for cell in matrix.everywhere(table.cells) if _is_locked(table, cell)]
    for name, level in DEFAULT_LEVELS.items():
        planner = Planner(matrix=table, store=Store.open(), codec=Codec(name=name, level=level))
        yield from (item.identity for item in planner.plan(cells, list(table.flavours)).items())


def _is_locked(table: Matrix, cell: Cell) -> bool:
    """Return whether a cell has locks; without, nothing can have been built of it."""
    return os_locks.path(cell.os).exists() and all((matrix.ROOT / wheel_locks.path_of(cell, flavour)).exists() for flavour in table.flavours)


def _part_repository(releases: Releases) -> str:
    """Return the repository of the parts, which lies beside that of the images."""
    path, _, _ = releases.repository.rpartition("/")
    return f"{path}/{REPOSITORY}" if path else REPOSITORY


def delete(registry: Registry, repositories: Mapping[bool, str], proposal: Pruning) -> int:
    """Delete what may go; return how many manifests were there. After an interruption, run it again.

    :param repositories: of the images, and of the parts.
    :raises PruneError: the registry does not delete.
    """
    with pool.threads("prune") as threads:
        return sum(threads.map(lambda removal: _delete(registry, repositories[removal.is_part], removal), proposal.removals))


def _delete(registry: Registry, repository: str, removal: Removal) -> int:
    try:
        return sum(registry.remove(repository, digest) for digest in removal.manifests)
    except RefusedError as error:
        if error.status != NOT_ALLOWED:
            raise
        raise PruneError(f"{registry.host} deletes nothing", fix="let it: storage.delete.enabled (REGISTRY_STORAGE_DELETE_ENABLED=true)") from error


def table(proposal: Pruning) -> Table:
    """Return the plan for people."""
    view = progress.table("goes", "why", "manifests", "bytes")
    for removal in proposal.removals:
        view.add_row(removal.what, removal.why, str(len(removal.manifests)), progress.size(removal.freed))
    return view
