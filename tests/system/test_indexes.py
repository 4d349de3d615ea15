"""Images of several platforms on a real registry: joined, signed by cosign, promoted, compared, copied, pruned and pulled as one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests import desks, joined, registries, released, signed
from tests.joined import BOTH
from tests.signed import CELL as SINGLE
from tests.signed import REPOSITORY
from torchstrata.attestations import documents, index_record, signing
from torchstrata.attestations.documents import Published
from torchstrata.attestations.record import SourceRepository
from torchstrata.attestations.remote import VARIABLE
from torchstrata.attestations.signing import Signer, Trust
from torchstrata.commands import housekeeping, join, mirror, release, signatures
from torchstrata.commands.release_options import DiffOptions, JoinOptions, MirrorOptions, PromoteOptions, PruneOptions, RollbackOptions, VerifyReleaseOptions
from torchstrata.errors import ImageIndexError, UntrustedError, UnverifiedError
from torchstrata.image import image_index, oci, runtime, source
from torchstrata.image.compose import sha256
from torchstrata.image.image_index import ImageIndex
from torchstrata.matrix import matrix
from torchstrata.nightly import watchdog
from torchstrata.registry.platform_indexes import Joiner
from torchstrata.registry.reference import Reference
from torchstrata.registry.registry import Registry
from torchstrata.release import channels

FEW = {name: each for name, each in signed.MATRIX.flavours.items() if name in {"base", "devel"}}
MATRIX = dataclasses.replace(joined.several(signed.MATRIX, SINGLE.id), flavours=FEW, all_in_one="devel")
"""With fewer images than the committed one, since cosign signs each of them six times."""

(CELL,) = matrix.select(MATRIX, "2.13-cpu")
IMAGES = channels.images(MATRIX, CELL)
STEM = f"{CELL.version}-cpu-{CELL.os.id}"


@pytest.fixture(scope="module", autouse=True)
def several(environment):
    """Let the row of these tests have two platforms, whoever reads the matrix."""
    environment.setattr(matrix, "load", lambda *_: MATRIX)


@pytest.fixture(scope="module")
def known(team, environment):
    """Let verbs know the team's registry and keys."""
    for name, value in {VARIABLE: f"{team.host}/team", signing.KEY: str(team.key), signing.PUBLIC_KEY: str(team.key.with_suffix(".pub"))}.items():
        environment.setenv(name, value)
    return team


def revision(name, platform):
    """Return what the checkout says that an image for a platform is made from."""
    return source.revision(CELL.on(platform), MATRIX.with_parents(name if name in MATRIX.flavours else MATRIX.all_in_one), matrix.ROOT)


def push(team, platform, mark, untested=()):
    """Push all images of the cell for a platform, signed, with their documents, as that platform's machine does; return manifests by image."""
    signer, made = Signer.find(str(team.key)), {}
    with Registry(team.host) as registry:
        for name in IMAGES:
            labels = {"org__opencontainers__image__revision": revision(name, platform)}
            body = made[name] = joined.push(registry, REPOSITORY, MATRIX, CELL, name, platform, mark, mark, **labels)
            config, layer = joined.config(MATRIX, CELL, name, platform, mark, **labels), joined.layer(name, platform, mark)
            more = {
                "platform": platform,
                "platforms": BOTH,
                "flavour": name if name in FEW else MATRIX.all_in_one,
                "source": SourceRepository(revision=revision(name, platform)),
            }
            record = signed.record_of(name, body, config, layer, mark, **more)
            tested = None if name in untested else released.result(sha256(body), flavour=record.flavour)
            documents.attach(Published(registry=registry, repository=REPOSITORY, name=record.name, manifest=body), documents.of(record, {}, tested), signer)
    return made


def refused(options) -> ImageIndexError:
    """Return why a join is refused."""
    with pytest.raises(ImageIndexError) as caught:
        join.join(options)
    return caught.value


