"""Scopes: how many of its tests an image runs, by one rule for what is collected and for what is required."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from torchstrata.verification import required
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.required import Key, Required
from torchstrata.verification.subject import Subject

Scope = Literal["quick", "full"]

ALWAYS: Final = frozenset({"test_truth", "test_hygiene"})
"""Modules of what each image is: they depend on every one of its parts."""
OF_THE_START: Final = frozenset({"test_users"})
"""Modules of how a container starts, which depends on its flavour's services and hardly on its packages."""
ONLY_THERE: Final = frozenset({"cuda", "vision", "audio", "audiofiles"})
"""What a cell without CUDA does not have."""
COSTLY: Final = "costly"
"""Marks tests of five core-seconds or more whose promise a change of a day hardly touches, or a cheaper one holds too: nights run them."""


def includes(scope: Scope, key: Key, expected: Expectation) -> bool:
    """Return whether a test runs on an image in a scope.

    What an image does hardly depends on its torch, so one runs all but what is costly in a quick scope: the
    all-in-one, which contains most flavours, of a cell without CUDA. That of a cell with CUDA runs what only such a
    cell has. A flavour beside it runs its own tests by the same rule, and with the first flavour those of a start.
    """
    section, module, _ = key
    flavour, *marks = section.split()
    if scope == "full" or module in ALWAYS:
        return True
    if COSTLY in marks or (expected.facts.cuda_version is not None and ONLY_THERE.isdisjoint(marks)):
        return False
    if expected.is_all_in_one or (flavour == expected.flavour and expected.is_beside):
        return True
    return module in OF_THE_START and (expected.is_beside or len(expected.lineage) == 1)


def tiers(subject: Subject) -> tuple[str, ...]:
    """Return the tiers that a verification of the subject covers."""
    first = "free" if subject.image else "host"
    return (first, "gpu") if subject.gpu else (first,)


def sections(subject: Subject, known: Collection[str]) -> frozenset[str]:
    """Return those of the ``known`` sections of a list that apply to the subject."""
    return required.sections((*subject.expected.lineage, "gpu"), subject.applies | {COSTLY}, known)


def lists(subject: Subject, scope: Scope) -> dict[str, Required]:
    """Return what is required of the subject in a scope, by tier."""
    return {tier: _restricted(required.read(tier), subject, scope) for tier in tiers(subject)}


def _restricted(list_of_tier: Required, subject: Subject, scope: Scope) -> Required:
    expected, apply = subject.expected, sections(subject, list_of_tier.sections)
    return list_of_tier.restrict(lambda key: key[0] in apply and includes(scope, key, expected))
