"""Small images that cosign has signed, with an honest record and the result of their tests, in a team's registry; made without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests import released
from tests.desks import LAYER, dated, manifest
from torchstrata.attestations import documents, record, signing
from torchstrata.attestations.documents import Published
from torchstrata.attestations.made import torch
from torchstrata.attestations.record import Inputs, Package, Record, RecordedLayer, SourceRepository, System
from torchstrata.attestations.remote import VARIABLE
from torchstrata.attestations.signing import Signer
from torchstrata.image import runtime
from torchstrata.image.compose import canonical, sha256
from torchstrata.matrix import matrix
from torchstrata.registry.registry import Registry
from torchstrata.release import channels

MATRIX = matrix.load()
(CELL,) = matrix.select(MATRIX, "2.13-cpu")
REPOSITORY = f"team/{MATRIX.name}"


@dataclass(frozen=True)
class Team:
    """A team's registry, ledger and keys."""

    host: str
    ledger: Path
    key: Path

    @classmethod
    def at(cls, host, work):
        """Return a team with keys and a ledger in a directory."""
        subprocess.run(["cosign", "generate-key-pair"], cwd=work, check=True, capture_output=True)
        subprocess.run(["git", "init", "--quiet", "--bare", work / "ledger"], check=True)
        return cls(host, work / "ledger", work / "cosign.key")

    def inv(self, *words, keys=True):
        """Run a verb; return what it printed and its status."""
        known = {signing.KEY: str(self.key), signing.PUBLIC_KEY: str(self.key.with_suffix(".pub"))} if keys else {}
        env = {**os.environ, **known, VARIABLE: f"{self.host}/team", "COLUMNS": "200"}
        return subprocess.run([Path(sys.executable).parent / "inv", *words], cwd=matrix.ROOT, env=env, capture_output=True, text=True, check=False)

    def promote(self, channel, *words):
        """Run ``inv release.promote`` for the cell."""
        return self.inv("release.promote", "2.13-cpu", "--channel", channel, "--ledger", f"{self.ledger}#ledger", *words)

    def tag(self, name):
        """Return the digest that a tag points to."""
        with Registry(self.host) as registry:
            found = registry.find(REPOSITORY, name)
            return found.digest if found else None


def image(registry, name, mark):
    """Push a small image of the cell with an honest record, under its dated tag; return record and manifest."""
    flavour, user = (name, runtime.DEV) if name in MATRIX.flavours else (MATRIX.all_in_one, runtime.ROOT)
    layer = f"{name} {mark}".encode()
    labels = {
        "torchstrata.cell": CELL.id,
        "torchstrata.flavour": flavour,
        "torchstrata.lock": "1" * 64,
        "torchstrata.os": CELL.os.id,
        "torchstrata.torch": CELL.version,
        "org.opencontainers.image.revision": "2" * 40,
    }
    config = canonical({"config": {"Labels": labels, "User": user}, "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}})
    body = manifest(registry, REPOSITORY, dated(CELL, name, mark), [layer], config)
    return body, record_of(name, body, config, layer, mark)


def record_of(name, body, config, layer, mark, **more):  # what an image is
    """Return an honest record of an image of one layer; ``more`` are other fields of it."""
    flavour, user = (name, runtime.DEV) if name in MATRIX.flavours else (MATRIX.all_in_one, runtime.ROOT)
    recorded = RecordedLayer(title="x", origin="os", digest=sha256(layer), diff_id=sha256(layer), media_type=LAYER, size=len(layer), unpacked=len(layer))
    openssl = Package(name="openssl", version=f"3.0.17-1~deb12u{mark}", architecture="amd64", source="openssl", source_version="x", licence="Apache-2.0")
    found = Record(
        schema=record.SCHEMA,
        tool="0",
        name=f"{CELL.id}-{flavour}",
        cell=CELL.id,
        flavour=flavour,
        user=user,
        platform="linux/amd64",
        os=System(id=CELL.os.id, distribution="debian", release="12", suite="bookworm", python="3.11"),
        created="2026-11-24T00:00:00Z",
        digest=sha256(body),
        config=sha256(config),
        size=len(layer),
        unpacked=len(layer),
        source=SourceRepository(revision="2" * 40),
        inputs=Inputs(lock="1" * 64, lock_seen="2026-11-17T00:00:00Z", os_lock="3", os_lock_date="2026-11-24", os_image="mmdebstrap bookworm", codec="x"),
        torch=torch(CELL),
        layers=(recorded,),
        wheels=(),
        packages=(openssl,),
        licences={},
    )
    return msgspec.structs.replace(found, **more)


def push(team, mark, untested=()):
    """Push all images of the cell, signed, with all that is attached to images; return their records by name."""
    signer, made = Signer.find(str(team.key)), {}
    with Registry(team.host) as registry:
        for name in channels.images(MATRIX, CELL):
            body, made[name] = image(registry, name, mark)
            tested = None if name in untested else released.result(sha256(body), flavour=made[name].flavour)
            published = Published(registry=registry, repository=REPOSITORY, name=made[name].name, manifest=body)
            documents.attach(published, documents.of(made[name], {}, tested), signer)
    return made