@pytest.fixture(scope="module")
def story(known):
    """Live two nights of a row of two platforms, of which the second is promoted; return manifests by night, platform and image, and what was refused."""
    told, one = {}, JoinOptions(cells=("2.13-cpu",))
    first = {"linux/amd64": push(known, "linux/amd64", 1)}
    told["half"] = refused(one)
    with Registry(known.host) as registry:
        told["tags when half"] = registry.tags(REPOSITORY)
    first["linux/arm64"] = push(known, "linux/arm64", 1)
    join.join(one)
    promote(known, "nightly")
    second = {"linux/amd64": first["linux/amd64"], "linux/arm64": push(known, "linux/arm64", 2)}
    join.join(one)
    return first, second, told


def place(team):
    """Return where verbs of a release look for the ledger."""
    return {"ledger": f"{team.ledger}#ledger"}


def promote(team, channel, **words):
    """Take the cell into a channel."""
    release.promote(PromoteOptions(cells=("2.13-cpu",), channel=channel, yes=True, **place(team), **words))


def index_of(night, name) -> ImageIndex:
    """Return the index of an image as a night has pushed it."""
    return joined.index(f"{CELL.id}-{name}", **{platform.rpartition("/")[2]: bodies[name] for platform, bodies in night.items()})


def dated(registry, name) -> list[str]:
    """Return the dated tags of an image's indexes, oldest first."""
    found = [tag for tag in registry.tags(REPOSITORY) if tag.startswith(f"{STEM}-{name}-20")]
    return sorted(found, key=lambda tag: tag.rpartition(".")[2])


def verify(team, name):
    """Verify what a tag or digest names, by the team's key."""
    signatures.verify_release(VerifyReleaseOptions(image=f"{team.host}/{REPOSITORY}{'@' if ':' in name else ':'}{name}"))


# Joining


def test_half_a_row_is_not_joined(story):
    """The platform that is missing is named, with a code of its own; not even a dated tag is there."""
    _, _, told = story
    assert (told["half"].code, told["half"].what) == (59, f"{CELL.id}-base was not pushed for linux/arm64")
    assert all("_amd64-" in tag for tag in told["tags when half"] if not tag.startswith("sha256-"))


def test_a_tag_names_the_index_of_its_images(known, story):
    """Signed, and with a record that names all of them; an image that did not change is in both nights' indexes."""
    first, second, _ = story
    with Registry(known.host) as registry:
        tags = dated(registry, "devel")
        assert [registry.find(REPOSITORY, tag).digest for tag in tags] == [index_of(first, "devel").digest, index_of(second, "devel").digest]
        (found,) = registry.referrers(REPOSITORY, index_of(second, "devel").digest, index_record.INDEX_TYPE)
        body = registry.content(REPOSITORY, registry.manifest(REPOSITORY, found.digest).document().layers[0].digest)
    assert index_record.decode(body).images == index_of(second, "devel").digests


def test_joining_again_changes_nothing(known, story, capsys):
    """The same images make the same index, which has its tag."""
    with Registry(known.host) as registry:
        before = registry.tags(REPOSITORY)
        join.join(JoinOptions(cells=("2.13-cpu",)))
        assert registry.tags(REPOSITORY) == before
    assert capsys.readouterr().out.count(" for linux/amd64, linux/arm64") == len(IMAGES)


def test_a_row_of_one_platform_needs_no_index(known, capsys):
    """It is said so."""
    join.join(JoinOptions(cells=("2.8-cu121",)))
    assert capsys.readouterr().out == "2.8-cu121-debian13: one platform, linux/amd64, whose images need no index\n"


# Verifying


