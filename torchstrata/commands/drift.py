"""The verb ``inv drift``: what differs between a container and its image, and the files that make the difference an image."""

from __future__ import annotations

import json
import sys
from typing import Any

from torchstrata import progress
from torchstrata.building import engine as engines
from torchstrata.commands.container_options import DriftOptions
from torchstrata.drift import freeze, reading
from torchstrata.drift.freeze import FrozenPlan
from torchstrata.drift.reading import ContainerFiles, Drifted
from torchstrata.errors import DriftError


def run(options: DriftOptions) -> None:
    """Show what differs; with ``--freeze`` write the files instead of failing.

    :raises DriftError: something differs, and is not to be frozen; or not all of it can be.
    :raises NoContainerError, ForeignContainerError, NoImageError, EngineError, FreezeError: it cannot be looked at, or written down.
    """
    engine = engines.connect()
    found = reading.drift(engine, options.container, options.against)
    made = freeze.plan(found) if options.freeze else None
    if made and options.freeze and found.drifts:
        freeze.write(made, ContainerFiles(engine, found.container.id), options.freeze)
    if options.json:
        sys.stdout.write(json.dumps(as_json(found, made), indent=2) + "\n")
    else:
        _show(found, made, options)
    if failure := _failure(found, made):
        raise failure


def _show(found: Drifted, made: FrozenPlan | None, options: DriftOptions) -> None:
    console = progress.plain_console()
    for one in found.drifts:
        console.print(one.line(), soft_wrap=True)
    if not found.drifts:
        console.print(f"{found.container.name} is what {options.against or found.container.named} is", soft_wrap=True)
    elif made:
        for why in made.open_:
            console.print(f"not frozen: {why}", soft_wrap=True)
        console.print(f"written: {options.freeze}; build it with: docker build {options.freeze}", soft_wrap=True)


def _failure(found: Drifted, made: FrozenPlan | None) -> DriftError | None:
    """Return the error that the program ends with: a difference, or with ``--freeze`` one that cannot be frozen."""
    if made:
        fix = "do what is said of each, then freeze again"
        return DriftError(f"{len(made.open_)} of {len(found.drifts)} differences cannot be frozen", fix=fix) if made.open_ else None
    if not found.drifts:
        return None
    fix = f"inv drift {found.container.name} --freeze DIRECTORY makes it an image; or start a new container"
    return DriftError(f"{found.container.name} differs from its image in {len(found.drifts)}", fix=fix)


def as_json(found: Drifted, made: FrozenPlan | None) -> dict[str, Any]:
    """Return all of it for programs."""
    return {
        "container": found.container.id,
        "image": found.container.image,
        "against": found.against,
        "cell": found.container.labels[reading.CELL],
        "drift": [one._asdict() for one in found.drifts],
        "not_frozen": list(made.open_) if made else None,
    }
