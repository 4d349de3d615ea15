"""``nox -s rehearse``: the workflows, as their files say, on this machine against a registry of its own.

Signed with a key pair made for it, instead of keyless. The content store and the download caches are those of this machine;
everything else is made in a temporary directory and removed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import platformdirs
from rich.table import Table

from tests import programs, registries
from tests.rehearsal.expressions import Refused
from tests.rehearsal.runner import Runner
from tests.rehearsal.workflow import Workflow
from torchstrata import arguments, progress
from torchstrata.building import engine as engines
from torchstrata.commands import cli
from torchstrata.errors import INTERRUPTED
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT
from torchstrata.nightly import pushed_images
from torchstrata.verification import leftovers

WORKFLOWS = ROOT / ".github/workflows"
FOREIGN = (
    "GITHUB_",
    "ACTIONS_",
    "COSIGN_",
    "SIGSTORE_",
    "TORCHSTRATA_REGISTRY",
    "NOX",
    "PYTEST_",
    "GIT_AUTHOR",
    "GIT_COMMITTER",
    "VIRTUAL_ENV",
    "DOCKER_CONFIG",
)
"""Beginnings of variables that are of whoever rehearses, or would lead out of the rehearsal."""

GITHUB: Final = {"SERVER_URL": "https://github.example", "REPOSITORY": "team/images", "RUN_ID": "1", "RUN_ATTEMPT": "1", "ACTOR": "rehearsal"}


@dataclass(frozen=True)
class Run:
    """A run of a workflow.

    :param event: what starts it.
    """

    workflow: str
    event: str
    inputs: Mapping[str, str] = field(default_factory=dict)


NEEDED: Final = {"release.yml": ("nightly.yml",), "watchdog.yml": ("nightly.yml", "release.yml"), "catalogue.yml": ("nightly.yml", "release.yml")}
"""Workflows without whose images others have nothing to do."""


def main(words: list[str]) -> int:
    """Rehearse, and return 0 if every step went well."""
    options = _parse(words)
    if subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"], check=True, capture_output=True).stdout:
        print("what is rehearsed is HEAD: changes that are not committed are not in it", flush=True)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="torchstrata-rehearsal-") as work:
        return _rehearse(Path(work), options)


def _parse(words: list[str]) -> argparse.Namespace:
    """Return what ``words`` ask for.

    :raises MatrixError: there is no such cell.
    """
    known = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
    parser = arguments.Parser(prog="nox -s rehearse --", description="Run GitHub's workflows on this machine.")
    parser.add_argument("--workflow", action="append", choices=known, help="only this one, and those that it needs; more than once for more (default: all)")
    parser.add_argument("--cells", default="2.13-cpu", help="cell ids or globs of the night, with commas between them (default: 2.13-cpu)")
    parser.add_argument("--large", action="store_true", help="ci.yml as on the main branch with a large runner, instead of a pull request")
    parser.add_argument("--systems", action="store_true", help="try OSes that nobody has verified, too, where their registry answers")
    parser.add_argument("--mutants", action="store_true", help="run the job that plants faults, too, which takes long")
    options = parser.parse_args(words)
    matrix.select(matrix.load(), *options.cells.split(","))
    return options


def program(cells: str, *, large: bool, only: list[str] | None) -> list[Run]:
    """Return what runs: a change; a night, what it made released at once, a night with nothing to do, a look at all of it; its catalogue; new versions."""
    wanted = {*only, *chain.from_iterable(NEEDED.get(name, ()) for name in only)} if only else None
    night = Run("nightly.yml", "workflow_dispatch", {"cells": cells})
    release = {"action": "promote", "cells": cells, "channel": "stable", "why": "a rehearsal does not wait"}
    runs = [
        Run("ci.yml", "push" if large else "pull_request"),
        night,
        Run("release.yml", "workflow_dispatch", release),
        night,
        Run("watchdog.yml", "schedule"),
        Run("catalogue.yml", "schedule"),
        Run("update.yml", "schedule"),
    ]
    return [run for run in runs if wanted is None or run.workflow in wanted]


def _rehearse(work: Path, options: argparse.Namespace) -> int:
    (work / "registry").mkdir()
    with registries.registry(work / "registry", passwords=True) as served:
        signing = _key_pair(work)
        runner = Runner(
            work,
            _environment() | {"COSIGN_PUBLIC_KEY": str(work / "cosign.pub")},
            {"vars": _variables(served.host, large=options.large), "secrets": {"REGISTRY_USERNAME": registries.NAME, "REGISTRY_PASSWORD": registries.PASSWORD}},
            signing,
            frozenset(name for name in ("mutants", "systems") if not getattr(options, name)),
        )
        runner.adopt(ROOT)
        try:
            runs = program(options.cells, large=options.large, only=options.workflow)
            good = all(runner.run(Workflow.read(WORKFLOWS / run.workflow), run.event, **run.inputs) for run in runs)
        except Refused as refusal:
            print(f"refused: {refusal}")
            good = False
        finally:
            _tidy(served.host)
        _show(runner)
    return 0 if good else 1


def _tidy(host: str) -> None:
    """Leave nothing in the engine, even after Ctrl-C in a verification."""
    client = engines.connect().client
    pushed_images.sweep(client)
    leftovers.sweep(client)
    for name in engines.names(client):
        if name.startswith(f"{host}/"):
            client.images.remove(name)


def _variables(host: str, *, large: bool) -> dict[str, str]:
    """Return the repository's variables."""
    found = {"TORCHSTRATA_REGISTRY": f"{host}/team", "REGISTRY_HOST": host, "PIP_EXTRA_INDEX_URL": os.environ.get("PIP_EXTRA_INDEX_URL", "")}
    return found | ({"LARGE_RUNNER": "this-machine"} if large else {})


def _environment() -> dict[str, str]:
    """Return the variables of a runner: those of this machine, without this Python's programs, and with its caches."""
    own = Path(sys.prefix).resolve()
    path = [place for place in os.environ["PATH"].split(os.pathsep) if own not in Path(place).resolve().parents]
    shared = {"PATH": os.pathsep.join(path), "XDG_CACHE_HOME": str(platformdirs.user_cache_path()), "COLUMNS": "160"}
    return {**os.environ, **shared, "GITHUB_ACTIONS": "true", **{f"GITHUB_{name}": value for name, value in GITHUB.items()}}


def _key_pair(work: Path) -> dict[str, str]:
    """Make a key pair, and return the variables of who signs with it."""
    made = {"COSIGN_PASSWORD": "", "COSIGN_KEY": str(work / "cosign.key")}
    command = [programs.directory("cosign") / "cosign", "generate-key-pair"]
    subprocess.run(command, cwd=work, env={**os.environ, **made}, check=True, capture_output=True)
    return made


def _show(runner: Runner) -> None:
    view = Table("workflow", "job", "step", "seconds", "result", header_style="bold", box=None, pad_edge=False)
    for row in runner.rows:
        view.add_row(row.workflow, row.job, row.step.splitlines()[0] if row.step else "", f"{row.seconds:.1f}", row.result)
    console = progress.plain_console()
    console.print(view)
    for summary in filter(None, runner.summaries):
        console.print(summary.strip(), markup=False)


def end_in_order() -> None:
    """Let SIGTERM, by which whoever has waited long enough ends a rehearsal, be an exception, so that all is tidied up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


if __name__ == "__main__":
    end_in_order()
    with cli.guarded():
        try:
            sys.exit(main(sys.argv[1:]))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # nothing of it is kept, which guarded() would say
