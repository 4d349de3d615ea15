"""Pruning a real registry, and its own garbage collection afterwards: what is kept can be pulled, what is not is gone from the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from tests import desks, programs, registries
from tests.desks import REPOSITORY, manifest
from tests.registries import Served
from torchstrata.attestations import signing
from torchstrata.attestations.remote import VARIABLE
from torchstrata.commands import housekeeping
from torchstrata.commands.release_options import PruneOptions
from torchstrata.errors import LedgerError, PruneError, RegistryError
from torchstrata.image.compose import sha256
from torchstrata.matrix import matrix
from torchstrata.registry.registry import Attachment, Registry, fallback_tag
from torchstrata.release import holdings
from torchstrata.release.ledger import Ledger

SHELF = "team/parts"


def sign(registry, digest, mark):
    """Put what cosign's signature looks like beside an image, and attach a document to it."""
    manifest(registry, REPOSITORY, f"{fallback_tag(digest)}.sig", [f"signature of {digest}".encode()])
    registry.attach(REPOSITORY, digest, "application/x", [Attachment(content=f"document of {mark}".encode(), media_type="text/plain", title="x")])


@dataclass
class Past:
    """Four nights, of which the second was promoted.

    :param nights: digests by image, by mark.
    """

    desk: desks.Desk
    served: Served
    nights: dict[str, dict[str, str]]

    @property
    def releases(self):
        """Return the channels."""
        return self.desk.releases

    def plan(self, **options):
        """Return what may go, if as little is kept as possible."""
        rules = housekeeping.policy(self.releases.matrix, PruneOptions(**{"keep": 1, **options}))
        return housekeeping.plan(self.releases, self.releases.branch.read().ledger, SHELF, rules)

    def prune(self, **options):
        """Prune, and let the registry collect its garbage."""
        found = self.plan(**options)
        housekeeping.delete(self.releases.registry, {False: REPOSITORY, True: SHELF}, found)
        collected = subprocess.run([registries.program(), "garbage-collect", self.served.root / "config.json"], capture_output=True, text=True, check=False)
        assert collected.returncode == 0, collected.stderr
        return found

    def blobs(self, mark):
        """Return the digests of everything that belongs to a night's images, and to nothing else."""
        digests = set(self.nights[mark].values())
        return digests | {sha256(f"{image} {mark}".encode()) for image in self.nights[mark]} | {sha256(f"document of {mark}".encode())}


@pytest.fixture
def past(desk, tmp_path):
    """Live four nights; each image is signed and has a document; parts hold some of the layers."""
    nights = {}
    for mark in ("one", "two", "three", "four"):
        nights[mark] = desk.publish(mark)
        for digest in nights[mark].values():
            sign(desk.registry, digest, mark)
        desk.clock.pass_(days=10)
        if mark == "two":
            desk.promote()
    for number, layers in enumerate([[b"base one"], [b"base four", b"extra"], [b"nobody's"]]):
        manifest(desk.registry, SHELF, f"{number:064x}", layers, f"part {number}".encode())
    for copy in desk.notary.signed:  # which is all that leads to older copies of the ledger
        manifest(desk.registry, REPOSITORY, f"{fallback_tag(copy)}.sig", [f"signature of {copy}".encode()])
    return Past(desk, Served(desk.registry.host, tmp_path), nights)


def test_what_is_kept_can_be_pulled_and_what_is_not_is_gone(past):
    """After the registry's garbage collection: the first night is off the disk; present, promoted and previous images are whole."""
    tags = past.desk.moving()
    past.prune()
    assert [each for each in past.blobs("one") if past.served.blob(each).exists()] == []
    whole = chain.from_iterable(map(past.blobs, ("two", "three", "four")))
    assert [each for each in whole if not past.served.blob(each).exists()] == []
    kept = {tag: digest for tag, digest in past.desk.moving().items() if not tag.startswith("sha256-")}
    assert kept == {tag: digest for tag, digest in tags.items() if not tag.startswith("sha256-")}
    assert past.served.blob(sha256(b"{}")).exists(), "shared by all"
    for mark in ("two", "three", "four"):
        for digest in past.nights[mark].values():
            (document,) = past.desk.registry.referrers(REPOSITORY, digest)
            body = json.loads(past.desk.registry.manifest(REPOSITORY, document.digest).body)
            assert past.desk.registry.content(REPOSITORY, body["layers"][0]["digest"]) == f"document of {mark}".encode()
            assert past.desk.registry.find(REPOSITORY, f"{fallback_tag(digest)}.sig")


def test_the_ledger_can_still_be_used(past):
    """Its copy is there, a rollback goes where it would have gone, a promotion of what is there works; the old copies are gone."""
    before = past.plan()
    assert [each for each in before.removals if each.what.startswith("copy of the ledger")]
    past.prune()
    assert past.releases.copied() == past.desk.ledger()
    past.desk.promote()
    assert past.desk.tag("v2.8") == past.nights["four"]["v2.8"]
    past.desk.roll_back()
    assert past.desk.tag("v2.8") == past.nights["two"]["v2.8"]


def test_signatures_and_documents_go_with_their_image(past):
    """No tag and no list leads to the first night any more; what is pruned once need not be again."""
    past.prune()
    gone = set(past.nights["one"].values())
    assert [tag for tag in past.desk.registry.tags(REPOSITORY) if tag.removesuffix(".sig") in {fallback_tag(each) for each in gone}] == []
    assert gone & set(past.served.tags(REPOSITORY).values()) == set()
    assert past.plan().removals == ()


