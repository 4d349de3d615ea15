"""Thousands of random changes of a ledger and of its signed copy, by a seed that is printed: ``--hypothesis-seed=N`` repeats a run."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests import mutating
from tests.hostileledger import AttackedTeam, ledger
from torchstrata.release import ledger_copy

CONTENT = ledger().content
BODY = ledger_copy.body(ledger())


@pytest.fixture
def number(request, record_property) -> int:
    """Return the seed: the one that was given, else a new one."""
    given_seed = request.config.getoption("--hypothesis-seed", default=None)
    chosen = int(given_seed) if given_seed not in {None, "random"} else secrets.randbits(32)
    record_property("seed", chosen)
    print(f"seed {chosen}")
    return chosen


@pytest.mark.parametrize("what", ["branch", "lines of the copy", "both", "manifest of the copy"])
def test_no_change_is_believed(number, what, request) -> None:
    """Bits, pieces, lines and values: each ends in one line and a code, moves nothing, and nothing is believed that was not true."""

    @seed(number)
    @settings(max_examples=request.config.option.changes, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def change(data: st.DataObject) -> None:
        made = AttackedTeam.make()
        content = data.draw(mutating.of(BODY + b"\n" if what.startswith("manifest") else CONTENT))
        if what in {"branch", "both"}:
            made.branch.content = content
        if what in {"lines of the copy", "both"}:
            made.registry.blobs = {digest: content if blob == CONTENT else blob for digest, blob in made.registry.blobs.items()}
        if what.startswith("manifest"):
            made.registry.put_manifest("", ledger_copy.TAG, content, "")
        made.check()

    change()
