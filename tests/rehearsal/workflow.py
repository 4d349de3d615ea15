"""Workflow files and composite actions as data: jobs in the order of their needs, each once for every point of its matrix.

Unknown keys are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rehearsal.expressions import Refused, Scope

MOST_JOBS = 256

WORKFLOW = frozenset({"name", "on", "permissions", "concurrency", "env", "jobs"})
JOB = frozenset({"name", "runs-on", "timeout-minutes", "permissions", "needs", "if", "strategy", "steps", "outputs", "environment", "env"})
STEP = frozenset({"id", "name", "if", "uses", "with", "run", "env"})
ACTION = frozenset({"name", "description", "inputs", "runs"})
ACTION_STEP = STEP | {"shell"}
STRATEGY = frozenset({"fail-fast", "max-parallel", "matrix"})
NO_AXIS = frozenset({"include", "exclude"})


@dataclass(frozen=True)
class Workflow:
    """A workflow file; everything in it is text, lists and mappings."""

    name: str
    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Workflow:
        """Return a workflow.

        :raises Refused: it uses something that the rehearsal does not know.
        """
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # plain data: every scalar stays a text
        _check(document, WORKFLOW, path.name)
        for name, job in document["jobs"].items():
            _check(job, JOB, f"{path.name}: {name}")
            _check(job.get("strategy", {}), STRATEGY, f"{path.name}: {name}: strategy")
            for step in job["steps"]:
                _check(step, STEP, f"{path.name}: {name}: {title(step)}")
        return cls(path.name, document)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of all its jobs."""
        return dict(self.document.get("env", {}))

    def inputs(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the inputs of a run by hand, with their defaults.

        :raises Refused: one is given that the workflow does not have, or a required one is not.
        """
        dispatch = (self.document["on"] if isinstance(self.document["on"], dict) else {}).get("workflow_dispatch") or {}
        return _filled(self.name, dispatch.get("inputs", {}), given)

    def jobs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield jobs, those that others need first.

        :raises Refused: some need each other.
        """
        todo, done = dict(self.document["jobs"]), set[str]()
        while todo:
            ready = next((name for name, job in todo.items() if set(needs(job)) <= done), None)
            if ready is None:
                raise Refused(f"{self.name}: {', '.join(todo)} wait for each other, or for a job that there is not")
            yield ready, todo.pop(ready)
            done.add(ready)


@dataclass(frozen=True)
class Action:
    """A composite action of this repository."""

    name: str
    document: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Action:
        """Return the action in a folder.

        :raises Refused: it uses something that the rehearsal does not know.
        """
        path = folder / "action.yml"
        if not path.is_file():
            raise Refused(f"{folder.name} is not in the checkout")
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # plain data: every scalar stays a text
        _check(document, ACTION, folder.name)
        for step in document["runs"]["steps"]:
            _check(step, ACTION_STEP, f"{folder.name}: {title(step)}")
        return cls(folder.name, document)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """What it does."""
        return list(self.document["runs"]["steps"])

    def inputs(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return its inputs, with their defaults.

        :raises Refused: one is given that it does not have, or a required one is not.
        """
        return _filled(self.name, self.document.get("inputs", {}), given)


def needs(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the jobs that a job needs."""
    found = job.get("needs", [])
    return (found,) if isinstance(found, str) else tuple(found)


def points(job: Mapping[str, Any], scope: Scope) -> list[dict[str, str]]:
    """Return every point of a job's matrix; one that is empty if it has none.

    :raises Refused: it has more jobs than GitHub allows, or none, or is no plain product.
    """
    axes = job.get("strategy", {}).get("matrix", {})
    if not isinstance(axes, dict) or axes.keys() & NO_AXIS:
        raise Refused("the rehearsal knows only matrices that are plain products")
    values = {name: scope.whole(axis) if isinstance(axis, str) else axis for name, axis in axes.items()}
    found = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    if not 0 < len(found) <= MOST_JOBS:
        raise Refused(f"a matrix of {len(found)} jobs: GitHub takes 1 to {MOST_JOBS}")
    return found


def title(step: Mapping[str, Any]) -> str:
    """Return what a step is called for people."""
    return str(step.get("name") or step.get("run") or step.get("uses", "?").partition("@")[0]).strip()


def _filled(where: str, declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Return inputs with their defaults."""
    lacking = [name for name, each in declared.items() if each.get("required") == "true" and name not in given]
    if lacking or given.keys() - declared.keys():
        raise Refused(f"{where} has the inputs {', '.join(declared) or 'none'}, not {', '.join([*given, *lacking])}")
    return {name: each.get("default", "") for name, each in declared.items()} | dict(given)


def _check(found: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    strange = sorted(found.keys() - known)
    if strange:
        raise Refused(f"{where}: the rehearsal does not know {', '.join(strange)}")
