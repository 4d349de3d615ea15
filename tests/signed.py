"""Small images that cosign has signed, with an honest record and the result of their tests, in a team's registry; made without an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests import records, released
from tests.desks import dated, manifest
from torchstrata.attestations import documents, signing
from torchstrata.attestations.documents import Published
from torchstrata.attestations.made import torch
from torchstrata.attestations.record import System
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
class SigningTeam:
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
    fields = {
        "name": f"{CELL.id}-{flavour}",
        "cell": CELL.id,
        "flavour": flavour,
        "user": user,
        "os": System(id=CELL.os.id, distribution="debian", release="12", suite="bookworm", python="3.11"),
        "digest": sha256(body),
        "config": sha256(config),
        "size": len(layer),
        "unpacked": len(layer),
        "torch": torch(CELL),
        "layers": (records.layer(sha256(layer), len(layer)),),
        "packages": (records.package("openssl", f"3.0.17-1~deb12u{mark}"),),
    }
    return msgspec.structs.replace(records.RECORD, **fields | more)


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
