"""Writes the lists of required tests from what is collected: every test, whatever image or machine it applies to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchstrata.verification import required
from torchstrata.verification.required import Key, Required

KINDS = {"cuda", "vision", "audio", "audiofiles", "named", "multigpu", "costly", "native"}
"""Markers that name a section beside its flavour."""


def tier_of(item: pytest.Item, *, machine: bool) -> str:
    """Return the tier that a test belongs to, on a machine that is not a container or on an image."""
    return "gpu" if item.get_closest_marker("gpu") else "host" if machine else "free"


def section_of(item: pytest.Item, flavour: str) -> str:
    """Return the section of the list that a test belongs to: its flavour, and what else an image must have."""
    marks = {mark.name for mark in item.iter_markers()}
    # The other tiers need no such section: free is all containers, host has none.
    kinds = KINDS | {"container"} if "gpu" in marks else KINDS
    return " ".join([flavour, *sorted(marks & kinds)])


class Lister:
    """Takes the place of a run.

    :param folder: the checkout that the lists go to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the lists and end."""
        if session.testsfailed:
            return
        for tier in ("free", "gpu", "host"):
            keys = [key for item in session.items for key in _keys(item, tier)]
            required.write(Required(tier=tier, cases=Counter(keys)), self.folder)
            print(f"{tier}: {len(keys)} cases")
        pytest.exit("the lists are written; look at the difference", returncode=0)


def _keys(item: pytest.Item, tier: str) -> Iterator[Key]:
    """Yield the line of a test in the list of ``tier``, if it belongs there."""
    machine = tier == "host"
    if tier_of(item, machine=machine) == tier and not (machine and item.get_closest_marker("container")):
        section = dict(item.user_properties)["section"]
        yield required.key(section, item.nodeid)
