"""Attacks on the ledger by somebody with the registry's password, with the right to push to the ledger's branch, or with both; none has a key.

What is forged is well made: each line fits the one before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools

import pytest

from tests import desks
from tests.desks import REPOSITORY, git, publication
from torchstrata.errors import LedgerError, TorchstrataError, UntrustedError
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.registry.upload import Source
from torchstrata.release import ledger_copy
from torchstrata.release.ledger import FILE, Author, Ledger, Move
from torchstrata.release.ledger_memory import Memory

MALLORY = Author(name="Ada", email="ada@team.example")
"""Who forges writes another's name."""


class Forger:
    """Somebody who may write wherever there is no key in the way."""

    def __init__(self, desk, root):
        self.desk, self.remote = desk, root / "remote.git"
        self.registry = desk.registry

    def branch(self, ledger):
        """Make the branch say something else, with a history of its own."""
        self.write(ledger.content, FILE)

    def write(self, content, name, ref="refs/heads/ledger"):
        """Make a ref name a commit with one file."""
        blob = git("-C", self.remote, "hash-object", "-w", "--stdin", stdin=content).strip()
        tree = git("-C", self.remote, "mktree", stdin=f"100644 blob {blob}\t{name}\n".encode()).strip()
        commit = git("-C", self.remote, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "tidy", tree).strip()
        git("-C", self.remote, "update-ref", ref, commit)
        return commit

    def delete_branch(self):
        """Delete the branch."""
        git("-C", self.remote, "update-ref", "-d", "refs/heads/ledger")

    def delete_copy(self):
        """Delete the copy, as registries do it: its manifest goes."""
        self.registry.remove(REPOSITORY, self.registry.find(REPOSITORY, ledger_copy.TAG).digest)

    def copy(self, body):
        """Let the copy's tag name another manifest."""
        return self.registry.put_manifest(REPOSITORY, ledger_copy.TAG, body, MANIFEST)

    def unsigned_copy(self, ledger):
        """Put a copy there that nobody has signed."""
        self.registry.push_blob(REPOSITORY, Source.of(ledger.content))
        layer = {"mediaType": ledger_copy.LINES, "digest": sha256(ledger.content), "size": len(ledger.content)}
        body = self.registry.manifest(REPOSITORY, ledger_copy.TAG).body
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}
        assert body
        self.copy(canonical({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ledger_copy.ARTIFACT, "config": config, "layers": [layer]}))


@pytest.fixture(name="desk")
def _desk(tmp_path):
    """Give a person whose stable channel went from one to two; a dry run shows that nothing has to move."""
    with desks.desk(tmp_path) as made:
        for mark in ("one", "two"):
            made.clock.pass_(minutes=1)
            made.publish(mark)
            made.clock.pass_(minutes=1)
            made.promote(no_soak="now")
        yield made


@pytest.fixture
def forger(desk, tmp_path):
    """Give somebody who means harm."""
    return Forger(desk, tmp_path)


@pytest.fixture
def state(tmp_path):
    """Return where a user remembers ledgers."""
    return tmp_path / "state" / "seen.json"


def remembering(desk, path):
    """Let the person remember what they see, and let them see the ledger as it is."""
    desk.releases = dataclasses.replace(desk.releases, memory=Memory(name="the ledger", path=path))
    desk.releases.read()
    return desk


def back(ledger):
    """Return a ledger with one more entry: stable goes back to what it held before."""
    entry = ledger.history("stable", "2.8-cu121-debian13")[0]
    image_of = {digest: image for image, digest in entry.images.items()}
    tags = {tag: image_of[new] for tag, (_, new) in entry.tags.items() if new in image_of}
    move = Move(action="rollback", channel="stable", cell=entry.cell, images=entry.images, tags=tags, why="all is well")
    return ledger.append([move], MALLORY, entry.moment + dt.timedelta(days=1))


def anew(ledger):
    """Return a ledger of one move to the images that stable held first."""
    entry = ledger.entries[1]
    move = Move(action="publish", channel="nightly", cell=entry.cell, images=entry.images, tags={}, why="the first one")
    return Ledger().append([move], MALLORY, entry.moment)


def first(ledger, count):
    """Return the first lines of a ledger."""
    return Ledger(lines=ledger.lines[:count])


def attempts(desk):
    """Yield all that reads the ledger to move something, by name."""
    yield "promote", lambda: desk.propose(no_soak="now")
    yield "publish", lambda: publication(desk.releases, {}, "")
    yield "rollback", lambda: desk.releases.rollback([desk.cell()], desk.matrix.channel("stable"), "why")
    yield "note", lambda: desk.releases.note(desk.matrix.channel("nightly"), "nothing")
    yield "repair", desk.releases.repair


