"""Runs workflows on this machine: ``run:`` steps as they are, and something local for each action that is used.

| action | here |
|---|---|
| ``actions/checkout`` | a clone of what the rehearsal's own remote has at ``ref``, which at first is HEAD |
| ``./.github/actions/setup`` | the environment that the rehearsal itself runs in, with cosign; nobody logs in |
| ``actions/upload-artifact`` | a directory |

Matrices run one job after the other. ``permissions``, ``timeout-minutes``, ``concurrency`` and ``environment`` have no meaning here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rehearsal import workflow as workflows
from tests.rehearsal.expressions import Refused, Scope
from tests.rehearsal.workflow import Workflow
from tests.waiting import PATIENCE

BRANCH = "main"
SHOWN = 30
"""Lines of a failed step that are shown."""

FILES = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")
UNSUPPORTED = ("GITHUB_ENV", "GITHUB_PATH")


@dataclass(frozen=True)
class Row:
    """A step that ran, or a job that did not."""

    workflow: str
    job: str
    step: str
    seconds: float
    result: str


@dataclass
class Job:
    """One job under way.

    :param scope: what its expressions see.
    """

    name: str
    workspace: Path
    environment: dict[str, str]
    scope: Scope
    steps: dict[str, Any] = field(default_factory=dict)


@dataclass
class Runner:
    """Runs workflows, and notes every step.

    :param work: a directory for all that it makes.
    :param environment: variables of every step.
    :param variables: what ``vars`` and ``secrets`` are.
    :param left_out: jobs that do not run.
    """

    work: Path
    environment: Mapping[str, str]
    variables: Mapping[str, str]
    left_out: frozenset[str] = frozenset()
    rows: list[Row] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Path:
        """The remote that checkouts are from."""
        return self.work / "origin.git"

    def adopt(self, root: Path) -> None:
        """Let the remote have the HEAD of a repository as its branch."""
        _git("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", self.origin)
        _git("-C", root, "-c", "core.hooksPath=/dev/null", "push", "--quiet", self.origin, f"HEAD:refs/heads/{BRANCH}")

    def run(self, workflow: Workflow, **given: str) -> bool:
        """Run a workflow with these inputs; return whether all went well."""
        inputs, done = workflow.inputs(given), dict[str, dict[str, Any]]()
        for name, job in workflow.jobs():
            needed = {other: done[other] for other in workflows.needs(job)}
            contexts = {"needs": needed, "inputs": inputs, "vars": self.variables, "secrets": {}, "github": {}}
            bad = [other for other, each in needed.items() if each["result"] != "success"]
            done[name] = self._job(workflow, name, job, Scope(contexts, "failure" if bad else "success"))
        return all(each["result"] != "failure" for each in done.values())

    def _job(self, workflow: Workflow, name: str, job: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        if name in self.left_out or not scope.holds(job.get("if")):
            self.rows.append(Row(workflow.name, name, "", 0.0, "left out" if name in self.left_out else "skipped"))
            return {"result": "skipped", "outputs": {}}
        outputs, good = dict[str, str](), True
        for point in workflows.points(job, scope):
            label = " ".join([name, *point.values()])
            started = self._start(workflow, label, scope, point)
            good = self._steps(workflow, started, job["steps"]) and good
            outputs |= {key: started.scope.fill(value) for key, value in job.get("outputs", {}).items()} if good else {}
        return {"result": "success" if good else "failure", "outputs": outputs}

    def _start(self, workflow: Workflow, label: str, scope: Scope, point: Mapping[str, str]) -> Job:
        workspace = self.work / "jobs" / f"{len(self.rows)}-{workflow.name.partition('.')[0]}"
        steps: dict[str, Any] = {}
        inner = Scope({**scope.contexts, "matrix": point, "steps": steps, "env": {}})
        variables = {key: inner.fill(value) for key, value in workflow.environment.items()}
        return Job(label, workspace, variables, inner, steps)

    def _steps(self, workflow: Workflow, job: Job, steps: list[Mapping[str, Any]]) -> bool:
        job.workspace.mkdir(parents=True)
        for step in steps:
            if not job.scope.holds(step.get("if")):
                self.rows.append(Row(workflow.name, job.name, workflows.title(step), 0.0, "skipped"))
                continue
            started = time.monotonic()
            good = self._uses(job, step) if "uses" in step else self._runs(job, step)
            self.rows.append(Row(workflow.name, job.name, workflows.title(step), time.monotonic() - started, "ok" if good else "FAILED"))
            job.scope.status = job.scope.status if good else "failure"
        shutil.rmtree(job.workspace)  # as a runner's is; matrices would fill the disk
        return job.scope.status == "success"

    def _uses(self, job: Job, step: Mapping[str, Any]) -> bool:
        action = step["uses"].partition("@")[0]
        given = {key: job.scope.fill(value) for key, value in step.get("with", {}).items()}
        if action == "actions/checkout":
            _git("clone", "--quiet", self.origin, job.workspace)
            if given.get("ref"):
                _git("-C", job.workspace, "checkout", "--quiet", given["ref"])
        elif action == "./.github/actions/setup":
            if not (job.workspace / action / "action.yml").is_file():
                raise Refused(f"{action} is not in the checkout")
        elif action == "actions/upload-artifact":
            source, target = job.workspace / given["path"], self.work / "artifacts" / given["name"]
            if source.exists():
                shutil.copytree(source, target)
        else:
            raise Refused(f"the rehearsal has nothing to do instead of {action}")
        return True

    def _runs(self, job: Job, step: Mapping[str, Any]) -> bool:
        folder = self.work / "files" / str(len(self.rows))
        folder.mkdir(parents=True)
        files = {name: folder / name for name in FILES}
        for file in files.values():
            file.touch()
        variables = job.environment | {key: job.scope.fill(value) for key, value in step.get("env", {}).items()}
        places = {"GITHUB_WORKSPACE": str(job.workspace), "PYTHONPATH": str(job.workspace)}
        environment = {**self.environment, **variables, **{name: str(file) for name, file in files.items()}, **places}
        tail: deque[str] = deque(maxlen=SHOWN)
        print(f"-- {job.name}: {step['run'].strip()}", flush=True)
        status = _follow(job.scope.fill(step["run"]), job.workspace, {**os.environ, **environment}, tail)
        if status:
            print("\n".join(f"   {line}" for line in tail), f"\n   status {status}", flush=True)
        job.steps[step.get("id", "")] = {"outputs": _outputs(files["GITHUB_OUTPUT"])}
        self.summaries += [files["GITHUB_STEP_SUMMARY"].read_text()]
        used = [name for name in UNSUPPORTED if files[name].stat().st_size]
        if used:
            raise Refused(f"{step['run']!r} writes to {', '.join(used)}, which the rehearsal does not read")
        return status == 0


def _follow(script: str, workspace: Path, environment: Mapping[str, str], tail: deque[str]) -> int:
    """Run a step as the runner does, and return its status; if somebody interrupts the rehearsal, interrupt it, so that it tidies up too."""
    command = ["bash", "-e", "-c", script]
    with subprocess.Popen(
        command, cwd=workspace, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            tail.extend(line.rstrip("\n") for line in process.stdout)
            return process.wait()
        except BaseException:
            _interrupt(process)
            raise


def _interrupt(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _outputs(file: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines()]
    if not all(sign for _, sign, _ in lines):
        raise Refused("the rehearsal knows only outputs of one line, NAME=VALUE")
    return {name: value for name, _, value in lines}


def _git(*words: str | os.PathLike[str]) -> None:
    subprocess.run(["git", *words], check=True)
