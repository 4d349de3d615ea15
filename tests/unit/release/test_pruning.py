"""What may go from a registry, over a small model of one: images with days, a ledger, what belongs to them, and parts."""

from __future__ import annotations

import datetime as dt
from itertools import chain

import pytest

from torchstrata.commands import housekeeping
from torchstrata.commands.release_options import PruneOptions
from torchstrata.errors import MatrixError, PruneError
from torchstrata.image.compose import canonical, sha256
from torchstrata.matrix import matrix
from torchstrata.registry import client
from torchstrata.release import holdings, pruning
from torchstrata.release.ledger import Author, Ledger, Move
from torchstrata.release.pruning import HeldManifest, Holdings, Policy, Rule

NOW = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
WHO = Author(name="Ada", email="ada@team.example")
CELL = "2.8-cu121-debian13"
ALL = frozenset({"nightly", "stable"})
STRICT = {"nightly": Rule(count=1), "stable": Rule(count=1)}
SHARED = {"sha256:shared": 1000}


def digest(mark):
    """Return a digest that is easy to tell from others."""
    return sha256(mark.encode())


def image(mark, **more):
    """Return an image with a layer of its own of 100 bytes, and one that all images have."""
    return HeldManifest(digest=digest(mark), size=10, blobs={f"sha256:layer-{mark}": 100, **SHARED}, **more)


def tag(mark, days):
    """Return the tag of an image that was pushed so many days ago."""
    return f"2.8.0-cu121-debian13-base-{NOW - dt.timedelta(days=days):%Y%m%d}.1"


def hexed(mark, ending=""):
    """Return a tag that belongs to an image."""
    return f"sha256-{digest(mark).removeprefix('sha256:')}{ending}"


def repository(tags, *more, outdated=()):
    """Return holdings: an image per mark behind the tags, and further manifests."""
    marks = {mark: image(mark) for mark in tags.values()}
    known = {each.digest: each for each in (*marks.values(), *more)}
    return Holdings(tags={tag: digest(mark) for tag, mark in tags.items()}, manifests=known, outdated=frozenset(outdated))


def ledger(*steps):
    """Return a ledger of (channel, mark, days ago, action)."""
    made = Ledger()
    for channel, mark, days, *action in steps:
        move = Move(action=(action or ["publish"])[0], channel=channel, cell=CELL, images={"base": digest(mark)}, tags={f"{channel}-base": "base"}, why="x")
        made = made.append([move], WHO, NOW - dt.timedelta(days=days))
    return made


def policy(rules=None, chosen=ALL, **more):
    """Return what decides; by default, nothing of the past is kept that need not be."""
    return Policy(rules=STRICT if rules is None else rules, chosen=frozenset(chosen), entry="nightly", **more)


def gone(images, book=None, rules=None, parts=None):
    """Return the digests that would go from the images' repository."""
    plan = pruning.plan(images, parts or Holdings(), book or Ledger(), rules or policy(), NOW)
    return set(chain.from_iterable(removal.manifests for removal in plan.removals if not removal.is_part))


FOUR = {tag(mark, days): mark for mark, days in (("a", 40), ("b", 30), ("c", 20), ("d", 10))}
HISTORY = [("nightly", "a", 40), ("nightly", "b", 30), ("nightly", "c", 20), ("nightly", "d", 10)]


def test_a_tag_that_only_looks_dated_stays():
    """Whoever may push to a registry may call tags as they like; one of no day in particular is not this program's."""
    tags = {"2.8.0-cu121-debian13-base-20261399.1": "odd", tag("a", 40): "a", tag("b", 30): "b"}
    assert digest("odd") not in gone(repository(tags))


@pytest.mark.parametrize(
    ("later", "going"),
    [
        ([], {"a", "b"}),
        ([("nightly", "b", 5, "rollback")], {"a", "d"}),
        ([("stable", "a", 9, "promote")], {"b"}),
    ],
    ids=["present and previous", "what was rolled back may go", "another channel still holds it"],
)
def test_present_state_and_what_a_rollback_goes_to_stay(later, going):
    """However strict the rule is."""
    assert gone(repository(FOUR), ledger(*HISTORY, *later)) == {digest(mark) for mark in going}


@pytest.mark.parametrize(
    ("rule", "going"),
    [
        (Rule(count=3), "a"),
        (Rule(time=dt.timedelta(days=25)), "a"),
        (Rule(time=dt.timedelta(days=35)), ""),
        (Rule(count=1, time=dt.timedelta(days=25)), "a"),
        (Rule(count=9, time=dt.timedelta(days=1)), ""),
        (Rule(), ""),
    ],
)
def test_only_what_breaks_both_limits_goes(rule, going):
    """Counted are sets of images, newest first; age counts from the moment at which a set was replaced; without limits all stays."""
    assert gone(repository(FOUR), ledger(*HISTORY), policy({"nightly": rule})) == {digest(mark) for mark in going}


