"""A catalogue of the local engine; the content store tells what images are made of, if they were built here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import docker.errors
from rich.console import Console

from torchstrata.attestations import made, materials
from torchstrata.attestations.record import Record
from torchstrata.building import engine as engines
from torchstrata.building.assembly import Builder, Composed
from torchstrata.building.engine import Engine
from torchstrata.building.plan import ImagePlan, Planner
from torchstrata.catalogue.exhibits import Catalogue, Exhibit, ShownLayer, ordered
from torchstrata.containers import declared_services, description
from torchstrata.errors import NoImageError, TorchstrataError
from torchstrata.image import oci, source
from torchstrata.image.compose import CREATED_BY, sha256
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.progress import PlainReporter
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store
from torchstrata.text import printable
from torchstrata.verification import evidence
from torchstrata.verification.evidence import Evidence

LABEL: Final = "torchstrata.cell"


@dataclass(frozen=True, kw_only=True)
class EngineReader:
    """Reads the images of an engine that this program has made."""

    matrix: Matrix
    engine: Engine
    store: Store
    now: dt.datetime

    def catalogue(self) -> Catalogue:
        """Return what the engine has.

        :raises NoImageError: it has no such image.
        """
        attributes = {image["Id"]: image for image in self._attributes()}
        records, unread = self._records({(_labels(image).get(LABEL, ""), _platform(image)) for image in attributes.values()})
        images = [self._exhibit(image, records.get(identity)) for identity, image in attributes.items() if self._is_composed(identity)]
        shown = [image for image in images if image.is_ours and image.tags]
        if not shown:
            raise NoImageError("the engine has no image of this program", fix="build one: nox -s build-2.13-cpu; or name a registry: --registry HOST[/PATH]")
        return Catalogue(
            matrix=self.matrix,
            place="",
            source=f"Docker {self.engine.version}",
            images=ordered(shown, self.matrix, frozenset(image.digest for image in shown if image.tags[0].startswith(f"{self.matrix.name}:"))),
            made=self.now,
            unread=unread,
        )

    def _attributes(self) -> Iterator[dict[str, Any]]:
        for listed in engines.listed(self.engine.client, filters={"label": LABEL}):
            try:
                yield self.engine.client.api.inspect_image(listed["Id"])  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                continue  # somebody removed it just now

    def _is_composed(self, identity: str) -> bool:
        """Return whether an image ends with a layer of ours: one that was derived has our labels, and others' layers on top."""
        newest = next(iter(self.engine.client.api.history(identity)), None)  # type: ignore[no-untyped-call]
        return newest is not None and str(newest["CreatedBy"]).startswith(CREATED_BY)

    def _records(self, cells: set[tuple[str, str]]) -> tuple[dict[str, Record], dict[str, str]]:
        """Return the records of what would be built of these cells today, by both digests; and why a cell has none.

        Only parts that the store has are looked at; an image that was built from others is shown with its labels alone.
        """
        records: dict[str, Record] = {}
        unread: dict[str, str] = {}
        for cell in (cell for cell in matrix.everywhere(self.matrix.cells) if (cell.id, cell.platform) in cells):
            try:
                for one, image_record in self._composed(cell):
                    records |= {one.image.digest: image_record, sha256(one.image.config): image_record}
            except TorchstrataError as error:
                unread[cell.name] = printable(error.what)
        return records, unread

    def _composed(self, cell: Cell) -> Iterator[tuple[Composed, Record]]:
        codec = Codec()
        planner = Planner(matrix=self.matrix, store=self.store, codec=codec, locked=False)
        builder = Builder(matrix=self.matrix, store=self.store, codec=codec, reporter=PlainReporter(Console(quiet=True)))
        for image in planner.plan([cell], list(self.matrix.flavours)).images:
            if all(item.part for item in image.items):
                for one in _assembled(builder, image):
                    yield one, made.record_of(materials.gather(one, self.store, codec, matrix.ROOT))

    def _exhibit(self, image: Mapping[str, Any], image_record: Record | None) -> Exhibit:
        config, identity = image.get("Config") or {}, str(image["Id"])
        ports = oci.tcp_ports(config.get("ExposedPorts") or ())
        declared = declared_services.in_engine(self.engine, identity) if ports else {}
        return Exhibit(
            digest=identity,
            tags=_tags(image.get("RepoTags") or (), self.matrix.name),
            labels=_labels(image),
            platform=_platform(image),
            size=image_record.size if image_record else int(image.get("Size") or 0),
            endpoints=description.endpoints(ports, declared),
            user=str(config.get("User") or ""),
            layers=_layers(image, image_record),
            record=image_record,
            evidence=_evidence(identity),
        )


def _assembled(builder: Builder, image: ImagePlan) -> Iterator[Composed]:
    parts = {item.identity: item.part for item in image.items if item.part}
    return builder.assemble(image, parts, source.revision(image.cell, image.lineage, matrix.ROOT))


def _labels(image: Mapping[str, Any]) -> dict[str, str]:
    return dict((image.get("Config") or {}).get("Labels") or {})


def _platform(image: Mapping[str, Any]) -> str:
    return f"{image.get('Os', 'linux')}/{image.get('Architecture', '')}"


def _tags(names: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the names of an image, with their repository: those that builds give, if it has any."""
    ours = [tag for tag in names if tag.startswith(f"{name}:")]
    return tuple(sorted(ours or names))


def _layers(image: Mapping[str, Any], image_record: Record | None) -> tuple[ShownLayer, ...]:
    if image_record:
        return tuple(ShownLayer(digest=layer.digest, size=layer.size, title=layer.title, origin=layer.origin) for layer in image_record.layers)
    return tuple(ShownLayer(digest=str(digest), size=0) for digest in (image.get("RootFS") or {}).get("Layers") or ())


def _evidence(digest: str) -> Evidence | None:
    """Return the newest evidence about an image, whatever it says; one that passed before one that did not."""
    results = sorted(evidence.about(digest), key=lambda result: (result.passed, result.holds, result.finished))
    return results[-1] if results else None