def test_an_index_holds_with_all_its_images(known, story, capsys):
    """Everything is said of each platform; cosign verifies the index and each image without us."""
    _, second, _ = story
    with Registry(known.host) as registry:
        tag = dated(registry, "v2.13")[-1]
    verify(known, tag)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "everything holds"
    parts = ("signature", *(kind.name for kind in documents.KINDS))
    for platform, part in itertools.product(BOTH, parts):
        assert any(line.startswith(f"{platform} {part}") for line in lines)
    for digest in (index_of(second, "v2.13").digest, *index_of(second, "v2.13").digests.values()):
        Trust.find(str(known.key.with_suffix(".pub"))).check_image(Reference(host=known.host, repository=REPOSITORY, digest=digest))


@pytest.fixture
def forged(known, story) -> Iterator:
    """Return a function that puts an index of these images, by architecture, under a tag; signed with its record, as a mistaken signer would."""
    signer = Signer.find(str(known.key))
    with Registry(known.host) as registry:

        def put(images, *, signs=True, body=None):
            made = joined.index(f"{CELL.id}-devel", **images)
            content = body or made.body
            registry.put_manifest(REPOSITORY, "forged", content, oci.INDEX)
            if signs:
                told = documents.of_index(index_record.of(made, registry.image_config(REPOSITORY, made.images[0].digest)))
                documents.attach(Published(registry=registry, repository=REPOSITORY, name="forged", manifest=content), told, signer)
            return sha256(content)

        yield put


def devel(story, platform):
    """Return the second night's devel image for a platform."""
    return story[1][platform]["devel"]


def test_an_index_from_which_a_platform_has_gone_is_refused(known, story, forged):
    """Even if it is signed, by the right key: the record of the image that is left says what there must be."""
    forged({"amd64": devel(story, "linux/amd64")})
    with pytest.raises(ImageIndexError, match="the index has no image for linux/arm64") as caught:
        verify(known, "forged")
    assert caught.value.code == 59


def test_an_unsigned_index_of_signed_images_is_refused(known, story, forged):
    """Its images hold, and nobody has said that they belong together: tests of one night with the tools of another, say."""
    forged({"amd64": devel(story, "linux/amd64"), "arm64": story[0]["linux/arm64"]["base"]}, signs=False)
    with pytest.raises(UntrustedError, match=r"signature: .*; index: there is none that is signed"):
        verify(known, "forged")


def test_a_foreign_image_in_an_index_is_refused(known, story, forged):
    """Another flavour's, though all of it is signed."""
    forged({"amd64": devel(story, "linux/amd64"), "arm64": story[1]["linux/arm64"]["base"]})
    with pytest.raises(ImageIndexError, match="images of several cells, flavours or users"):
        verify(known, "forged")


def test_a_doubled_platform_is_refused(known, story, forged):
    """Which of the two a node runs is its own choice."""
    two = image_index.compose(
        [
            image_index.PlatformImage(platform="linux/amd64", digest=sha256(body), size=len(body))
            for body in (devel(story, "linux/amd64"), devel(story, "linux/arm64"))
        ]
    )
    forged({"amd64": devel(story, "linux/amd64")}, body=two, signs=False)
    with pytest.raises(ImageIndexError, match="linux/amd64 twice"):
        verify(known, "forged")


def test_a_tag_that_names_one_platform_alone_is_refused(known, story):
    """Unless it is the tag of that platform; by digest anybody may look at one image."""
    with Registry(known.host) as registry:
        registry.put_manifest(REPOSITORY, "alone", devel(story, "linux/arm64"), image_index.MANIFEST)
    with pytest.raises(ImageIndexError, match="tag alone names the image for linux/arm64 alone; its row has linux/amd64, linux/arm64"):
        verify(known, "alone")
    verify(known, sha256(devel(story, "linux/arm64")))
    verify(known, f"{STEM}-devel_arm64-20261124.2")


