"""A registry and a branch in memory that say what somebody has changed, and the attempts to move something by them.

For thousands of changes a real registry and git are too slow; ``tests/system/test_ledger_attacks.py`` attacks those.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import trees
from tests.desks import TABLE, Notary
from torchstrata.errors import AbsentError, IntegrityError, TorchstrataError
from torchstrata.image.compose import MANIFEST, canonical, sha256
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Matrix
from torchstrata.registry.client import Manifest, ManifestHead
from torchstrata.registry.upload import Source
from torchstrata.release import ledger_copy
from torchstrata.release.ledger import Author, Ledger, Move
from torchstrata.release.ledger_branch import Snapshot
from torchstrata.release.moves import Releases
from torchstrata.release.proposals import Origin

CELL = "2.8-cu121-debian13"
IMAGES = ("base", "devel", "v2.8")
START = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
ADA = Author(name="Ada", email="ada@team.example")


def image(mark: str, name: str) -> bytes:
    """Return the config of an image."""
    user, flavour = ("0:0", "devel") if name == "v2.8" else ("1000:1000", name)
    return canonical({"config": {"Labels": {"torchstrata.cell": CELL, "torchstrata.flavour": flavour}, "User": user}, "mark": mark})


def manifest(config: bytes) -> bytes:
    """Return the manifest of an image with a config."""
    return canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": sha256(config)}, "layers": []})


def ledger() -> Ledger:
    """Return a ledger of four moves: two sets of images in both channels."""
    made = Ledger()
    for hour, (mark, channel) in enumerate((("1", "nightly"), ("1", "stable"), ("2", "nightly"), ("2", "stable"))):
        images = {name: sha256(manifest(image(mark, name))) for name in IMAGES}
        tags = {f"{channel}-{name}": name for name in IMAGES}
        move = Move(action="promote", channel=channel, cell=CELL, images=images, tags=tags, why=f"mark {mark}")
        made = made.append([move], ADA, START + dt.timedelta(hours=hour))
    return made


class Registry:
    """Keeps manifests and blobs as the client of real ones gives them: by digest, each checked."""

    host = "registry.example"

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}

    def manifest(self, repository: str, name: str) -> Manifest:
        """Return what a tag or digest names."""
        body = self.manifests.get(name)
        if body is None:
            raise AbsentError(f"{repository} has no {name}", fix="push it")
        if name.startswith("sha256:") and name != sha256(body):
            raise IntegrityError(f"{name} has other bytes", fix="push it again")
        return Manifest(body=body, media_type=MANIFEST, digest=sha256(body))

    def find(self, _: str, name: str) -> ManifestHead | None:
        """Return the digest that a tag or digest names."""
        body = self.manifests.get(name)
        return ManifestHead(media_type=MANIFEST, digest=sha256(body), size=len(body)) if body is not None else None

    def content(self, repository: str, digest: str) -> bytes:
        """Return a blob."""
        if digest not in self.blobs:
            raise AbsentError(f"{repository} has no {digest}", fix="push it")
        if digest != sha256(self.blobs[digest]):
            raise IntegrityError(f"{digest} has other bytes", fix="push it again")
        return self.blobs[digest]

    def push_blob(self, _: str, source: Source) -> None:
        """Keep a blob."""
        with source.open() as file:
            self.blobs[source.digest] = file.read()

    def put_manifest(self, _: str, name: str, body: bytes, _media_type: str) -> str:
        """Keep a manifest."""
        self.manifests |= {name: body, sha256(body): body}
        return sha256(body)


@dataclass
class Branch:
    """The bytes that the branch has."""

    content: bytes

    def read(self) -> Snapshot:
        """Return what they say."""
        return Snapshot(commit=sha256(self.content), ledger=Ledger.parse(self.content))

    def push(self, _base: Snapshot, ledger: Ledger, _subject: str, _author: Author) -> Snapshot:
        """Take what it is to say."""
        self.content = ledger.content
        return self.read()


class TrustingNotary(Notary):
    """Believes that every image has passed its tests."""

    def verified(self, registry: object, repository: str, digest: str) -> None:
        """Refuse nothing."""


@dataclass
class AttackedTeam:
    """A team with a ledger of four entries, its signed copy, and the tags where they belong."""

    releases: Releases
    registry: Registry
    branch: Branch
    content: bytes

    @classmethod
    def make(cls) -> AttackedTeam:
        """Return such a team."""
        registry, notary, true = Registry(), TrustingNotary(), ledger()
        for mark, name in itertools.product("12", IMAGES):
            config = image(mark, name)
            registry.push_blob("", Source.of(config))
            registry.put_manifest("", sha256(manifest(config)), manifest(config), MANIFEST)
        for tag, digest in true.state.tags.items():
            registry.put_manifest("", tag, registry.manifests[digest], MANIFEST)
        ledger_copy.push(registry, "team/images", true, notary)  # type: ignore[arg-type]
        branch = Branch(true.content)
        releases = Releases(
            matrix=_matrix(),
            registry=registry,  # type: ignore[arg-type]
            repository="team/images",
            branch=branch,  # type: ignore[arg-type]
            author=ADA,
            guard=notary,
            now=lambda: START + dt.timedelta(days=9),
        )
        return cls(releases, registry, branch, true.content)

    def attempts(self) -> Iterator[Callable[[], object]]:
        """Yield all that reads the ledger, and moves something if it believes it."""
        releases = self.releases
        (cell,) = matrix.select(releases.matrix, CELL)
        stable = releases.matrix.channel("stable")
        yield releases.read
        yield releases.copied
        yield lambda: releases.carry_out(releases.promotion([cell], stable, Origin(channel=releases.matrix.channel("nightly")), no_soak="now"))
        yield lambda: releases.carry_out(releases.rollback([cell], stable, "why"))
        yield lambda: releases.note(stable, "nothing")
        yield releases.repair

    def check(self) -> None:
        """Assert that each attempt ends in one line and a code, and moves nothing, unless branch or copy are what they were."""
        for attempt in self.attempts():
            before = dict(self.registry.manifests)
            ended = outcome(attempt)
            if isinstance(ended, TorchstrataError):
                assert ended.code
                assert f"{ended.what}{ended.fix}".isprintable()
                assert self.registry.manifests == before
            else:
                believed = ended[0] if isinstance(ended, tuple) else ended.ledger if isinstance(ended, Snapshot) else ended
                assert isinstance(believed, Ledger)
                assert believed.content.startswith(self.content)


def outcome(attempt: Callable[[], object]) -> object:
    """Return what an attempt gives, or the error of ours that it ends in."""
    try:
        return attempt()
    except TorchstrataError as error:
        return error


@functools.cache
def _matrix() -> Matrix:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "matrix.yaml")
        trees.grow(path.parent, trees.SMALL)
        path.write_text(TABLE)
        return matrix.load(path)
