"""Verbs that are killed, or asked to end, at any moment: nothing is corrupt, nothing is lost, and the next run leaves nothing.

Each round begins with the same state, sends SIGKILL or SIGTERM at a moment that the seed chooses, looks at what is there, runs the
verb again and looks once more. ``--rounds`` is how often each verb dies, ``--seed`` what chooses, ``--record`` keeps the figures.
"""

from __future__ import annotations

import collections
import random
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import pytest

from tests import signed
from tests.soak import figures, small
from tests.soak.site import Site, git
from torchstrata import errors
from torchstrata.attestations import signing
from torchstrata.attestations.remote import VARIABLE
from torchstrata.matrix import matrix
from torchstrata.release.ledger import FILE, Ledger

SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM)
CHANNEL: Final = ("2.13-cpu", "--channel", "nightly")
REPOSITORY: Final = f"{matrix.load().name}"


@dataclass
class Victim:
    """A verb that can be killed again and again.

    :param site: where it runs.
    """

    site: Site

    def begin(self) -> None:
        """Bring about the state that each round begins with."""

    def words(self) -> Sequence[str]:
        """Return the words of the verb."""
        raise NotImplementedError

    def more(self) -> Mapping[str, str]:
        """Return variables of it."""
        return {}

    def corrupt(self) -> list[str]:
        """Return what is wrong right after it was killed."""
        return self.site.corrupt()

    def lost(self) -> list[str]:
        """Return what is not there after it was run again."""
        return []


class Build(Victim):
    """A build into an empty store and an empty directory."""

    reference: bytes = b""

    def begin(self) -> None:
        """Remove both."""
        for path in (self.site.store, self.site.layout):
            shutil.rmtree(path, ignore_errors=True)

    def words(self) -> Sequence[str]:
        """Build."""
        return self.site.build()

    def lost(self) -> list[str]:
        """The image is the one of the first, undisturbed build."""
        found = (self.site.layout / "index.json").read_bytes()
        self.reference = self.reference or found
        return [] if found == self.reference else ["another image"]


class Push(Victim):
    """A push, into a repository of its own each time, from a store that has everything."""

    number: int = 0

    def begin(self) -> None:
        """Take another repository."""
        if not self.number:
            self.site.run(*self.site.build())
        self.number += 1

    def words(self) -> Sequence[str]:
        """Push."""
        return self.site.push(f"team{self.number}")

    def corrupt(self) -> list[str]:
        """No tag leads to what is not there."""
        return [*super().corrupt(), *(f"{tag}: {lacks}" for tag, lacks in self.site.served.incomplete(f"team{self.number}/{small.NAME}"))]

    def lost(self) -> list[str]:
        """The image has a tag."""
        return [] if self.site.served.tags(f"team{self.number}/{small.NAME}") else ["no tag"]


class Prune(Victim):
    """Pruning a store with everything that a build leaves; afterwards a build makes the same again."""

    def begin(self) -> None:
        """Build, or what a round has left of it."""
        kept = self.site.work / "kept"
        if not kept.exists():
            shutil.rmtree(self.site.store, ignore_errors=True)
            self.site.run(*self.site.build())
            shutil.copytree(self.site.store, kept)
        shutil.rmtree(self.site.store)
        shutil.copytree(kept, self.site.store)

    def words(self) -> Sequence[str]:
        """Prune everything."""
        return ("inv", "cache", "--prune")

    def corrupt(self) -> list[str]:
        """No part that is still there lacks something; a build goes on from what is left, whatever that is."""
        found = self.site.corrupt()
        self.site.run(*self.site.build())
        return [*found, *self.site.corrupt()]

    def lost(self) -> list[str]:
        """Nothing stays but what is empty."""
        paths = chain.from_iterable((self.site.store / name).rglob("*") for name in ("blobs", "parts", "listings"))
        return [str(path) for path in paths if path.is_file()]