def test_a_platform_that_was_not_tested_is_no_release(known, story, forged):
    """The other one's result does not count for it; the code is that of a missing result."""
    with Registry(known.host) as registry:
        labels = {"org__opencontainers__image__revision": revision("devel", "linux/arm64")}
        body = joined.push(registry, REPOSITORY, MATRIX, CELL, "devel", "linux/arm64", 3, 1000, **labels)
        config, layer = joined.config(MATRIX, CELL, "devel", "linux/arm64", 3, **labels), joined.layer("devel", "linux/arm64", 3)
        more = {"platform": "linux/arm64", "platforms": BOTH, "source": SourceRepository(revision=revision("devel", "linux/arm64"))}
        record = signed.record_of("devel", body, config, layer, 3, **more)
        published = Published(registry=registry, repository=REPOSITORY, name="x", manifest=body)
        documents.attach(published, documents.of(record, {}), Signer.find(str(known.key)))
    forged({"amd64": devel(story, "linux/amd64"), "arm64": body})
    with pytest.raises(UnverifiedError, match="linux/arm64 verification: there is none that is signed"):
        verify(known, "forged")


# Moving


@pytest.fixture(scope="module")
def moved(known, story):
    """Take the second night into both channels, and nightly back; return what their tags named, step by step."""

    def tags():
        return known.tag("nightly-2.13-cpu-devel"), known.tag("v2.13")

    told = [tags()]
    for move in (
        lambda: promote(known, "nightly"),
        lambda: promote(known, "stable", no_soak="it is a test"),
        lambda: release.rollback(RollbackOptions(**BACK, **place(known))),
    ):
        move()
        told.append(tags())
    return told


BACK = {"cells": ("2.13-cpu",), "channel": "nightly", "why": "it is broken", "yes": True}


def test_channels_move_indexes(story, moved):
    """Tags and ledger have the index; a rollback brings the old one back, with both platforms."""
    first, second = (index_of(night, "devel").digest for night in story[:2])
    named = index_of(story[1], "v2.13").digest
    assert [nightly for nightly, _ in moved] == [first, second, second, first]
    assert [stable for _, stable in moved] == [None, None, named, named]


@pytest.mark.usefixtures("moved")
def test_the_watchdog_sees_a_platform_that_is_gone(known, story):
    """The index is there, and its tag is right; nodes of that platform have nothing to run."""
    with release.opened(PromoteOptions(**place(known)), signs=False) as releases:
        digest, image = index_of(story[1], "base").digest, index_of(story[1], "base").digests["linux/arm64"]
        assert releases.images.lacking(CELL, digest) == ()
        body = releases.registry.manifest(REPOSITORY, image).body
        releases.registry.remove(REPOSITORY, image)
        try:
            assert releases.images.lacking(CELL, digest) == ("linux/arm64",)
            state = releases.read().ledger.state
            found = watchdog.problems(MATRIX, state, releases.images.digest, releases.images.lacking, releases.now())
            assert f"stable: {CELL.id} base has no image for linux/arm64" in [str(each) for each in found]
        finally:
            releases.registry.put_manifest(REPOSITORY, image, body, image_index.MANIFEST)
        assert releases.images.lacking(CELL, digest) == ()
        assert releases.images.lacking(CELL, image) == ("linux/amd64",)
        assert releases.images.lacking(SINGLE, image) == ()


def test_what_differs_is_told_of_each_platform(known, story, capsys):
    """The one that did not change has no difference; a platform that one side lacks is named."""
    first, second, _ = story
    release.diff(DiffOptions(old=index_of(first, "base").digest, new=index_of(second, "base").digest))
    out = capsys.readouterr().out
    amd, arm = out.partition("linux/arm64:\n")[::2]
    assert amd.startswith("linux/amd64:\n")
    assert "openssl" not in amd
    assert ["openssl", "3.0.17-1~deb12u1", "3.0.17-1~deb12u2", "fix"] in [line.split() for line in arm.splitlines()]
    release.diff(DiffOptions(old=sha256(second["linux/amd64"]["base"]), new=index_of(second, "base").digest))
    assert f"linux/arm64: new, {sha256(second['linux/arm64']['base'])}" in capsys.readouterr().out.splitlines()


