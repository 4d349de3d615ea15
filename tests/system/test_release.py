"""Channels on a real registry and a real git remote: promote, soak, roll back, race, crash, and read it all from the registry alone.

Images are made by hand, small ones. Who signs and what was tested is decided by a notary of these tests, except in the last
part, where cosign does.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading

import pytest

from tests import desks
from tests.desks import REPOSITORY, git, publication
from torchstrata.commands.nightly import Night
from torchstrata.errors import LedgerConflictError, LedgerError, NightlyError, ReleaseError, UntrustedError
from torchstrata.image import runtime
from torchstrata.image.compose import MANIFEST
from torchstrata.matrix import matrix
from torchstrata.release.ledger import FILE, Ledger
from torchstrata.release.moves import Releases
from torchstrata.release.proposals import Origin


@pytest.fixture
def colleague(desk, tmp_path):
    """Give a second person, with a checkout of their own of the same remote."""
    return desks.beside(desk, tmp_path / "other")


# Moving


@pytest.mark.quick
def test_a_publication_moves_the_nightly_tags_of_all_images(desk):
    """And no other tag; the ledger has one entry, which says why."""
    images = desk.publish("one")
    assert desk.moving() == {"nightly-2.8-cu121-base": images["base"], "nightly-2.8-cu121-devel": images["devel"], "nightly-v2.8": images["v2.8"]}
    (entry,) = desk.ledger().entries
    assert (entry.action, entry.channel, entry.cell, entry.images, entry.why) == ("publish", "nightly", "2.8-cu121-debian13", images, "mark one")


@pytest.mark.quick
def test_a_dry_run_moves_nothing(desk):
    """Neither a tag nor the ledger; it names every tag that would move, with old and new digest."""
    images = desk.publish("one")
    desk.clock.pass_(hours=24)
    before = desk.moving(), desk.ledger().content
    steps = {tag: (old, new) for _, tag, old, new in desk.propose().steps()}
    assert steps["2.8-cu121-devel"] == (None, images["devel"])
    of_flavours = map("-".join, itertools.product(("2.8-cu121-debian13", "2.8-cu121", "2.8"), ("base", "devel")))
    assert set(steps) == {*of_flavours, "v2.8", "latest"}
    assert (desk.moving(), desk.ledger().content) == before


@pytest.mark.quick
def test_a_promotion_is_by_digest(desk):
    """Stable tags get the very manifests that nightly has; nothing is built or pushed."""
    images = desk.publish("one")
    desk.clock.pass_(hours=24)
    stored = len(desk.registry.tags(REPOSITORY))
    desk.promote()
    assert desk.tag("2.8-cu121-devel") == desk.tag("2.8-devel") == desk.tag("nightly-2.8-cu121-devel") == images["devel"]
    assert desk.tag("v2.8") == desk.tag("latest") == images["v2.8"]
    assert len(desk.registry.tags(REPOSITORY)) == stored + 8
    assert desk.propose().settled == ("2.8-cu121-debian13",)


def test_images_soak(desk):
    """A minute too early is refused, with the time; a reason overrides it, and is in the ledger; a change starts the time anew."""
    desk.publish("one")
    desk.clock.pass_(hours=23, minutes=59)
    assert [refusal.why for refusal in desk.propose().refusals] == ["it soaks in nightly until 2026-11-25 03:00 UTC"]
    desk.publish("two")
    desk.clock.pass_(hours=1)
    assert "until 2026-11-26 02:59" in desk.propose().refusals[0].why
    assert desk.promote(no_soak="the fix cannot wait").entries[-1].why == "the fix cannot wait"


def test_what_did_not_soak_in_the_channel_before_is_refused(desk):
    """A build that was only pushed has soaked nowhere; its name is enough to take it into nightly."""
    images = desk.push("one")
    assert "takes what has soaked in nightly, not 20261124.1" in desk.propose(asked="20261124.1").refusals[0].why
    desk.promote(channel="nightly")
    assert desk.ledger().state.images("nightly", "2.8-cu121-debian13") == images


@pytest.mark.quick
def test_an_unverified_image_is_refused(desk):
    """One of three is enough to let none move; it is named."""
    images = desk.publish("one")
    desk.clock.pass_(hours=24)
    desk.notary.tested.discard(images["devel"])
    proposal = desk.propose()
    assert (proposal.moves, [refusal.why for refusal in proposal.refusals]) == ((), [f"{images['devel']} was not verified"])


def test_all_images_of_a_cell_move_together(desk):
    """A build of which a flavour is missing moves nowhere."""
    cell = desk.cell()
    body = desk.registry.manifest(REPOSITORY, desk.image(cell, "base", "one")).body
    desk.registry.put_manifest(REPOSITORY, desks.dated(cell, "base", 1), body, MANIFEST)
    assert "devel, v2.8 is not there, and all move together" in desk.propose(channel="nightly").refusals[0].why


def test_an_image_of_another_cell_is_refused(desk):
    """A dated tag may point to anything; the image says what it is."""
    desk.push("one")
    other = desk.image(desk.cell("2.8-cu128"), "base", "other")
    desk.notary.tested.add(other)
    body = desk.registry.manifest(REPOSITORY, other).body
    desk.registry.put_manifest(REPOSITORY, desks.dated(desk.cell(), "base", 2), body, MANIFEST)
    assert "which is another image: {'cell': '2.8-cu128-debian13'" in desk.propose(channel="nightly").refusals[0].why


def test_an_image_that_is_not_as_locked_is_refused(desk):
    """It says so itself; what differs is named, with what to do."""
    desk.push("one")
    drifted = desk.image(desk.cell(), "base", "two", {runtime.DRIFT: "less 1 -> 2, make 3 -> 4"})
    desk.notary.tested.add(drifted)
    body = desk.registry.manifest(REPOSITORY, drifted).body
    desk.registry.put_manifest(REPOSITORY, desks.dated(desk.cell(), "base", 2), body, MANIFEST)
    (refusal,) = desk.propose(channel="nightly").refusals
    assert refusal.why == "the OS packages of base are not as locked: less 1 -> 2, make 3 -> 4"
    assert "--locked" in refusal.fix


def test_an_image_that_is_gone_is_refused(desk):
    """Nobody promotes what cannot be pulled."""
    images = desk.publish("one")
    desk.clock.pass_(hours=24)
    desk.registry.remove(REPOSITORY, images["devel"])
    assert f"devel is gone: the registry has no {images['devel']}" in desk.propose().refusals[0].why


def test_cells_without_images_are_left_out_unless_none_is_left(desk):
    """A glob may match rows that nobody has pushed."""
    desk.publish("one")
    desk.clock.pass_(hours=24)
    stable = desk.matrix.channel("stable")
    proposal = desk.releases.promotion(desk.matrix.cells, stable, Origin(channel=desk.matrix.channel("nightly")))
    assert [move.cell for move in proposal.moves] == ["2.8-cu121-debian13"]
    with pytest.raises(ReleaseError, match=r"nightly: there are no images of 2\.8-cu128"):
        desk.propose(cell="2.8-cu128")


# Back


@pytest.mark.quick
def test_a_rollback_brings_back_what_was_there_before(desk):
    """All tags of all images, by digest; the reason is in the ledger."""
    first = desk.publish("one")
    desk.promote(no_soak="first")
    before = {tag: digest for tag, digest in desk.moving().items() if not tag.startswith("nightly")}
    desk.publish("two")
    desk.promote(no_soak="second")
    entry = desk.roll_back().entries[-1]
    assert {tag: digest for tag, digest in desk.moving().items() if not tag.startswith("nightly")} == before
    assert (entry.action, entry.images, entry.why) == ("rollback", first, "it is broken")


def test_what_was_rolled_back_is_not_promoted_again(desk):
    """A nightly run would else undo the rollback; a reason brings it back."""
    desk.publish("one")
    desk.promote(no_soak="first")
    second = desk.publish("two")
    desk.promote(no_soak="second")
    desk.roll_back()
    desk.clock.pass_(days=3)
    assert "were rolled back in stable before" in desk.propose().refusals[0].why
    assert desk.promote(no_soak="it was the host").state.images("stable", "2.8-cu121-debian13") == second


def test_a_rollback_to_an_entry(desk):
    """What the channel held when that entry was written, however far back; a second rollback goes one further."""
    sets = []
    for mark in ("one", "two", "three"):
        sets.append(desk.publish(mark))
        desk.promote(no_soak=mark)
    assert desk.roll_back().state.images("stable", desk.cell().id) == sets[1]
    assert desk.roll_back().state.images("stable", desk.cell().id) == sets[0]
    assert desk.roll_back(to=6).state.images("stable", desk.cell().id) == sets[2]


def test_there_may_be_nothing_to_go_back_to(desk):
    """The first images of a channel have none before them."""
    desk.publish("one")
    desk.promote(no_soak="first")
    refusals = desk.releases.rollback([desk.cell()], desk.matrix.channel("stable"), "why").refusals
    assert refusals[0].why == "stable held no other images of it before"


# Two at the same moment, and crashes


def test_of_two_concurrent_promotions_one_wins(desk, colleague):
    """The loser has moved nothing, and says so; run again, it goes on from what the winner did."""
    desk.publish("one")
    desk.publish("other", "2.8-cu128")
    mine, theirs = desk.propose(no_soak="mine"), colleague.propose(cell="2.8-cu128", no_soak="theirs")
    desk.releases.carry_out(mine)
    before = desk.moving()
    with pytest.raises(LedgerConflictError, match="somebody else wrote to the ledger"):
        colleague.releases.carry_out(theirs)
    assert desk.moving() == before
    colleague.promote(cell="2.8-cu128", no_soak="theirs")
    assert [entry.who.partition(" ")[0] for entry in desk.ledger().entries] == ["Ada", "Ada", "Ada", "Grace"]
    assert desk.moving() == desk.ledger().state.tags


def test_many_at_once_leave_a_whole_ledger(desk, colleague):
    """Both try until they have won five times; the ledger holds, and tags and the copy are as it says in the end."""
    marks = {who: [who.push(f"{name}{count}", cell) for count in range(5)] for who, name, cell in ((desk, "a", "2.8-cu121"), (colleague, "b", "2.8-cu128"))}
    colleague.notary.tested |= desk.notary.tested

    def publish(who, cell):
        for images in marks[who]:
            while True:
                try:
                    who.releases.carry_out(publication(who.releases, {who.cell(cell): images}, "race"))
                except LedgerConflictError:
                    continue
                break

    threads = [threading.Thread(target=publish, args=pair) for pair in ((desk, "2.8-cu121"), (colleague, "2.8-cu128"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = desk.ledger()
    assert len(ledger.entries) == 10
    assert desk.moving() == ledger.state.tags
    assert desk.releases.copied() == ledger


class PowerCut(BaseException):
    """The machine goes off."""


def test_a_crash_between_ledger_and_tags_is_repaired(desk, monkeypatch):
    """What the ledger says was meant; repair does it, says what it moved, and the second time finds nothing to do."""
    desk.publish("one")
    proposal = desk.propose(no_soak="now")

    def off(*_):
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Releases, "settle", off)
        with pytest.raises(PowerCut):
            desk.releases.carry_out(proposal)
    assert desk.tag("2.8-devel") is None
    ledger, astray = desk.releases.repair()
    assert set(astray) == {tag for tag in ledger.state.tags if not tag.startswith("nightly")}
    assert desk.moving() == ledger.state.tags
    assert desk.releases.copied() == ledger
    assert desk.releases.repair() == (ledger, ())


def test_a_tag_that_somebody_moved_by_hand_is_repaired(desk):
    """The ledger decides, not the registry."""
    images = desk.publish("one")
    other = desk.image(desk.cell(), "devel", "by hand")
    desk.registry.put_manifest(REPOSITORY, "nightly-2.8-cu121-devel", desk.registry.manifest(REPOSITORY, other).body, MANIFEST)
    assert desk.releases.repair()[1] == ("nightly-2.8-cu121-devel",)
    assert desk.tag("nightly-2.8-cu121-devel") == images["devel"]


def test_repair_tells_of_images_that_are_gone(desk):
    """All other tags are moved first."""
    images = desk.publish("one")
    desk.registry.remove(REPOSITORY, images["devel"])
    with pytest.raises(ReleaseError, match=r"nightly-2\.8-cu121-devel: the ledger's image is gone"):
        desk.releases.repair()
    assert desk.tag("nightly-v2.8") == images["v2.8"]


# The copy


def test_the_ledger_is_replayed_from_the_registry_alone(desk):
    """The same lines and the same state, without git; as a plain artifact that any client reads."""
    desk.publish("one")
    desk.promote(no_soak="first")
    desk.publish("two")
    desk.promote(no_soak="second")
    desk.roll_back()
    written = desk.ledger()
    manifest = json.loads(desk.registry.manifest(REPOSITORY, "ledger").body)
    (layer,) = manifest["layers"]
    assert layer["annotations"] == {"org.opencontainers.image.title": FILE}
    replayed = Ledger.parse(desk.registry.content(REPOSITORY, layer["digest"]))
    assert (replayed, replayed.state) == (written, written.state)
    assert replayed.state.tags == desk.moving()


def test_an_unsigned_copy_is_not_believed(desk):
    """Whoever may push could else rewrite history."""
    desk.publish("one")
    desk.notary.signed.clear()
    with pytest.raises(UntrustedError):
        desk.releases.copied()
    with pytest.raises(UntrustedError):
        desk.promote(no_soak="now")


def test_a_rewritten_branch_is_detected(desk, tmp_path):
    """A ledger that is whole in itself, but is not what was copied, moves nothing."""
    desk.publish("one")
    desk.publish("two")
    git("-C", tmp_path / "remote.git", "update-ref", "refs/heads/ledger", "ledger~1")
    before = desk.moving()
    with pytest.raises(LedgerError, match="part at entry 2"):
        desk.releases.repair()
    with pytest.raises(LedgerError, match="part at entry 2"):
        desk.publish("three")
    assert desk.moving() == before


def test_looking_after_a_channel_is_noted(desk):
    """An entry without a move, for the watchdog."""
    desk.publish("one")
    before = desk.moving()
    entry = desk.releases.note(desk.matrix.channel("nightly"), "nothing has changed").entries[-1]
    assert (entry.action, entry.cell, entry.images, entry.tags) == ("check", "*", {}, {})
    assert desk.moving() == before


# The night


@pytest.fixture
def night(desk, tmp_path, monkeypatch):
    """Return a function that runs a night over one cell of the committed matrix, whose images come out of ``mark``."""
    monkeypatch.setenv("TORCHSTRATA_CACHE", str(tmp_path / "store"))
    desk.releases = dataclasses.replace(desk.releases, matrix=matrix.load())
    desk.matrix, made = desk.releases.matrix, []

    def run(mark, *, step="cells", tested=True):
        def make(cell):
            made.append(mark)
            desk.push(mark, cell.id, tested=tested)

        Night(releases=desk.releases, globs=("2.13-cpu",), make=make).run(step=step)
        return made

    return run


@pytest.mark.quick
def test_a_night_makes_what_is_not_in_the_channel(desk, night, capsys):
    """The second night finds nothing to do, makes nothing, and says so in the ledger; no tag moves."""
    assert night("one") == ["one"]
    before = desk.moving()
    assert before["nightly-2.13-cpu-ssh"]
    assert night("two") == ["one"]
    assert [entry.action for entry in desk.ledger().entries] == ["publish", "check"]
    assert desk.moving() == before


def test_a_night_promotes_what_has_soaked(desk, night, capsys):
    """Not before; and that something still soaks is no failure."""
    night("one")
    night("one", step="promote")
    assert "stays: it soaks in nightly until 2026-11-25 03:00 UTC" in capsys.readouterr().out
    desk.clock.pass_(hours=24)
    night("one", step="promote")
    assert desk.tag("v2.13") == desk.tag("nightly-v2.13")
    assert desk.tag("2.13-cpu-devel") is not None


def test_a_night_does_not_undo_a_rollback(desk, night):
    """What a person has rolled back stays so, night after night, and is no failure either."""
    night("one")
    desk.clock.pass_(hours=24)
    night("one", step="promote")
    good = desk.tag("v2.13")
    images = desk.push("two", "2.13-cpu")
    desk.releases.carry_out(publication(desk.releases, {desk.cell("2.13-cpu"): images}, "by hand"))
    desk.clock.pass_(hours=24)
    night("two", step="promote")
    assert desk.tag("v2.13") == images["v2.13"]
    desk.releases.carry_out(desk.releases.rollback([desk.cell("2.13-cpu")], desk.matrix.channel("stable"), "it is broken"))
    desk.clock.pass_(hours=24)
    night("two", step="promote")
    assert desk.tag("v2.13") == good


def test_a_night_publishes_nothing_unverified(desk, night):
    """It fails, and the channel keeps what it has; the next night tries again."""
    night("one")
    before = desk.moving()
    desk.releases.carry_out(publication(desk.releases, {desk.cell("2.13-cpu"): desk.ledger().entries[-1].images}, "x"))
    undone = desk.push("bad", "2.13-cpu", tested=False)
    proposal = desk.propose(cell="2.13-cpu", channel="nightly")
    assert [refusal.why for refusal in proposal.refusals] == [f"{undone['base']} was not verified"]
    assert desk.moving() == before


def test_a_night_tells_what_could_not_be_done(desk, night):
    """With an exit code of its own."""
    with pytest.raises(NightlyError, match=r"2\.13-cpu-debian12: .* was not verified") as caught:
        night("bad", tested=False)
    assert caught.value.code == 40
    assert desk.moving() == {}
