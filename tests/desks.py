"""A person at a desk, with a checkout, a registry and a git remote of their own, who releases small images made by hand.

Who signs and what was tested is decided by a notary of these tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
import subprocess
from pathlib import Path

from tests import registries, trees
from torchstrata.errors import UntrustedError
from torchstrata.image import runtime
from torchstrata.image.compose import CONFIG, MANIFEST, canonical, sha256
from torchstrata.matrix import matrix
from torchstrata.registry import dated_tag
from torchstrata.registry.dated_tag import DatedTag, PushNumber
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import Source
from torchstrata.release import channels
from torchstrata.release.ledger import Author
from torchstrata.release.ledger_branch import Branch
from torchstrata.release.moves import Releases
from torchstrata.release.proposals import Proposal

START = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
REPOSITORY = "team/images"
LAYER = "application/vnd.oci.image.layer.v1.tar"
TABLE = """
name: images
systems:
  debian13: {distribution: debian, release: "13", suite: trixie, python: "3.13", glibc: "2.41", compilers: [g++-13], bootstrap: mmdebstrap, verified: true}
all_in_one: devel
rows:
  - {torch: "2.8", cuda: cu128, serves: cu121, default: true, os: [debian13]}
  - {torch: "2.8", cuda: cu128, os: [debian13]}
strata:
  own_layer_over: 40_000_000
  cuda_groups: [{title: CUDA, wheels: ["nvidia-*"]}]
channels:
  nightly: {tags: ["nightly-{torch}-{cuda}-{flavour}", "nightly-v{torch}"], max_age: 36 h}
  stable:
    {from: nightly, soak: 24 h, max_age: 4 d, tags: ["{torch}-{cuda}-{os}-{flavour}", "{torch}-{cuda}-{flavour}", "{torch}-{flavour}", "v{torch}", latest]}