# Copies


@pytest.mark.usefixtures("moved")
def test_a_copy_in_another_registry_holds(known, story, tmp_path, capsys):
    """Index, images of both platforms, their signatures and documents, and the dated tags of all."""
    with registries.registry(tmp_path) as other:
        mirror.mirror(MirrorOptions(images="2.13-cpu", to=f"{other.host}/team", **place(known)))
        signatures.verify_release(VerifyReleaseOptions(image=f"{other.host}/{REPOSITORY}:v2.13"))
        with Registry(other.host) as there:
            assert there.find(REPOSITORY, f"{STEM}-devel_arm64-20261124.2").digest == sha256(devel(story, "linux/arm64"))
            assert there.find(REPOSITORY, "2.13-cpu-devel").digest == index_of(story[1], "devel").digest
    assert "everything holds" in capsys.readouterr().out


@pytest.mark.usefixtures("moved")
def test_a_directory_has_the_files_of_each_platform(known, story, tmp_path):
    """Its own script checks them, signatures included, without a network; one that has lost a platform's documents is damaged."""
    mirror.mirror(MirrorOptions(images="2.13-cpu", to=str(tmp_path / "cell"), key=str(known.key.with_suffix(".pub")), **place(known)))
    check = functools.partial(subprocess.run, ["unshare", "--map-root-user", "--net", tmp_path / "cell/verify", known.key.with_suffix(".pub")], text=True)
    whole = check(capture_output=True, check=False)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "cell/documents" / f"{STEM}-devel_arm64-20261124.2"
    assert json.loads((folder / "record.json").read_text())["platform"] == "linux/arm64"
    (folder / "record.json").unlink()
    assert check(capture_output=True, check=False).returncode != 0


# Moving with a notary, and pruning


@pytest.fixture
def person(desk, several):
    """Give a person whose first cell has two platforms."""
    desk.matrix = joined.several(desk.matrix, "2.8-cu121-debian13")
    desk.releases = dataclasses.replace(desk.releases, matrix=desk.matrix)
    return desk


def night(desk, mark, *, arm=None):
    """Push the cell for both platforms and join it; return the indexes by image."""
    cell, found = desk.cell(), {}
    maker = Joiner(registry=desk.registry, repository=desks.REPOSITORY)
    for name in channels.images(desk.matrix, cell):
        for platform, each in (("linux/amd64", mark), ("linux/arm64", arm or mark)):
            joined.push(desk.registry, desks.REPOSITORY, desk.matrix, cell, name, platform, each, each)
        index = maker.find(cell, name, dict.fromkeys(BOTH, joined.REVISION))
        maker.put(index, desks.dated(cell, name, mark))
        desk.notary.tested.add(index.digest)
        found[name] = index
    return found


@pytest.mark.quick
def test_an_index_is_promoted_by_its_digest(person):
    """Nightly tags and the ledger have it; both images are where they were."""
    found = night(person, 1)
    person.promote(channel="nightly")
    assert person.tag("nightly-2.8-cu121-devel") == found["devel"].digest
    assert person.ledger().entries[-1].images == {name: index.digest for name, index in found.items()}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (("amd64",), "has no image for linux/arm64"),
        (("amd64", "arm64", "s390x"), "has an image for linux/s390x"),
        ((), "is one image alone, and 2.8-cu121-debian13 has linux/amd64, linux/arm64"),
    ],
)
def test_images_that_are_not_those_of_the_row_do_not_move(person, listed, says):
    """A platform gone, one too many, or an image where an index must be: refused with a code of its own, and named; nothing of the cell moves."""
    cell, made = person.cell(), night(person, 1)
    known = {name.rpartition("/")[2]: person.registry.manifest(desks.REPOSITORY, digest).body for name, digest in made["devel"].digests.items()}
    bodies = {each: known.get(each, known["arm64"]) for each in listed or ("amd64",)}
    body, kind = (joined.index("x", **bodies).body, oci.INDEX) if listed else (bodies["amd64"], image_index.MANIFEST)
    tag = desks.dated(cell, "devel", 2)
    person.registry.put_manifest(desks.REPOSITORY, tag, body, kind)
    person.notary.tested.add(sha256(body))
    (refusal,) = person.propose(channel="nightly").refusals
    assert says in refusal.why
    assert refusal.kind is ImageIndexError
    assert person.moving() == {}


