"""What the watchdog finds wrong with channels."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from torchstrata.matrix import matrix
from torchstrata.nightly import watchdog
from torchstrata.release import channels
from torchstrata.release.ledger import Author, Ledger, Move

MATRIX = matrix.load()
NOW = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
(CELL,) = matrix.select(MATRIX, "2.13-cpu")
WHO = Author(name="x", email="")


def move(channel, mark, action="publish", images=None):
    """Return a move of all images of the cell, or of some."""
    found = {image: f"sha256:{mark}{number:063x}" for number, image in enumerate(images or channels.images(MATRIX, CELL))}
    tags = {tag: image for tag, image in channels.moving(MATRIX, MATRIX.channels[channel], CELL).items() if image in found}
    return Move(action=action, channel=channel, cell=CELL.id, images=found, tags=tags, why="x")


def ledger(*moves):
    """Return a ledger of moves with the hours after which they came."""
    made = Ledger()
    for hours, each in moves:
        made = made.append([each], WHO, NOW + dt.timedelta(hours=hours))
    return made


def barks(made, hours, *, gone=(), elsewhere=(), table=MATRIX, lacking=lambda *_: ()):  # noqa: PLR0913  # what a registry may be like
    """Return what is said, so many hours after the first entry."""
    tags = {tag: digest for tag, digest in made.state.tags.items() if tag not in elsewhere}

    def point(name):
        return None if name in gone else name if name.startswith("sha256:") else tags.get(name)

    return [str(problem) for problem in watchdog.problems(table, made.state, point, lacking, NOW + dt.timedelta(hours=hours))]


BOTH = ledger((0, move("nightly", "a")), (24, move("stable", "a", "promote")))


CHECK = Move(action="check", channel="nightly", cell="*", images={}, tags={}, why="x")
SEEN = BOTH.append([CHECK], WHO, NOW + dt.timedelta(hours=30))
AHEAD = ledger(
    (0, move("nightly", "a")),
    (24, move("stable", "a", "promote")),
    (30, move("nightly", "b")),
    (120, move("nightly", "b")),
)
BACK = ledger(
    (0, move("nightly", "a")),
    (24, move("stable", "a")),
    (30, move("nightly", "b")),
    (54, move("stable", "b")),
    (60, move("stable", "a", "rollback")),
    (150, move("nightly", "b")),
)
FEW = ledger((0, move("nightly", "a", images=("base",))))
LACKING = ", ".join([*list(MATRIX.flavours)[1:], "v2.13"])


@pytest.mark.parametrize(
    ("made", "hours", "said"),
    [
        (BOTH, 36, []),
        (BOTH, 37, ["nightly: nobody has looked after it for 37 h, more than 36 h"]),
        (SEEN, 66, []),
        (Ledger(), 0, ["nightly: there has never been anything in it"]),
        (AHEAD, 30 + 96, []),
        (AHEAD, 30 + 97, [f"stable: {CELL.id} lags behind nightly by 97 h, more than 96 h"]),
        (BACK, 151, []),
        (FEW, 1, [f"nightly: {CELL.id} lacks {LACKING}"]),
    ],
    ids=["well", "left alone", "nothing to do", "empty", "in time", "late", "rolled back", "incomplete"],
)
def test_what_is_said_of_channels(made, hours, said):
    """A night that finds nothing to do says so; stable may lag as long as matrix.yaml says, or after a rollback."""
    assert barks(made, hours) == said


def test_an_image_that_is_gone():
    """Every tag that should lead to it is named, with its channel."""
    digest = BOTH.state.tags["2.13-cpu-devel"]
    found = barks(BOTH, 30, gone={digest})
    assert f"stable: 2.13-cpu-devel: its image {digest[:19]} is gone" in found
    assert {line.partition(": its image")[0] for line in found} == {
        *(f"stable: {tag}" for tag in ("2.13-cpu-debian12-devel", "2.13-cpu-devel", "2.13-devel")),
        *(f"nightly: {tag}" for tag in ("nightly-2.13-cpu-debian12-devel", "nightly-2.13-cpu-devel")),
    }


def test_a_tag_that_is_elsewhere():
    """Somebody has moved or removed it by hand."""
    assert barks(BOTH, 30, elsewhere={"v2.13"}) == [f"stable: v2.13 points to nothing, and the ledger says {BOTH.state.tags['v2.13'][:19]}"]


def test_an_index_that_has_lost_a_platform():
    """The tag is right and the index is there, yet nodes of that platform have nothing to run; a cell of one platform is not asked about."""
    cells = tuple(dataclasses.replace(each, platforms=("linux/amd64", "linux/arm64")) if each == CELL else each for each in MATRIX.cells)
    half = BOTH.state.images("stable", CELL.id)["devel"]

    def lacking(_, digest):
        return ("linux/arm64",) if digest == half else ()

    table = dataclasses.replace(MATRIX, cells=cells)
    lines = {f"{channel}: {CELL.id} devel has no image for linux/arm64" for channel in ("nightly", "stable")}
    assert set(barks(BOTH, 30, table=table, lacking=lacking)) == lines
    assert barks(BOTH, 30, lacking=lacking) == []
