"""OS parts and their locks from today's mirrors: every bake of a run, one flavour with its parents after the other."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchstrata.layers import buildkit, contexts, image_tags, os_parts
from torchstrata.layers.os_bake import Bake
from torchstrata.layers.os_image_source import BakeSettings
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix.matrix import OperatingSystem


def _longest(lineages: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return those that no other one begins with."""
    return tuple(lineage for lineage in dict.fromkeys(lineages) if not any(other != lineage and other[: len(lineage)] == lineage for other in lineages))


def groups(systems: Iterable[OperatingSystem]) -> list[list[OperatingSystem]]:
    """Return which OSes are locked together: all of packages; each of a registry alone, so that one that is gone
    keeps no other from its lock.
    """
    chosen = list(systems)
    own = [system for system in chosen if system.bootstrap]
    return [*([own] if own else []), *([system] for system in chosen if not system.bootstrap)]


@dataclass(frozen=True, kw_only=True, slots=True)
class OsPartBuilder(BakeSettings):
    """Makes OS parts, and locks of what they hold."""

    def bake(self, systems: Iterable[OperatingSystem], *lineages: Sequence[str]) -> os_parts.Parts:
        """Return the OS parts of all flavours of ``lineages`` on each of ``systems``; make those that the store lacks.

        A part holds the layers that its flavour adds; that of the first flavour also holds the OS image. Where the
        mirror has dropped a locked version, the distribution's snapshot archive is asked for it. Where that has no
        answer either, today's is used, which one line tells and the part notes (``drift``).

        :param lineages: flavours, parents first; what several of them begin with is made once.
        :raises StaleLockError: ``locked``, and something differs.
        :raises OsPartError: a step failed.
        :raises BuildxError: docker has no buildx.
        :raises EmulatorError: an OS is of another platform, whose programs cannot run here.
        """
        return self._made(self._bakes({system: os_locks.read(system, self.root) for system in systems}, lineages))

    def relock(self, systems: Iterable[OperatingSystem], *lineages: Sequence[str]) -> list[Path]:
        """Lock the OS packages of ``systems`` anew, by building ``lineages`` from today's mirrors; return files written.

        Of an OS from a registry, what its tag names today is locked with them. What was built serves the new locks. A
        lock of which nothing has moved is left as it is.

        :raises RegistryError: the registry does not have what the tag of an OS is to name, or does not answer.
        """
        now, chosen = dt.datetime.now(dt.UTC), tuple(systems)
        if any(system.image for system in chosen):
            buildkit.exporter()  # to say that buildx or the engine lacks, rather than that a registry does not answer
        images = {system: image_tags.pinned(system.image, system.platform) for system in chosen if system.image}
        locks = {system: os_locks.unlocked(system, now, self.root, image=images.get(system, "")) for system in chosen}
        return self._locked_anew(locks, lineages)

    def extend(self, systems: Iterable[OperatingSystem], *lineages: Sequence[str]) -> list[Path]:
        """Lock what flavours of ``lineages`` add that the locks of ``systems`` say nothing of; return the files written.

        All that is locked stays: the packages of other flavours, and so their layers.
        """
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        locks = {system: os_locks.read(system, self.root) for system in systems}
        adding = {flavour for flavour in itertools.chain.from_iterable(lineages) if contexts.installs(self.root, flavour)}
        lacking = {system: frozenset(lock.lacks(adding)) for system, lock in locks.items()}
        opened = {system: replace(lock, opened=lacking[system], opened_at=now) for system, lock in locks.items() if lacking[system]}
        return self._locked_anew(opened, lineages)

    def _locked_anew(self, locks: Mapping[OperatingSystem, OsLock], lineages: Sequence[Sequence[str]]) -> list[Path]:
        bakes = self._bakes(locks, lineages)
        made = self._made(bakes)
        for bake in bakes:
            bake.check_files()
        ancestries: dict[str, tuple[str, ...]] = {}
        for lineage in lineages:
            ancestries |= {flavour: tuple(lineage[: count + 1]) for count, flavour in enumerate(lineage)}
        return [written for system in locks if (written := bakes[0].adopt(system, ancestries, made))]

    def _bakes(self, locks: Mapping[OperatingSystem, OsLock], lineages: Sequence[Sequence[str]]) -> tuple[Bake, ...]:
        return tuple(Bake(settings=self, flavours=lineage, locks=locks) for lineage in _longest(tuple(map(tuple, lineages))))

    @staticmethod
    def _made(bakes: Sequence[Bake]) -> os_parts.Parts:
        """Return the parts of all bakes, one after the other: the store has what each shares with earlier ones."""
        return dict(itertools.chain.from_iterable(bake.parts().items() for bake in bakes))