def test_with_one_channel_chosen_nothing_goes_that_another_ever_held():
    """Even if that other one's rule would let it go."""
    book = ledger(
        ("nightly", "a", 40), ("stable", "a", 39), ("nightly", "b", 30), ("nightly", "c", 20), ("nightly", "d", 10), ("stable", "c", 9), ("stable", "d", 8)
    )
    assert gone(repository(FOUR), book, policy(chosen={"nightly"})) == {digest("b")}
    assert gone(repository(FOUR), book, policy(chosen={"stable"})) == set()


def test_what_no_channel_ever_held_goes_by_the_rule_of_the_first():
    """The newest of each name is counted; other channels have no say."""
    assert gone(repository(FOUR), rules=policy({"nightly": Rule(count=2)})) == {digest("a"), digest("b")}
    assert gone(repository(FOUR), rules=policy(chosen={"stable"})) == set()


def test_images_of_the_last_day_stay():
    """Or their numbers would be used again for other images."""
    today = {tag("a", 0): "a", tag("b", 1): "b", tag("b", 1).replace(".1", ".2"): "c"}
    assert gone(repository(today)) == set()


def test_the_order_is_that_of_names():
    """A dry run and the run after it are the same table, whatever came first from the registry."""
    answers = (FOUR, dict(reversed(FOUR.items())))
    first, second = (pruning.plan(repository(tags), Holdings(), Ledger(), policy(), NOW).removals for tags in answers)
    assert first == second
    assert [removal.what for removal in first] == sorted(tag for tag, mark in FOUR.items() if mark != "d")


def test_what_a_tag_names_that_moves_stays():
    """Somebody has given it a name of their own."""
    assert gone(repository({**FOUR, "my-paper": "a"}), ledger(*HISTORY)) == {digest("b")}


def test_pinned_digests_stay():
    """Whatever the rules say."""
    assert gone(repository(FOUR), ledger(*HISTORY), policy(pinned=frozenset({digest("a")}))) == {digest("b")}


def test_images_without_tags_stay_unless_the_ledger_knows_them():
    """A push gives images their tags last; what channels held and is not tagged any more goes by their rules."""
    untagged = repository({each: mark for each, mark in FOUR.items() if mark != "a"}, image("a"), image("new"))
    assert gone(untagged, ledger(*HISTORY)) == {digest("a"), digest("b")}


def attached(mark, subject):
    """Return a manifest that refers to another."""
    return HeldManifest(digest=digest(mark), size=10, blobs={f"sha256:layer-{mark}": 7}, subject=digest(subject))


def test_what_belongs_to_an_image_goes_with_it_first_what_is_deepest():
    """Signatures by cosign's tag, documents, signatures of documents, and the list of them; those of other images stay."""
    tags = {**FOUR, hexed("a", ".sig"): "sig of a", hexed("a"): "list of a", hexed("doc of a", ".sig"): "sig of doc", hexed("d", ".sig"): "sig of d"}
    images = repository(tags, attached("doc of a", "a"), attached("doc of d", "d"))
    plan = pruning.plan(images, Holdings(), ledger(*HISTORY[:1], *HISTORY[2:]), policy({"nightly": Rule(count=1)}), NOW)
    (of_a,) = [each for each in plan.removals if digest("a") in each.manifests]
    assert of_a.manifests[-1] == digest("a")
    assert set(of_a.manifests) == {digest(mark) for mark in ("a", "sig of a", "list of a", "doc of a", "sig of doc")}
    assert of_a.manifests.index(digest("sig of doc")) < of_a.manifests.index(digest("doc of a"))
    assert of_a.what == tag("a", 40)


def test_orphans_go():
    """What belongs to an image that is gone; and a signature of an image that is there stays."""
    images = repository({tag("d", 10): "d", hexed("d", ".sig"): "sig of d", hexed("x", ".sig"): "sig of x", hexed("x"): "list of x"}, attached("doc of x", "x"))
    assert gone(images, ledger(("nightly", "d", 10))) == {digest("sig of x"), digest("list of x"), digest("doc of x")}


def test_a_digest_that_a_tag_needs_which_stays_is_spared():
    """Two images with the same empty list of referrers: the list of the one that goes is that of the one that stays."""
    images = repository({tag("a", 40): "a", tag("d", 10): "d", hexed("a"): "empty list", hexed("d"): "empty list"})
    assert gone(images) == {digest("a")}


