"""Whatever somebody changes in the ledger's branch or in its signed copy: one line and a code, and nothing is believed that was not true."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import mutating
from tests.hostileledger import AttackedTeam, ledger, outcome
from torchstrata.errors import LedgerError
from torchstrata.release import ledger_copy
from torchstrata.release.ledger import Ledger

CONTENT = ledger().content
BODY = ledger_copy.body(ledger())


def test_what_nobody_has_changed_is_believed() -> None:
    """Else nothing that follows would show anything."""
    made = AttackedTeam.make()
    for attempt in made.attempts():
        attempt()
    assert len(made.branch.read().ledger.lines) > len(ledger().lines)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(mutating.of(CONTENT))
def test_a_changed_branch_moves_nothing(content: bytes) -> None:
    """Bits, pieces, lines and values; read, promote, roll back, note and repair."""
    made = AttackedTeam.make()
    made.branch.content = content
    made.check()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(mutating.of(CONTENT), st.booleans())
def test_changed_lines_of_the_copy_move_nothing(content: bytes, also_branch: bool) -> None:  # noqa: FBT001  # hypothesis draws it
    """The client of registries sees other bytes than the digest says; with a branch beside it that says the same, or not."""
    made = AttackedTeam.make()
    made.registry.blobs = {digest: content if blob == CONTENT else blob for digest, blob in made.registry.blobs.items()}
    made.branch.content = content if also_branch else made.branch.content
    made.check()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(mutating.of(BODY + b"\n"), st.booleans())
def test_a_changed_manifest_of_the_copy_moves_nothing(body: bytes, is_signed: bool) -> None:  # noqa: FBT001  # hypothesis draws it
    """It is another one, which nobody has signed; and if somebody with the key has signed it, its shape is checked all the same."""
    made = AttackedTeam.make()
    made.registry.put_manifest("", ledger_copy.TAG, body, "")
    if is_signed:
        made.releases.guard.sign(made.registry, "", made.registry.find("", ledger_copy.TAG).digest)  # type: ignore[arg-type, union-attr]
    made.check()


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), mutating.of(CONTENT)))
def test_any_bytes_are_a_ledger_or_none(content: bytes) -> None:
    """What is understood is written again as it was read, byte by byte; all else is a LedgerError."""
    believed = outcome(lambda: Ledger.parse(content))
    if isinstance(believed, Ledger):
        assert believed.content == content
        assert len(believed.entries) == len(believed.lines)
        assert believed.state
    else:
        assert isinstance(believed, LedgerError)
