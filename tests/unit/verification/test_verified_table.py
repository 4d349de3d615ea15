"""The table of verified images: it says what its facts say, and takes in evidence that holds."""

from __future__ import annotations

import pytest

from tests import records, verified
from tests.verified import VerifiedImage
from torchstrata.matrix import matrix
from torchstrata.verification.evidence import Counts


def proof(digest="a" * 64, **changes):
    """Return evidence of an image that passed its 7 tests in a minute and a half."""
    counts = Counts(required=7, passed=7, failed=0, missing=0)
    times = {"started": "2026-11-29T23:59:00Z", "finished": "2026-11-30T00:00:30Z"}
    return records.result(f"sha256:{digest}", **{"counts": counts, "scope": "full", **times, **changes})


KNOWN = {"2.13-cpu-debian12-base": VerifiedImage(digest="a" * 64, scope="full", tests=7, seconds=90, on="2026-11-30")}


def test_the_guide_says_what_the_facts_say():
    """`nox -s verified` would change nothing."""
    guide = verified.GUIDE.read_text(encoding="utf-8")
    assert verified.with_table(guide, verified.table(verified.read(), matrix.load())) == guide


def test_evidence_that_holds_is_taken_in():
    """With the day on which it ended."""
    assert verified.taken_in({}, [proof()]) == KNOWN


@pytest.mark.parametrize(
    "changes",
    [{"problems": ("one failed",)}, {"scope": "chosen"}, {"image": None}, {"counts": Counts(required=8, passed=7, failed=0, missing=1)}],
    ids=["failed", "chosen", "machine", "missing"],
)
def test_other_evidence_is_not(changes):
    """Nothing that proves less than it seems to gets into the table."""
    assert verified.taken_in({}, [proof(**changes)]) == {}


def test_a_quick_verification_does_not_replace_a_full_one_of_the_same_bytes():
    """Of other bytes it does: they are what is there now."""
    assert verified.taken_in(KNOWN, [proof(scope="quick")]) == KNOWN
    assert verified.taken_in(KNOWN, [proof("b" * 64, scope="quick")])["2.13-cpu-debian12-base"].scope == "quick"


def test_an_image_of_another_platform_has_a_row_of_its_own():
    """It takes nobody's place."""
    both = verified.taken_in(KNOWN, [proof("b" * 64, platform="linux/arm64")])
    assert {name: fact.digest[:1] for name, fact in both.items()} == {"2.13-cpu-debian12-base": "a", "2.13-cpu-debian12-base-arm64": "b"}


def test_cells_of_another_platform_are_named():
    """A row that is offered on two platforms has two cells for each OS."""
    arm = {"2.15-cu132-debian13-base-arm64": KNOWN["2.13-cpu-debian12-base"]}
    said = verified.table(arm, matrix.load())
    assert "| `2.15-cu132-debian13-base-arm64` |" in said
    assert "`2.15-cu132-debian13`" in said
    assert "`2.15-cu132-debian13-arm64`" not in said
    assert "`2.15-cu132-debian12-arm64`" in said


def test_cells_without_a_verified_image_are_named():
    """Whatever is in the matrix is in the table or in the line below it."""
    committed = matrix.load()
    said = verified.table(KNOWN, committed)
    assert all(f"`{cell.id}" in said for cell in committed.cells)
    assert "| `2.13-cpu-debian12-base` | `aaaaaaaaaaaa` | full | 7 | 90 | 2026-11-30 |" in said
