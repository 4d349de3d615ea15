"""The verb ``inv drift``: what differs between a container and its image, and files that make it an image."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any, Final

from torchstrata import progress
from torchstrata.building import engine as engines
from torchstrata.commands.container_options import DriftOptions
from torchstrata.containers.description import names_a_host
from torchstrata.drift import freeze, reading
from torchstrata.drift.freeze import FrozenPlan
from torchstrata.drift.reading import ContainerFiles, Drifted
from torchstrata.errors import DriftError
from torchstrata.text import printable

LONGEST: Final = 4096
"""Characters of a line: a path may have as many (Linux, ``PATH_MAX``)."""


def run(options: DriftOptions) -> None:
    """Show what differs; with ``--freeze`` write the files instead of failing.

    :raises DriftError: something differs, and is not to be frozen; or not all of it can be.
    :raises NoContainerError, ForeignContainerError, NoImageError, EngineError, FreezeError: it cannot be read or
        written.
    """
    engine = engines.connect()
    with progress.overdue(f"comparing {options.container} with its image, file by file; large ones take a minute"):
        drifted = reading.drift(engine, options.container, options.against)
    made = freeze.plan(drifted) if options.freeze else None
    if made and options.freeze and drifted.drifts:
        freeze.write(made, ContainerFiles(engine, drifted.container.id), options.freeze)
    if options.json:
        sys.stdout.write(json.dumps(as_json(drifted, made), indent=2) + "\n")
    else:
        _show(drifted, made, options)
    if failure := _failure(drifted, made):
        raise failure


def _show(drifted: Drifted, made: FrozenPlan | None, options: DriftOptions) -> None:
    progress.say(*(printable(drift.line(), LONGEST) for drift in drifted.drifts))
    if not drifted.drifts:
        progress.say(f"{drifted.container.name} is what {options.against or drifted.container.named} is")
    elif made:
        progress.say(*(f"not frozen: {why}" for why in made.open_))
        progress.say(f"written: {options.freeze}; build it with: {_build(drifted, made, str(options.freeze))}")


def _build(drifted: Drifted, made: FrozenPlan, directory: str) -> str:
    """Return the command that builds what was written; of an image that no registry has, BuildKit knows the name alone."""
    base = () if names_a_host(made.base) else ("--build-arg", f"BASE={drifted.container.named.partition('@')[0]}")
    return shlex.join(("docker", "build", *base, directory))


def _failure(drifted: Drifted, made: FrozenPlan | None) -> DriftError | None:
    """Return the error that the program ends with: a difference, or with ``--freeze`` one that cannot be frozen."""
    if made:
        fix = "do what is said of each, then freeze again"
        return DriftError(f"{len(made.open_)} of {len(drifted.drifts)} differences cannot be frozen", fix=fix) if made.open_ else None
    if not drifted.drifts:
        return None
    fix = f"inv drift {drifted.container.name} --freeze DIRECTORY makes it an image; or start a new container"
    return DriftError(f"{drifted.container.name} differs from its image in {len(drifted.drifts)}", fix=fix)


def as_json(drifted: Drifted, made: FrozenPlan | None) -> dict[str, Any]:
    """Return all of it for programs."""
    return {
        "container": drifted.container.id,
        "image": drifted.container.image,
        "against": drifted.against,
        "cell": drifted.container.labels[reading.CELL],
        "drift": [drift._asdict() for drift in drifted.drifts],
        "not_frozen": list(made.open_) if made else None,
    }