"""


class Notary:
    """Believes what it was told: which images are verified; and knows what it has signed."""

    def __init__(self):
        self.tested, self.signed = set(), set()

    def sign(self, registry, repository, digest):
        """Sign a manifest."""
        self.signed.add(digest)

    def authentic(self, registry, repository, digest):
        """Refuse what was not signed."""
        if digest not in self.signed:
            raise UntrustedError(f"{digest} is not signed", fix="sign it")

    def verified(self, registry, repository, digest):
        """Refuse what was not tested."""
        if digest not in self.tested:
            raise UntrustedError(f"{digest} was not verified", fix="verify it")


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.time = START

    def __call__(self):
        """Return the time."""
        return self.time

    def pass_(self, **time):
        """Let time go by."""
        self.time += dt.timedelta(**time)


def dated(cell, image, number=1, day="20261124"):
    """Return the tag of an image that was pushed on a day."""
    return str(DatedTag(stem=dated_tag.stem(cell, image), push=PushNumber(day=day, number=number)))


def publication(releases, found, why):
    """Return what moves if images, by cell, come into the channel that takes new ones; unlike a promotion, whatever they are."""
    base, channel = releases.read(), channels.entry(releases.matrix)
    return Proposal(base=base, moves=tuple(releases._move("publish", channel, cell, images, why) for cell, images in found.items()))


def manifest(registry, repository, name, contents, config=b"{}"):
    """Push layers with these contents and a manifest of them, under ``name`` or, without one, under its digest; return the manifest."""
    kinds = ((CONFIG, config), *((LAYER, content) for content in contents))
    for _, content in kinds:
        registry.push_blob(repository, Source.of(content))
    config_, *layers = [{"mediaType": kind, "digest": sha256(blob), "size": len(blob)} for kind, blob in kinds]
    body = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_, "layers": layers})
    registry.put_manifest(repository, name or sha256(body), body, MANIFEST)
    return body


class Desk:
    """A person with a checkout, and what they do."""

    def __init__(self, releases):
        self.releases, self.clock, self.notary = releases, releases.now, releases.guard
        self.matrix, self.registry = releases.matrix, releases.registry
        self.pushes = 0

    def cell(self, name="2.8-cu121"):
        """Return the cell of that name."""
        return matrix.select(self.matrix, name)[0]

    def image(self, cell, image, mark, more=None):
        """Push an image whose one layer holds ``mark``, with ``more`` labels, and return its manifest's digest."""
        flavour, user = (image, runtime.DEV) if image in self.matrix.flavours else (self.matrix.all_in_one, runtime.ROOT)
        labels = {"torchstrata.cell": cell.id, "torchstrata.flavour": flavour, **(more or {})}
        config = canonical({"config": {"Labels": labels, "User": user}, "mark": mark})
        return sha256(manifest(self.registry, REPOSITORY, None, [f"{image} {mark}".encode()], config))

    def push(self, mark, cell="2.8-cu121", *, tested=True):
        """Push all images of a cell under their dated tags; return their digests by image."""
        found, self.pushes = self.cell(cell), self.pushes + 1
        images = {image: self.image(found, image, mark) for image in channels.images(self.matrix, found)}
        for image, digest in images.items():
            body = self.registry.manifest(REPOSITORY, digest).body
            self.registry.put_manifest(REPOSITORY, dated(found, image, self.pushes), body, MANIFEST)
        if tested:
            self.notary.tested |= set(images.values())
        return images

    def publish(self, mark, cell="2.8-cu121"):
        """Push a cell and take it into the nightly channel."""
        images = self.push(mark, cell)
        self.releases.carry_out(publication(self.releases, {self.cell(cell): images}, f"mark {mark}"))
        return images

    def propose(self, cell="2.8-cu121", channel="stable", asked=None, no_soak=""):
        """Return what would move if the cell were promoted."""
        target = self.matrix.channel(channel)
        fresh = dataclasses.replace(self.releases)  # tags are listed once
        return fresh.promotion([self.cell(cell)], target, fresh.origin(target, asked), no_soak=no_soak)

    def promote(self, **words):
        """Promote the cell."""
        proposal = self.propose(**words)
        assert proposal.refusals == ()
        return self.releases.carry_out(proposal)

    def roll_back(self, to=None):
        """Roll the stable channel back."""
        proposal = self.releases.rollback([self.cell()], self.matrix.channel("stable"), "it is broken", to)
        assert proposal.refusals == ()
        return self.releases.carry_out(proposal)

    def tag(self, name):
        """Return the digest that a tag points to, or ``None``."""
        found = self.registry.find(REPOSITORY, name)
        return found.digest if found else None

    def moving(self):
        """Return digest by tag of all tags that channels move."""
        return {tag: self.tag(tag) for tag in self.registry.tags(REPOSITORY) if "-20261124." not in tag and tag != "ledger"}

    def ledger(self):
        """Return the ledger on the branch."""
        return self.releases.branch.read().ledger


def git(*words, stdin=b""):
    """Run git."""
    return subprocess.run(["git", *map(str, words)], check=True, capture_output=True, input=stdin).stdout.decode()


@contextlib.contextmanager
def desk(root):
    """Yield a person with a checkout below ``root``, and a registry and a git remote of their own."""
    git("init", "--quiet", "--bare", root / "remote.git")
    git("init", "--quiet", root / "checkout")
    git("-C", root / "checkout", "remote", "add", "origin", root / "remote.git")
    trees.grow(root, trees.SMALL)
    (root / "matrix.yaml").write_text(TABLE)
    with registries.registry(root) as served:
        yield Desk(
            Releases(
                matrix=matrix.load(root / "matrix.yaml"),
                registry=Registry(served.host),
                repository=REPOSITORY,
                branch=Branch(root=root / "checkout"),
                author=Author(name="Ada", email="ada@team.example"),
                guard=Notary(),
                now=Clock(),
            )
        )


def beside(desk, place):
    """Return a second person, with a checkout of their own of the same remote."""
    copied = Path(shutil.copytree(desk.releases.branch.root, place))
    return Desk(dataclasses.replace(desk.releases, branch=Branch(root=copied), author=Author(name="Grace", email="grace@team.example")))
