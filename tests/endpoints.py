"""The services of containers of a flavour, from the file that its images have of them."""

from __future__ import annotations

import functools

from torchstrata.containers import description
from torchstrata.containers.description import Endpoint
from torchstrata.image import declarations, runtime
from torchstrata.matrix import matrix


@functools.cache
def endpoints(flavour: str) -> tuple[Endpoint, ...]:
    """Return the services, each published where it listens."""
    lineage = matrix.load().lineage(flavour)
    declared = declarations.read({declarations.OWN: runtime.services_file(lineage).encode()})
    return description.endpoints([service.port for service in runtime.services(lineage)], declared)