def test_children_of_an_index_go_and_stay_with_it():
    """Unless the ledger holds one of them by itself."""
    parents = {"a": HeldManifest(digest=digest("a"), size=10, blobs={}, children=(digest("a1"), digest("a2")))}
    images = Holdings(
        tags={tag("a", 40): digest("a"), tag("d", 10): digest("d")},
        manifests={each.digest: each for each in (parents["a"], image("a1"), image("a2"), image("d"))},
    )
    assert gone(images) == {digest("a"), digest("a1"), digest("a2")}
    assert gone(images, ledger(("nightly", "a1", 40))) == {digest("a"), digest("a2")}
    assert gone(images, rules=policy(pinned=frozenset({digest("a")}))) == set()


def joined(mark, *children):
    """Return an index, which has no blobs, with the images that it lists."""
    listed = tuple(image(each) for each in children)
    return (HeldManifest(digest=digest(mark), size=10, blobs={}, children=tuple(each.digest for each in listed)), *listed)


def platform_tag(mark, days):
    """Return the dated tag of one platform's image, whose mark begins with the platform."""
    return tag(mark, days).replace("-base-", f"-base_{mark[:3]}-")


def indexes(*nights):
    """Return holdings of nights, each an index's mark, days ago, and the marks of its images, which have dated tags of their own."""
    tags = {tag(mark, days): digest(mark) for mark, days, _ in nights}
    for _, days, children in reversed(nights):
        tags |= {platform_tag(child, days): digest(child) for child in children}
    manifests = {manifest.digest: manifest for manifest in chain.from_iterable(joined(mark, *children) for mark, _, children in nights)}
    return Holdings(tags=tags, manifests=manifests)


NIGHTS = (("a", 40, ("amd1", "arm1")), ("b", 30, ("amd1", "arm2")), ("c", 20, ("amd2", "arm2")), ("d", 10, ("amd2", "arm3")))


def test_images_of_an_index_that_stays_stay_and_those_of_others_go():
    """An image that did not change is in several indexes, and stays for the one that stays; dated tags of platforms keep nothing by themselves."""
    assert gone(indexes(*NIGHTS), ledger(*HISTORY)) == {digest(mark) for mark in ("a", "b", "amd1", "arm1")}


def test_with_an_index_go_the_documents_of_its_images():
    """And their signatures; of an image that stays for another index all stays."""
    held = indexes(*NIGHTS)
    more = [attached(f"doc of {mark}", mark) for mark in ("a", "arm1", "arm2", "amd2", "d")]
    tags = {**held.tags, hexed("arm1", ".sig"): digest("sig of arm1"), hexed("arm2", ".sig"): digest("sig of arm2")}
    more += [image("sig of arm1"), image("sig of arm2")]
    held = Holdings(tags=tags, manifests={**held.manifests, **{each.digest: each for each in more}})
    own = {digest(mark) for mark in ("a", "b", "amd1", "arm1")}
    assert gone(held, ledger(*HISTORY)) == own | {digest("doc of a"), digest("doc of arm1"), digest("sig of arm1")}


def test_an_image_that_waits_for_another_platform_stays():
    """No channel has held it: it goes by the rule of the first one, as whatever was pushed and not taken."""
    held = indexes(*NIGHTS)
    waiting = Holdings(tags={**held.tags, platform_tag("arm9", 5): digest("arm9")}, manifests={**held.manifests, digest("arm9"): image("arm9")})
    assert digest("arm9") not in gone(waiting, ledger(*HISTORY))


def test_an_index_without_a_tag_keeps_its_images():
    """A join may be under way: it gives the index its tags last."""
    held = indexes(*NIGHTS[:1])
    untagged = Holdings(tags={name: each for name, each in held.tags.items() if each != digest("a")}, manifests=held.manifests)
    assert gone(untagged) == set()


def test_a_foreign_index_takes_no_image_along():
    """Who may push may list the images of others in an index with an old date; what a channel holds, and what its rule keeps, stays."""
    (foreign, *_) = joined("foreign", "d", "new")
    images = repository({**FOUR, tag("new", 1): "new", "x-20200101.1": "old"}, foreign)
    images = Holdings(tags={**images.tags, "x-20200102.1": foreign.digest, "x-20200103.1": digest("a")}, manifests=images.manifests)
    assert not {digest("d"), digest("new")} & gone(images, ledger(*HISTORY))


def test_outdated_copies_of_the_ledger_go_with_their_signatures():
    """The present one stays; it has a tag."""
    images = repository(
        {"ledger": "new copy", hexed("new copy", ".sig"): "new sig", hexed("old copy", ".sig"): "old sig"}, image("old copy"), outdated=[digest("old copy")]
    )
    assert gone(images) == {digest("old copy"), digest("old sig")}


