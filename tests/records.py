"""Complete and honest records of images and results of their tests; who asks for one names the fields that matter."""

from __future__ import annotations

import msgspec

from tests.desks import LAYER
from torchstrata.attestations import record
from torchstrata.attestations.record import Inputs, LockedWheel, Package, Record, RecordedLayer, SourceRepository, System, Torch
from torchstrata.verification import evidence
from torchstrata.verification.evidence import Case, Counts, EngineImage, Evidence, Host


def digest(mark: str) -> str:
    """Return a digest that is easy to tell from others."""
    return f"sha256:{mark * 64}"


DIGEST = digest("a")

RECORD = Record(
    schema=record.SCHEMA,
    tool="0",
    name="2.8-cu121-debian13-base",
    cell="2.8-cu121-debian13",
    flavour="base",
    user="1000:0",
    platform="linux/amd64",
    os=System(id="debian13", distribution="debian", release="13", suite="trixie", python="3.13"),
    created="2026-11-24T00:00:00Z",
    digest=DIGEST,
    config=digest("b"),
    size=3_000_000_000,
    unpacked=6_000_000_000,
    source=SourceRepository(revision="2" * 40),
    inputs=Inputs(
        lock="1" * 64,
        lock_seen="2026-11-17T00:00:00Z",
        os_lock="3",
        os_lock_date="2026-11-24",
        os_image="x",
        codec="x",
    ),
    torch=Torch(version="2.8.0", wheels="cu128", git="x", cuda="12.8"),
    layers=(),
    wheels=(),
    packages=(),
    licences={},
)

EVIDENCE = Evidence(
    format=evidence.FORMAT,
    image=EngineImage(reference="x", digest=DIGEST, manifest=DIGEST, config=None),
    cell="2.13-cpu-debian12",
    flavour="base",
    tiers=("free",),
    passed=True,
    complete=True,
    counts=Counts(required=2, passed=2, failed=0, missing=0),
    required={"free": "0" * 64},
    problems=(),
    not_run=(),
    revision="2" * 40,
    host=Host(kernel="6.1", engine="26.1.5", cpus=2),
    gpu=None,
    started="2026-11-24T00:00:00Z",
    finished="2026-11-24T00:01:00Z",
    tests=(Case(id="base/test_users.py::test_no_sudo", tier="free", section="base", outcome="passed", seconds=0.5),),
)


def layer(digest: str, size: int, **fields: object) -> RecordedLayer:
    """Return a layer that is as large packed as unpacked."""
    plain = RecordedLayer(title="x", origin="os", digest=digest, diff_id=digest, media_type=LAYER, size=size, unpacked=size)
    return msgspec.structs.replace(plain, **fields)


def wheel(name: str, version: str, size: int = 1) -> LockedWheel:
    """Return a Python package."""
    return LockedWheel(name=name, version=version, filename="x.whl", sha256="0", size=size, licence="BSD-3-Clause")


def package(name: str, version: str, source: str | None = None) -> Package:
    """Return an OS package, of the source of its own name unless told."""
    of = {"source": source or name, "source_version": version}
    return Package(name=name, version=version, architecture="amd64", licence="GPL-2.0-or-later", **of)


def result(digest: str, *, passed: bool = True, **fields: object) -> Evidence:
    """Return the result of the tests of the image with a digest: 2 of 2 passed, or 1 of 2."""
    fields = {"image": EngineImage(reference="x", digest=digest, manifest=digest, config=None), **fields}
    if not passed:
        counts = Counts(required=2, passed=1, failed=1, missing=0)
        fields = {"passed": False, "counts": counts, "problems": ("base/test_x.py::test_y failed",), **fields}
    return msgspec.structs.replace(EVIDENCE, **fields)