def refused(desk, code):
    """Assert that whatever would move something ends with a code and one line, and that nothing has moved; return the lines."""
    tags, copy = desk.moving(), desk.tag(ledger_copy.TAG)
    lines = {}
    for name, attempt in attempts(desk):
        with pytest.raises(TorchstrataError) as caught:
            attempt()
        assert (name, caught.value.code) == (name, code)
        assert f"{caught.value.what}{caught.value.fix}".isprintable()
        lines[name] = caught.value.what
    assert (desk.moving(), desk.tag(ledger_copy.TAG)) == (tags, copy)
    return lines


# With the branch


def test_a_forged_entry_is_not_believed(desk, forger):
    """An entry after the last one, well made, that rolls stable back to verified images: nobody who is trusted has signed it."""
    forger.branch(back(desk.ledger()))
    assert "entries 5 to 5 of the branch are signed by nobody" in refused(desk, 37)["repair"]


def test_a_forged_time_lets_nothing_soak(desk, forger):
    """The same images once more, a week ago: the soak time would be over."""
    lines = desk.ledger()
    (entry,) = lines.entries[-2:-1]
    move = Move(action="publish", channel="nightly", cell=entry.cell, images=entry.images, tags={}, why="x")
    forger.branch(lines.append([move], MALLORY, entry.moment - dt.timedelta(days=7)))
    refused(desk, 37)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_branch_that_was_cut_back_or_deleted_is_not_believed(desk, forger, count):
    """The copy has more entries."""
    if count:
        forger.branch(first(desk.ledger(), count))
    else:
        forger.delete_branch()
    assert f"they part at entry {count + 1}" in refused(desk, 37)["repair"]


def test_another_ref_is_not_taken_for_the_branch(desk, forger):
    """Git lists ``refs/heads/a/refs/heads/ledger``, which anybody may push, before the protected branch, even where its commit is at hand."""
    before = desk.ledger()
    commit = forger.write(back(before).content, FILE, "refs/heads/a/refs/heads/ledger")
    git("-C", desk.releases.branch.root, "fetch", "--quiet", "origin", commit)
    assert desk.ledger() == before
    assert desk.releases.repair()[0] == before


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "another"),
        (b"\x00" * 65_000_000, FILE),
        (b"[" * 2_000_000 + b"\n", FILE),
        (b"\xff\xfe\n", FILE),
    ],
    ids=["no file", "65 MB", "deep", "no text"],
)
def test_a_branch_that_holds_no_ledger_ends_in_one_line(desk, forger, content, name):
    """Whatever somebody has pushed there."""
    forger.write(content, name)
    refused(desk, 37)


def test_what_a_terminal_obeys_is_not_in_an_entry(desk, forger):
    """A reason that clears the screen and says that all is well is no entry."""
    lines = desk.ledger()
    forged = back(lines).lines[-1].replace("all is well", r"\u001b[2Jall is well")
    forger.branch(Ledger(lines=(*lines.lines, forged)))
    assert "line 5 is not as this program writes entries" in refused(desk, 37)["repair"]


# With the registry's password


def test_a_deleted_copy_stops_everything_until_a_person_says_how_long_the_branch_is(desk, forger):
    """Repair names the number; another one is refused; with the right one, the branch is signed as it is, and all goes on."""
    forger.delete_copy()
    assert "the branch has 4 entries, and" in refused(desk, 37)["repair"]
    with pytest.raises(LedgerError, match="the branch has 4 entries, not 3"):
        desk.releases.repair(3)
    ledger, _ = desk.releases.repair(4)
    assert desk.releases.copied() == ledger == desk.ledger()
    desk.publish("three")


def test_a_copy_that_nobody_has_signed_is_not_believed(desk, forger):
    """With a branch beside it that says the same, or not."""
    forger.unsigned_copy(back(desk.ledger()))
    refused(desk, 35)


def test_an_older_copy_undoes_nothing(desk, forger):
    """Replayed, with its signature: the branch goes on from it, and all that it says beyond is signed; repair brings the copy up to date."""
    old = desk.registry.manifest(REPOSITORY, ledger_copy.TAG).body
    desk.publish("three")
    before = desk.ledger()
    forger.copy(old)
    assert desk.releases.read().ledger == before
    assert desk.releases.repair() == (before, ())
    assert desk.releases.copied() == before


def test_something_else_that_is_signed_is_no_copy(desk, forger):
    """An image, for one."""
    digest = desk.ledger().state.tags["v2.8"]
    desk.notary.signed.add(digest)
    forger.copy(desk.registry.manifest(REPOSITORY, digest).body)
    assert "is no ledger" in refused(desk, 37)["repair"]


