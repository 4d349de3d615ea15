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
BELOW: Final = frozenset({"test_users"})
"""Modules that run on flavours whose other tests the all-in-one of a cell without CUDA runs."""
ONLY_THERE: Final = frozenset({"cuda", "vision", "audio", "audiofiles"})
"""What a cell without CUDA does not have."""
COSTLY: Final = "costly"
"""Marks tests of ten core-seconds or more whose promise a change of a day hardly touches: nights run them."""


def includes(scope: Scope, key: Key, expected: Expectation) -> bool:
    """Return whether a test runs on an image in a scope.

    What an image does hardly depends on its torch, so one runs all but what is costly in a quick scope: the
    all-in-one, which contains most flavours, of a cell without CUDA. That of a cell with CUDA runs what only such a
    cell has. A flavour beside it runs its own tests by the same rule.
    """
    section, module, _ = key
    flavour, *marks = section.split()
    if scope == "full" or module in ALWAYS:
        return True
    if not expected.is_all_in_one and not (flavour == expected.flavour and expected.is_beside):
        return module in BELOW
    return COSTLY not in marks and (expected.facts.cuda_version is None or not ONLY_THERE.isdisjoint(marks))


def tiers(subject: Subject) -> tuple[str, ...]:
    """Return the tiers that a verification of the subject covers."""
    first = "free" if subject.image else "host"
    return (first, "gpu") if subject.gpu else (first,)


def sections(subject: Subject, known: Collection[str]) -> frozenset[str]:
    """Return those of the ``known`` sections of a list that apply to the subject."""
    return required.sections((*subject.expected.chain, "gpu"), subject.applies | {COSTLY}, known)


def lists(subject: Subject, scope: Scope) -> dict[str, Required]:
    """Return what is required of the subject in a scope, by tier."""
    return {tier: _restricted(required.read(tier), subject, scope) for tier in tiers(subject)}


def _restricted(list_of_tier: Required, subject: Subject, scope: Scope) -> Required:
    expected, apply = subject.expected, sections(subject, list_of_tier.sections)
    return list_of_tier.restrict(lambda key: key[0] in apply and includes(scope, key, expected))