def test_an_image_of_an_index_that_is_gone_keeps_all_from_moving(person):
    """The index itself is there."""
    found = night(person, 1)
    person.registry.remove(desks.REPOSITORY, found["base"].digests["linux/arm64"])
    (refusal,) = person.propose(channel="nightly").refusals
    assert "has no image for linux/arm64 any more" in refusal.why


def test_drift_of_one_platform_keeps_all_from_moving(person):
    """It is named."""
    cell = person.cell()
    for name in channels.images(person.matrix, cell):
        for platform in BOTH:
            drift = {"torchstrata__drift": "less 1 -> 2"} if (name, platform) == ("base", "linux/arm64") else {}
            joined.push(person.registry, desks.REPOSITORY, person.matrix, cell, name, platform, 1, **drift)
        maker = Joiner(registry=person.registry, repository=desks.REPOSITORY)
        index = maker.find(cell, name, dict.fromkeys(BOTH, joined.REVISION))
        maker.put(index, desks.dated(cell, name, 1))
    (refusal,) = person.propose(channel="nightly").refusals
    assert refusal.why == "the OS packages of base for linux/arm64 are not as locked: less 1 -> 2"
    assert refusal.fix == runtime.REBUILD


def test_pruning_takes_the_images_of_indexes_that_go(person):
    """What is in an index that stays can be pulled for both platforms; the rest is gone, whatever dated tags platforms have of their own."""
    nights = []
    for mark, arm in ((1, 1), (2, 1), (3, 3)):
        nights.append(night(person, mark, arm=arm))
        person.promote(channel="nightly")
    person.clock.pass_(days=10)
    rules = housekeeping.policy(person.matrix, PruneOptions(keep=1))
    found = housekeeping.plan(person.releases, person.ledger(), None, rules)
    housekeeping.delete(person.registry, {False: desks.REPOSITORY}, found)
    there = functools.partial(person.registry.find, desks.REPOSITORY)
    oldest, middle, newest = (each["devel"] for each in nights)
    assert there(oldest.digest) is None
    assert there(oldest.digests["linux/amd64"]) is None
    for index in (middle, newest):
        assert all(there(digest) for digest in (index.digest, *index.digests.values()))
    assert middle.digests["linux/arm64"] == oldest.digests["linux/arm64"]


# Pulling


@pytest.mark.quick
def test_the_engine_pulls_the_image_of_each_platform(client, tmp_path):
    """By one tag, the machine's own by default and the other one by name; both are what was pushed."""
    with registries.registry(tmp_path) as served, Registry(served.host) as registry:
        bodies = {each.rpartition("/")[2]: joined.push(registry, "x/pulled", MATRIX, CELL, "base", each, 1) for each in BOTH}
        index = joined.index("x", **bodies)
        registry.put_manifest("x/pulled", "tag", index.body, oci.INDEX)
        name = f"{served.host}/x/pulled"
        try:
            for platform in (*BOTH, None):
                pulled = client.images.pull(name, tag="tag", platform=platform)
                seen = client.api.inspect_image(f"{name}:tag") if platform is None else pulled.attrs
                assert (seen["Os"], seen["Architecture"]) == tuple((platform or "linux/amd64").split("/"))
                assert seen["RootFS"]["Layers"] == [sha256(joined.layer("base", platform or "linux/amd64", 1))]
                client.images.remove(f"{name}:tag", force=True)
        finally:
            for each in client.images.list(name=name):
                client.images.remove(each.id, force=True)
