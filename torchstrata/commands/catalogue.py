"""The verb ``inv catalogue``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from torchstrata import files, progress
from torchstrata.attestations import remote, signing
from torchstrata.building import engine as engines
from torchstrata.catalogue import measurements, publication
from torchstrata.catalogue.exhibits import Catalogue
from torchstrata.catalogue.from_engine import EngineReader
from torchstrata.catalogue.from_registry import RegistryReader
from torchstrata.catalogue.site import Site
from torchstrata.commands.release_options import CatalogueOptions
from torchstrata.errors import CatalogueError
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT
from torchstrata.registry.patience import Patience
from torchstrata.registry.registry import Registry
from torchstrata.store.store import Store

RESULTS: Final = ROOT / "bench" / "results"
LIMIT: Final = 10_000_000
"""Bytes of a file of measurements."""


def write(options: CatalogueOptions) -> None:
    """Write the site, and say what is in it, and what could not be read.

    :raises CatalogueError: it cannot be written there, or options contradict each other.
    :raises RegistryError, EngineError: what it is about does not answer.
    """
    address = publication.checked_address(options.address)
    _check(options)
    publication.check(options.output.absolute())
    catalogue = replace(_engine() if options.engine else _registry(options), measurements=_measurements(RESULTS))
    size = publication.write(Site(catalogue, address).files(), options.output)
    progress.say(*(f"{what}: not shown: {why}" for what, why in catalogue.unread.items()))
    for image in catalogue.images:
        progress.say(*(f"{image.cell}-{image.image} {image.digest}: {problem}" for problem in image.problems))
    checked = f"signatures checked ({catalogue.who})" if catalogue.who else "no signature was checked"
    progress.say(f"{options.output}: {len(catalogue.images)} images from {catalogue.source}, {progress.size(size)}, {checked}")


def _check(options: CatalogueOptions) -> None:
    """Refuse what says nothing about the images of an engine: somebody would believe that a key was used."""
    given = [name for name in ("key", "identity", "issuer", "registry") if getattr(options, name)]
    if options.engine and given:
        what = ", ".join(f"--{name}" for name in given)
        raise CatalogueError(f"--engine has no use for {what}: nothing in an engine is signed", fix=f"leave out --engine, or {what}")


def _registry(options: CatalogueOptions) -> Catalogue:
    table = matrix.load()
    where = remote.required(options.registry, table.registry)
    registry = Registry(where.host, scheme=where.scheme, patience=Patience.attended())
    with signing.trusted(options.key, options.identity, options.issuer) as trust, registry:
        reader = RegistryReader(matrix=table, registry=registry, repository=where.repository(table.name), trust=trust, now=_now())
        with progress.overdue(f"reading what {where} has, image by image"):
            return reader.catalogue()


def _engine() -> Catalogue:
    reader = EngineReader(matrix=matrix.load(), engine=engines.connect(), store=Store.open(), now=_now())
    with progress.overdue("reading what the engine has, image by image"):
        return reader.catalogue()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _measurements(directory: Path) -> Mapping[str, bytes]:
    """Return the files of measurements that there are.

    :raises CatalogueError: one cannot be read, or is not as its program writes it.
    """
    try:
        contents = {name: files.read(directory / name, LIMIT) for name in measurements.TIMES if (directory / name).exists()}
    except files.UnreadableError as error:
        raise CatalogueError(f"measurements: {error.what}", fix="measure again, or remove it") from error
    measurements.check(contents)
    return contents
