"""The services of a flavour, as a container of its image reads them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from container import declarations
from container.declarations import Declaration

from torchstrata.image import runtime
from torchstrata.matrix import matrix


def declared(flavour: str) -> tuple[Declaration, ...]:
    """Return the services that an image of a flavour has, its parents' first."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "services.json"
        path.write_text(runtime.services_file(matrix.load().lineage(flavour)))
        return declarations.read(path, Path(directory) / "added").services