def test_bytes_are_those_that_nothing_else_needs():
    """Each blob is counted once; what images that stay have is not freed, nor what parts have that stay."""
    identity = "1" * 64
    parts = Holdings(tags={identity: digest("p")}, manifests={digest("p"): HeldManifest(digest=digest("p"), size=5, blobs={"sha256:layer-a": 100})})
    plan = pruning.plan(repository(FOUR), Holdings(), ledger(*HISTORY), policy(), NOW)
    assert plan.freed == 2 * (10 + 100)
    plan = pruning.plan(repository(FOUR), parts, ledger(*HISTORY), policy(needed=frozenset({identity})), NOW)
    assert plan.freed == 10 + 10 + 100
    everything = pruning.plan(
        repository({tag("a", 40): "a", tag("b", 30): "b", tag("d", 10): "d"}), Holdings(), Ledger(), policy({"nightly": Rule(count=1)}), NOW
    )
    assert everything.freed == 2 * (10 + 100)


def test_parts_stay_if_an_image_has_a_layer_of_them_or_a_lock_needs_them():
    """The others go with their seals; what is not called by an identity is not ours."""
    names = {"used": "1" * 64, "locked": "2" * 64, "old": "3" * 64, "odd": "somebodys"}
    blobs = {"used": {"sha256:layer-d": 100}, "locked": {}, "old": {"sha256:old": 50}, "odd": {}}
    held = [HeldManifest(digest=digest(mark), size=5, blobs=blobs[mark]) for mark in names]
    parts = Holdings(
        tags={**{name: digest(mark) for mark, name in names.items()}, hexed("old"): digest("list"), hexed("used"): digest("list of used")},
        manifests={each.digest: each for each in (*held, attached("seal", "old"), attached("seal of used", "used"), image("list"), image("list of used"))},
    )
    plan = pruning.plan(repository({tag("d", 10): "d"}), parts, ledger(("nightly", "d", 10)), policy(needed=frozenset({names["locked"]})), NOW)
    (going,) = plan.removals
    assert (going.is_part, going.manifests[-1]) == (True, digest("old"))
    assert set(going.manifests) == {digest("old"), digest("seal"), digest("list")}


# What decides, and what manifests say


def test_the_rules_are_those_of_the_matrix_unless_others_are_asked_for():
    """Only for the channel that was asked about."""
    table = matrix.load()
    told = housekeeping.policy(table, PruneOptions())
    assert told.rules["nightly"] == Rule(count=table.channels["nightly"].keep, time=table.channels["nightly"].keep_for) != Rule()
    assert (told.chosen, told.entry) == (frozenset(table.channels), "nightly")
    asked = housekeeping.policy(table, PruneOptions(channel="nightly", keep=2, older_than=3, pinned=(digest("a"),)))
    assert (asked.rules["nightly"], asked.rules["stable"]) == (Rule(count=2, time=dt.timedelta(days=3)), told.rules["stable"])
    assert (asked.chosen, asked.pinned) == ({"nightly"}, {digest("a")})


@pytest.mark.parametrize("options", [PruneOptions(keep=0), PruneOptions(older_than=0)])
def test_a_limit_that_leaves_nothing_is_refused(options):
    """One set and one day stay."""
    with pytest.raises(PruneError):
        housekeeping.policy(matrix.load(), options)


def test_an_unknown_channel_is_refused():
    """With those that there are."""
    with pytest.raises(MatrixError, match="unknown channel"):
        housekeeping.policy(matrix.load(), PruneOptions(channel="weekly"))


def test_a_manifest_says_what_it_needs():
    """Images, artifacts and lists."""
    names = {name: f"sha256:{name * 64}" for name in "abcde"}
    config, layer, subject = ({"digest": names[name], "size": size} for name, size in (("a", 1), ("b", 2), ("c", 3)))
    body = canonical({"artifactType": "x", "config": config, "layers": [layer], "subject": subject})
    blobs = {names["a"]: 1, names["b"]: 2}
    assert holdings.parse(client.Manifest(body, "", "d")) == HeldManifest(digest="d", size=len(body), blobs=blobs, artifact_type="x", subject=names["c"])
    listing = canonical({"manifests": [{"digest": names["d"], "size": 1}]})
    assert holdings.parse(client.Manifest(listing, "", "d")).children == (names["d"],)


def test_what_refers_to_itself_over_and_over_is_gone_through_once():
    """A ladder of indexes that each list the next one twice, 5,000 deep, is a list of 5,000."""
    ladder = {
        str(number): HeldManifest(digest=str(number), size=1, blobs={}, children=(str(number + 1),) * 2, subject=str(number + 1)) for number in range(5000)
    }
    held = Holdings(manifests=ladder)
    assert len(pruning._children(held, "0")) == 5000
    assert len(held.referrers("4999")) == 4999
    assert pruning._whole(held, "0")[0] == "0"
    assert sorted(pruning._whole(held, "0")) == sorted(ladder)
