"""Catalogues of made-up images, as many as are asked for, with all that real ones have: records, results, a ledger with a rollback."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from tests import records
from tests.endpoints import endpoints
from tests.records import package, wheel
from torchstrata.attestations import documents
from torchstrata.attestations.made import torch
from torchstrata.attestations.record import Record, RecordedLayer, SourceRepository, System
from torchstrata.catalogue.exhibits import AttachedDocument, Catalogue, Exhibit, ShownLayer, ordered
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.release.ledger import Author, Ledger, Move
from torchstrata.verification.evidence import Evidence

MATRIX = matrix.load()
CELLS = ("2.15-cu132-debian13", "2.13-cpu-debian12", "2.8-cu121-debian13", "2.8-cu121-debian12", "2.4-cu121-debian12")
PLACE = "registry.example/team/pytorch-cuda"
NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
FIRST_DAY = dt.date(2026, 6, 1)
SHARED = ("Python environment", "torch 2.8.0", "CUDA maths", "13 wheels of base: numpy 2.4.6, pillow 13.0.0")


def digest(*words: object) -> str:
    """Return a digest that follows from words."""
    return f"sha256:{hashlib.sha256(repr(words).encode()).hexdigest()}"


def cell_named(name: str) -> Cell:
    """Return a cell of the matrix."""
    return next(cell for cell in MATRIX.cells if cell.id == name)


def layers(cell: Cell, images: int, release: int) -> tuple[RecordedLayer, ...]:
    """Return layers: those of wheels stay, those of the OS are new with every release."""
    kept = [(title, "payload", digest(cell.build, title), 40_000_000 * (number + 1)) for number, title in enumerate(SHARED)]
    own = [(f"{cell.os.id} part {number}: RUN install things", "os", digest(cell.os.id, number, release), 30_000_000) for number in range(images)]
    facts = [("facts", "facts", digest(cell.id, images, release), 2_000)]
    every = (*kept, *own, *facts)
    return tuple(records.layer(name, size, title=title, origin=origin, unpacked=2 * size) for title, origin, name, size in every)


def record(cell: Cell, image: str, number: int, release: int) -> Record:
    """Return the record of an image."""
    found = layers(cell, number + 1, release)
    return msgspec.structs.replace(
        records.RECORD,
        name=f"{cell.id}-{image}",
        cell=cell.id,
        flavour=MATRIX.all_in_one if image == cell.all_in_one else image,
        user="0:0" if image == cell.all_in_one else "1000:0",
        os=System(id=cell.os.id, distribution="debian", release=cell.os.release, suite=cell.os.suite, python=cell.os.python),
        digest=digest(cell.id, image, release),
        config=digest("config", cell.id, image, release),
        size=sum(layer.size for layer in found),
        unpacked=2 * sum(layer.size for layer in found),
        source=SourceRepository(revision="1" * 40),
        torch=torch(cell),
        layers=found,
        wheels=(*(wheel(f"package-{one}", f"1.{one}", 1_000_000 * (one % 7)) for one in range(60)), wheel("numpy", "2.4.6", 16_000_000)),
        packages=tuple(package(f"lib-thing{one}", f"1.{one}-1+deb13u{release}") for one in range(150)),
    )


def evidence(found: Record, *, passed: bool = True) -> Evidence:
    """Return the result of an image's tests."""
    unmet = ("gpu/test_nccl.py::test_two needs two GPUs",)
    return records.result(found.digest, passed=passed, cell=found.cell, flavour=found.flavour, not_run=unmet)


def exhibit(cell: Cell, image: str, number: int, release: int) -> Exhibit:
    """Return an image as a registry has it."""
    found = record(cell, image, number, release)
    day = FIRST_DAY + dt.timedelta(days=7 * release)
    facts = cell.facts
    labels = {
        "torchstrata.cell": cell.id,
        "torchstrata.flavour": found.flavour,
        "torchstrata.torch": cell.version,
        "torchstrata.python": cell.os.python,
        "torchstrata.os": cell.os.id,
        "torchstrata.cuda": facts.cuda_version or "",
        "torchstrata.driver.floor": facts.driver_floor or "",
        "torchstrata.architectures": " ".join(f"sm_{name.replace('.', '')}" for name in facts.architectures),
        "org.opencontainers.image.description": f"PyTorch {cell.version} on {cell.os.id}, flavour {found.flavour}",
        "org.opencontainers.image.revision": "1" * 40,
    }
    return Exhibit(
        digest=found.digest,
        tags=(f"{cell.version}-{cell.cuda}-{cell.os.id}-{image}-{day:%Y%m%d}.1",),
        labels=labels,
        platform=found.platform,
        size=found.size,
        endpoints=endpoints(found.flavour),
        user=found.user,
        layers=tuple(ShownLayer(digest=layer.digest, size=layer.size, title=layer.title, origin=layer.origin) for layer in found.layers),
        record=found,
        evidence=evidence(found, passed=number != 1) if number != 2 else None,
        attached=tuple(AttachedDocument(kind=kind.name, digest=digest(kind.name, found.digest), file=kind.file) for kind in documents.KINDS),
        is_signed=True,
    )


def images(cell: Cell) -> list[str]:
    """Return the names of the images of a cell."""
    return [*MATRIX.flavours, *([f"v{cell.torch}"] if cell.named else [])]


def releases(count: int) -> Iterator[Exhibit]:
    """Yield so many images: one release of all cells after the other."""
    return itertools.islice(itertools.chain.from_iterable(map(_released, itertools.count())), count)


def _released(release: int) -> Iterator[Exhibit]:
    """Yield the images of all cells of a release."""
    for cell in map(cell_named, CELLS):
        for number, image in enumerate(images(cell)):
            yield exhibit(cell, image, number, release)


def ledger(shown: Sequence[Exhibit]) -> Ledger:
    """Return the ledger of a channel that took every release, and went back once."""
    sets: dict[tuple[str, str], dict[str, str]] = {}
    for image in shown:
        sets.setdefault((image.day, image.cell), {})[image.image] = image.digest
    author, made = Author(name="The night", email="", run="https://forge.example/run/1"), Ledger()
    moves = [Move(action="publish", channel="stable", cell=cell, images=one, tags={}, why="new OS packages") for (_, cell), one in sorted(sets.items())]
    if len(moves) > len(CELLS):
        before = moves[0]
        moves.append(replace(before, action="rollback", why="NCCL hangs on 8 GPUs <script>alert(1)</script>"))
    for number, move in enumerate(moves):
        made = made.append([move], author, NOW - dt.timedelta(hours=len(moves) - number))
    return made


def catalogue(count: int, *, place: str = PLACE) -> Catalogue:
    """Return a catalogue of so many images."""
    shown = list(releases(count))
    return Catalogue(matrix=MATRIX, place=place, source=place or "Docker 26.1.5", images=ordered(shown, MATRIX, frozenset()), made=NOW, ledger=ledger(shown))