def test_a_move_that_lost_a_race_is_no_copy(desk, forger, tmp_path):
    """Whoever comes second has signed a ledger that never came to be; put in the copy's place, it is not what the branch says."""
    other = desks.beside(desk, tmp_path / "other")
    images = other.push("lost")
    proposal = publication(other.releases, {other.cell(): images}, "too late")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(other.releases), "_compare", lambda *_: None)
        desk.publish("three")
        with pytest.raises(LedgerError) as caught:
            other.releases.carry_out(proposal)
    assert caught.value.code == 38
    (lost,) = [digest for digest in desk.notary.signed if _entries(desk, digest) == 5 and digest != _at(desk, 5)]
    forger.copy(desk.registry.manifest(REPOSITORY, lost).body)
    assert "they part at entry 5" in refused(desk, 37)["repair"]


def _entries(desk, digest):
    """Return how many entries the copy with a digest has; 0 if it is none, or is gone."""
    if not desk.registry.find(REPOSITORY, digest):
        return 0
    return int(ledger_copy.read(desk.registry.manifest(REPOSITORY, digest).body, digest).annotations[ledger_copy.ENTRIES])


def _at(desk, count):
    """Return the digest of the copy of the first entries."""
    return sha256(ledger_copy.body(first(desk.ledger(), count)))


def test_repair_moves_no_tag_to_an_image_that_does_not_hold(desk, forger):
    """A tag was moved by hand, and the signatures of the image that it must name are gone: code 35, and nothing moves."""
    images = desk.ledger().state.images("stable", "2.8-cu121-debian13")
    other = desk.image(desk.cell(), "devel", "by hand")
    for tag in ("2.8-devel", "v2.8"):
        desk.registry.put_manifest(REPOSITORY, tag, desk.registry.manifest(REPOSITORY, other).body, MANIFEST)
    desk.notary.tested.discard(images["devel"])
    before = desk.moving()
    with pytest.raises(UntrustedError) as caught:
        desk.releases.repair()
    assert (caught.value.code, desk.moving()) == (35, before)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"config": {"Labels": []}}, "is no image"),
        ({"config": None}, "is no image"),
        ([], "is no image"),
        ({"config": {"Labels": {"torchstrata.cell": "\x1b[2J"}, "User": "0"}}, "is another image"),
    ],
)
def test_an_image_of_any_shape_is_refused_in_one_line(desk, config, says):
    """A pushed image whose config is not what configs are."""
    content = canonical(config)
    for image in ("base", "devel", "v2.8"):
        desks.manifest(desk.registry, REPOSITORY, f"2.8.0-cu121-debian13-{image}-20261124.9", [content], content)
    (refusal,) = desk.propose(channel="nightly").refusals
    assert says in refusal.why
    assert refusal.why.isprintable()


# With both


@pytest.mark.parametrize("forge", [back, lambda ledger: first(ledger, 3), anew], ids=["longer", "shorter", "another"])
def test_a_branch_rewritten_after_its_copy_was_deleted_is_not_believed(desk, forger, forge):
    """And repair, which signs, refuses it: more than a first move has no copy, or a first move that nobody has signed."""
    forger.branch(forge(desk.ledger()))
    forger.delete_copy()
    refused(desk, 37)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_whoever_has_seen_more_does_not_believe_an_older_copy_with_a_branch_cut_back(desk, forger, state, count):
    """All is signed and fits; but this user has seen entry 4."""
    remembering(desk, state)
    lines = desk.ledger()
    forger.copy(ledger_copy.body(first(lines, count)))
    forger.branch(first(lines, count))
    said = refused(desk, 37)["repair"]
    assert f"had 4 entries when you saw it last, and it has {count} now" in said
    with pytest.raises(LedgerError, match="4 entries"):
        desk.releases.copied()


def test_whoever_has_seen_nothing_cannot_tell_an_older_copy_with_a_branch_cut_back(desk, forger, tmp_path):
    """A limit, which docs/security.md states: a fresh clone believes what was true once."""
    lines = desk.ledger()
    forger.copy(ledger_copy.body(first(lines, 2)))
    forger.branch(first(lines, 2))
    fresh = desks.beside(desk, tmp_path / "fresh")
    assert fresh.releases.read().ledger == first(lines, 2)


def test_a_memory_goes_on_with_the_ledger(desk, state):
    """It never keeps anybody from going on; entries of others count as seen when they were read, and fewer never replace more."""
    remembering(desk, state)
    desk.publish("three")
    lines = desk.releases.read().ledger
    desk.releases.memory.keep(first(lines, 2))
    assert desk.releases.memory.recall().entries == len(lines.lines) == 5


def test_every_fabricated_order_of_signed_ledgers_is_refused_or_true(desk, forger, state):
    """Any older copy with any older branch: what is believed is the present ledger, or one of code 37 says that it is not."""
    remembering(desk, state)
    lines = desk.ledger()
    believed = []
    for copy, branch in itertools.product(range(1, 5), repeat=2):
        forger.copy(ledger_copy.body(first(lines, copy)))
        forger.branch(first(lines, branch))
        with contextlib.suppress(LedgerError):
            believed.append((copy, branch, desk.releases.read().ledger == lines))
    assert believed == [(copy, 4, True) for copy in range(1, 5)]