def test_orphaned_signatures_go(past):
    """Somebody has deleted an image by hand, and left what belongs to it."""
    lost = past.nights["three"]["base"]
    past.desk.registry.remove(REPOSITORY, lost)
    past.prune()
    assert past.desk.registry.find(REPOSITORY, f"{fallback_tag(lost)}.sig") is None
    assert past.desk.registry.find(REPOSITORY, fallback_tag(lost)) is None


def test_parts_go_that_nothing_needs(past):
    """Those with layers of images that stay are left, and those of the last lock."""
    past.prune()
    assert sorted(past.desk.registry.tags(SHELF)) == [f"{1:064x}"]
    assert past.served.blob(sha256(b"base four")).exists()
    assert not past.served.blob(sha256(b"nobody's")).exists()


def test_only_the_chosen_channel_is_pruned(past):
    """What stable ever held stays, however little of nightly does."""
    found = past.plan(channel="nightly")
    going = set(chain.from_iterable(removal.manifests for removal in found.removals))
    assert set(past.nights["one"].values()) <= going
    assert going.isdisjoint(past.nights["two"].values())


def test_bytes_are_what_the_disk_loses(past):
    """The table promises what the garbage collection frees."""

    def used():
        return sum(path.stat().st_size for path in past.served.storage.glob("blobs/**/data"))

    before = used()
    assert past.prune().freed == before - used()


def test_a_prune_that_broke_off_is_gone_on_with(past, monkeypatch):
    """Half of what belongs to an image is deleted; the next run finds the rest, and what is kept was never touched."""
    found, left = past.plan(), [5]
    remove = Registry.remove

    def dies(registry, repository, digest):
        left[0] -= 1
        if left[0] < 0:
            raise RegistryError("the network is gone", fix="run it again")
        return remove(registry, repository, digest)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "remove", dies)
        with pytest.raises(RegistryError, match="the network is gone"):
            housekeeping.delete(past.releases.registry, {False: REPOSITORY, True: SHELF}, found)
    past.prune()
    assert {each for each in past.blobs("one") if past.served.blob(each).exists()} == set()
    assert past.plan().removals == ()


def test_a_rewritten_ledger_is_no_ground(past):
    """A branch that does not continue the registry's signed copy: nothing is planned."""
    with pytest.raises(LedgerError):
        housekeeping.plan(past.releases, Ledger(), None, housekeeping.policy(past.releases.matrix, PruneOptions(keep=1)))


def test_a_registry_that_deletes_nothing_says_what_to_do(past, tmp_path):
    """One with storage.delete off."""
    found = past.plan()
    with registries.registry(tmp_path) as served:  # the same storage
        config = json.loads((tmp_path / "config.json").read_text())
    port = registries.free_port()
    config["storage"]["delete"]["enabled"], config["http"]["addr"] = False, f"127.0.0.1:{port}"
    (tmp_path / "config.json").write_text(json.dumps(config))
    process = subprocess.Popen([registries.program(), "serve", tmp_path / "config.json"], stderr=subprocess.DEVNULL)
    try:
        registries.listening(port, process, tmp_path / "log")
        with Registry(f"127.0.0.1:{port}") as registry, pytest.raises(PruneError, match="deletes nothing"):
            housekeeping.delete(registry, {False: REPOSITORY, True: SHELF}, found)
    finally:
        registries.end(process)
    assert served.root == tmp_path


# As people run it


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return variables with cosign, keys and settings of the test alone."""
    keys, ledger = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("ledger")
    env = {key: value for key, value in os.environ.items() if key not in {"GITHUB_REPOSITORY", "GITHUB_ACTIONS", *signing.AMBIENT}}
    env |= {"PATH": os.pathsep.join([str(programs.directory("cosign")), os.environ["PATH"]]), "COSIGN_PASSWORD": "", "COLUMNS": "200"}
    env |= {"DOCKER_CONFIG": str(keys), "HOME": str(keys)}
    subprocess.run(["cosign", "generate-key-pair"], cwd=keys, env=env, check=True, capture_output=True)
    subprocess.run(["git", "init", "--quiet", "--bare", ledger], check=True)
    return {**env, signing.PUBLIC_KEY: str(keys / "cosign.pub"), "LEDGER": f"{ledger}#ledger"}


def test_the_verb_deletes_only_when_told(environment, tmp_path):
    """First it shows what would go and why; with --yes that goes, and it says how the disk gets smaller."""
    repository = f"team/{matrix.load().name}"
    inv = [Path(sys.executable).parent / "inv", "registry.prune", "--keep", "1", "--older-than", "30", "--ledger", environment["LEDGER"]]
    with registries.registry(tmp_path) as served, Registry(served.host) as registry:
        env = {**environment, VARIABLE: f"{served.host}/team"}
        old = sha256(manifest(registry, repository, "2.8.0-cu121-debian13-base-20250101.1", [b"old"]))
        new = sha256(manifest(registry, repository, "2.8.0-cu121-debian13-base-20250102.1", [b"new"]))
        manifest(registry, "team/parts", "0" * 64, [b"a part"], b"of nothing")
        shown = subprocess.run([*inv, "--parts"], cwd=matrix.ROOT, env=env, capture_output=True, text=True, check=False)
        assert (shown.returncode, "dry run" in shown.stdout) == (0, True), shown.stderr
        assert "2.8.0-cu121-debian13-base-20250101.1" in shown.stdout
        assert "part 000000000000" in shown.stdout
        assert "20250102.1" not in shown.stdout
        assert {each.digest for each in holdings.scan(registry, repository).manifests.values()} == {old, new}
        done = subprocess.run([*inv, "--yes"], cwd=matrix.ROOT, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, "1 manifests deleted" in done.stdout) == (0, True), done.stderr
        assert registry.tags(repository) == ("2.8.0-cu121-debian13-base-20250102.1",)