@dataclass
class Promote(Victim):
    """A promotion of signed images; after each round the channel goes back, so that there is one to make again."""

    team: signed.SigningTeam
    moved: bool = False

    def begin(self) -> None:
        """Let the channel go back, if it has moved."""
        if self.moved:
            self.site.run("inv", "release.rollback", *CHANNEL, "--why", "again", *self._where(), **self.more())
        self.moved = True

    def words(self) -> Sequence[str]:
        """Promote what was pushed last."""
        return ("inv", "release.promote", *CHANNEL, "--no-soak", "again", *self._where())

    def _where(self) -> Sequence[str]:
        return ("--ledger", f"{self.team.ledger}#ledger", "--yes")

    def more(self) -> Mapping[str, str]:
        """The keys and the registry of the team."""
        keys = {signing.KEY: str(self.team.key), signing.PUBLIC_KEY: str(self.team.key.with_suffix(".pub"))}
        return {**keys, VARIABLE: f"{self.team.host}/team", "COSIGN_PASSWORD": ""}

    def ledger(self) -> Ledger:
        """Return the ledger, whose lines are checked against each other."""
        return Ledger.parse(git(self.team.ledger, "cat-file", "blob", f"ledger:{FILE}"))

    def corrupt(self) -> list[str]:
        """Every line of the ledger follows from the one before, and every tag leads to one of the images that it names."""
        known = set(chain.from_iterable(entry.images.values() for entry in self.ledger().entries))
        return [tag for tag in self.ledger().state.tags if self.team.tag(tag) not in known]

    def lost(self) -> list[str]:
        """All tags are where the ledger says."""
        return [tag for tag, digest in self.ledger().state.tags.items() if self.team.tag(tag) != digest]


VERBS: Final = ("build", "push", "prune", "promote")


@pytest.fixture
def victim(request: pytest.FixtureRequest, site: Site) -> Victim:
    """Give the verb that is killed."""
    kinds: Mapping[str, type[Victim]] = {"build": Build, "push": Push, "prune": Prune}
    return kinds[request.param](site) if request.param in kinds else Promote(site, _team(site))


def _team(site: Site) -> signed.SigningTeam:
    """Give a team whose channel has moved twice."""
    team = signed.SigningTeam.at(site.served.host, site.work)
    for mark in (1, 2):
        signed.push(team, mark)
        moving = Promote(site, team)
        site.run(*moving.words(), **moving.more())
    return team


def killed(victim: Victim, number: signal.Signals, moment: float) -> str:
    """Run the verb and end it at a moment, in seconds; return what became of it: the signal, ``interrupted``, ``done``, or what it must not be."""
    child = victim.site.start(*victim.words(), **victim.more())
    timer = threading.Timer(moment, victim.site.kill, (child, number))
    timer.start()
    status = child.status()
    timer.cancel()
    timer.join()
    if "Traceback" in (said := child.output.read_text()):
        return f"traceback {said[-1500:]}"
    return {0: "done", -signal.SIGKILL: "killed", -signal.SIGTERM: "ended", errors.INTERRUPTED: "interrupted"}.get(status, f"status {status}: {said[-500:]}")


@pytest.mark.parametrize(("victim", "verb"), [(verb, verb) for verb in VERBS], indirect=["victim"], ids=VERBS)
def test_a_verb_that_dies_at_any_moment(victim: Victim, verb: str, request: pytest.FixtureRequest) -> None:
    """0 corrupt, 0 lost, 0 left after the next run; and whoever is asked to end says so in one line."""
    rounds, seed, end = request.config.option.rounds, request.config.option.seed, time.monotonic() + (request.config.option.seconds or float("inf"))
    chance, count, wrong = random.Random(f"{seed} {verb}"), collections.Counter[str](), list[str]()
    victim.begin()
    usual = victim.site.run(*victim.words(), **victim.more())
    wrong += victim.lost()
    for each in range(rounds):
        if time.monotonic() > end:
            break
        victim.begin()
        fate = killed(victim, SIGNALS[each % 2], chance.uniform(0, usual))
        count[fate.split()[0]] += 1
        found = {"corrupt": victim.corrupt()}
        again = victim.site.start(*victim.words(), **victim.more())
        found["lost"] = [again.output.read_text()[-1500:]] if again.status() else victim.lost()
        found["left"] = victim.site.left()
        count.update({name: bool(what) for name, what in found.items()})
        wrong += [f"round {each}, {fate}: {name}: {what}" for name, what in found.items() if what]
        wrong += [fate] if fate.startswith(("traceback", "status")) else []
    told = ("killed", "interrupted", "ended", "done", "corrupt", "lost", "left")
    sums = {name: count[name] for name in told} | {"rounds": sum(count[name] for name in told[:4]), "seconds undisturbed": round(usual, 2)}
    figures.tell(f"kill -9 and SIGTERM: {verb}", seed, sums, keep=request.config.option.record)
    assert wrong == []
