"""``nox -s rehearse``: the night, a release and the watchdog, as their workflows say, on this machine against a registry of its own.

Signed with a key pair made for it, instead of keyless. The content store is the one of this machine; everything else is made in
a temporary directory and removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from tests import programs, registries
from tests.rehearsal.expressions import Refused
from tests.rehearsal.runner import Runner
from tests.rehearsal.workflow import Workflow
from torchstrata import progress
from torchstrata.cells.matrix import ROOT
from torchstrata.engines import engine as engines
from torchstrata.errors import INTERRUPTED
from torchstrata.nights import pushed
from torchstrata.verification import leftovers

WORKFLOWS = ROOT / ".github/workflows"
FOREIGN = ("GITHUB_", "ACTIONS_", "COSIGN_", "SIGSTORE_", "TORCHSTRATA_REGISTRY")
"""Beginnings of variables that would lead out of the rehearsal."""


def main(words: list[str]) -> int:
    """Rehearse, and return 0 if every step went well."""
    parser = argparse.ArgumentParser(prog="nox -s rehearse --", description="Run nightly.yml, release.yml and watchdog.yml on this machine.")
    parser.add_argument("--cells", default="2.13-cpu", help="cell ids or globs, with commas between them (default: 2.13-cpu)")
    parser.add_argument("--mutants", action="store_true", help="run the job that plants faults, too, which takes long")
    options = parser.parse_args(words)
    if subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"], check=True, capture_output=True).stdout:
        print("what is rehearsed is HEAD: changes that are not committed are not in it", flush=True)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="torchstrata-rehearsal-") as work:
        return _rehearse(Path(work), options)


def _rehearse(work: Path, options: argparse.Namespace) -> int:
    (work / "registry").mkdir()
    with registries.registry(work / "registry") as served:
        variables = {"TORCHSTRATA_REGISTRY": f"{served.host}/team", "PIP_EXTRA_INDEX_URL": os.environ.get("PIP_EXTRA_INDEX_URL", "")}
        runner = Runner(work, _environment(work), variables, frozenset() if options.mutants else frozenset({"mutants"}))
        runner.adopt(ROOT)
        try:
            good = all(runner.run(Workflow.read(WORKFLOWS / name), **given) for name, given in _program(options.cells))
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
    pushed.sweep(client)
    leftovers.sweep(client)
    for name in engines.names(client):
        if name.startswith(f"{host}/"):
            client.images.remove(name)


def _program(cells: str) -> list[tuple[str, Mapping[str, str]]]:
    """Return which workflows run with which inputs: a night, what it made released at once, a night with nothing to do, and a look at all of it."""
    return [
        ("nightly.yml", {"cells": cells}),
        ("release.yml", {"action": "promote", "cells": cells, "channel": "stable", "why": "a rehearsal does not wait"}),
        ("nightly.yml", {"cells": cells}),
        ("watchdog.yml", {}),
    ]


def _environment(work: Path) -> dict[str, str]:
    """Return the variables of a runner, with a key pair of its own and nobody's credentials."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(programs.directory("cosign")), os.environ["PATH"]])
    made = {"PATH": path, "COSIGN_PASSWORD": "", "COSIGN_KEY": str(work / "cosign.key"), "COSIGN_PUBLIC_KEY": str(work / "cosign.pub")}
    subprocess.run(["cosign", "generate-key-pair"], cwd=work, env={**os.environ, **made}, check=True, capture_output=True)
    (work / "docker").mkdir()
    server = {"GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "team/images", "GITHUB_RUN_ID": "1", "GITHUB_RUN_ATTEMPT": "1"}
    return {**made, **server, "GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "rehearsal", "DOCKER_CONFIG": str(work / "docker"), "COLUMNS": "160"}


def _show(runner: Runner) -> None:
    view = Table("workflow", "job", "step", "seconds", "result", header_style="bold", box=None, pad_edge=False)
    for row in runner.rows:
        view.add_row(row.workflow, row.job, row.step.splitlines()[0] if row.step else "", f"{row.seconds:.1f}", row.result)
    console = progress.plain_console()
    console.print(view)
    for summary in filter(None, runner.summaries):
        console.print(summary.strip(), markup=False)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
