"""Small images with all that a release has: wheels and OS packages with licences, composed as real ones are."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from tests import records
from tests.parts import CELL, CODEC, MATRIX, os_part, plan
from tests.wheelhouse import wheel
from torchstrata.attestations import made, materials
from torchstrata.attestations.record import Record
from torchstrata.building.assembly import Builder, Composed
from torchstrata.building.plan import Item
from torchstrata.layers import os_parts, strata
from torchstrata.layers.strata import Stratum
from torchstrata.matrix.matrix import ROOT
from torchstrata.progress import PlainReporter
from torchstrata.store.store import Store

STATUS = """\
Package: libexample1
Status: install ok installed
Architecture: amd64
Source: example (1.0-2)
Version: 1.0-2+b1

Package: example-doc
Status: install ok installed
Architecture: all
Source: example
Version: 1.0-2

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-2+ or Artistic

Files: lib/*
Copyright: somebody
License: Expat

License: Expat
 Permission is hereby granted...
"""

OS_FILES = {
    "var/lib/dpkg/status": STATUS.encode(),
    "usr/share/doc/libexample1/copyright": COPYRIGHT.encode(),
    "usr/share/doc/example-doc/copyright": b"This is free software; see /usr/share/common-licenses/GPL-3.\n",
}

WHEELS = {
    "torch": "License-Expression: BSD-3-Clause",
    "nvidia-thing": "License: LicenseRef-NVIDIA-Proprietary",
    "odd": "License: Whatever you like",
}


def compose(store: Store, directory: Path, *, os_files: dict[str, bytes] | None = None, drift: str = "") -> Composed:
    """Compose the image of a cell with three wheels and two OS packages.

    :param drift: what the OS part notes of packages that are not as locked.
    """
    directory.mkdir(exist_ok=True)
    made = [wheel(directory, name, "1.0", {f"{name.replace('-', '_')}.py": b"x = 1\n"}, more=more) for name, more in WHEELS.items()]
    source = Stratum(title="wheels", kind="group", pins=tuple(sorted((pin for pin, _ in made), key=lambda pin: pin.name)), python=CELL.os.python)
    part = strata.make(source, {pin.sha256: path for pin, path in made}, store, CODEC, threading.Event())
    store.remember(source.identity(CODEC), part)
    system = os_part(store, os_files or OS_FILES)
    if drift and system.part:
        noted = replace(system.part, notes={os_parts.DRIFT: drift})
        system = replace(system, identity=f"{system.identity[:-5]}drift", part=noted)
        store.remember(system.identity, noted)
    items = (Item(identity=source.identity(CODEC), title=source.title, source=source, part=part), system)
    return Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(quiet=True))).build(plan(*items))[0]


def record_of(composed: Composed, store: Store) -> Record:
    """Return the record of such an image."""
    return made.record_of(materials.gather(composed, store, CODEC, ROOT))


def result(digest: str, **fields: object) -> bytes:
    """Return what a verification of the image with ``digest`` would have written."""
    return msgspec.json.encode(records.result(digest, **fields))
