"""Runs workflows on this machine: ``run:`` steps as they are, those of our own composite actions too.

What stands in for the actions of others is in :mod:`tests.rehearsal.standins`. Each job has an empty home, the programs that its
own steps set up, the content store and the download caches of this machine, and what its permissions give: it signs with
``id-token: write`` alone, and pushes with ``contents: write`` and credentials that its checkout has kept.

Matrices run one job after the other. ``timeout-minutes``, ``concurrency`` and ``environment`` have no meaning here.
"""

from __future__ import annotations

import dataclasses
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

from tests.rehearsal import standins
from tests.rehearsal import workflow as workflows
from tests.rehearsal.expressions import Refused, Scope
from tests.rehearsal.workflow import Action, Workflow
from tests.waiting import PATIENCE

SHOWN = 200
"""Lines of a failed step that are shown."""

FILES = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")
UNSUPPORTED = ("GITHUB_ENV", "GITHUB_PATH")

SHELLS: Mapping[str, tuple[str, ...]] = {"": ("bash", "-e", "-c"), "sh": ("sh", "-e", "-c")}


@dataclass(frozen=True)
class RunRow:
    """A step that ran, or a job that did not."""

    workflow: str
    job: str
    step: str
    seconds: float
    result: str


@dataclass
class Runner:
    """Runs workflows, and notes every step.

    :param work: a directory for all that it makes.
    :param environment: all variables of every step.
    :param contexts: what ``vars``, ``secrets`` and ``github`` are.
    :param signing: variables of jobs that may sign.
    :param left_out: jobs that do not run.
    """

    work: Path
    environment: Mapping[str, str]
    contexts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    signing: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    rows: list[RunRow] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Path:
        """The remote that checkouts are from."""
        return self.work / "origin.git"

    def adopt(self, root: Path) -> None:
        """Let the remote have the HEAD of a repository as its branch."""
        standins.git("init", "--quiet", "--bare", f"--initial-branch={standins.BRANCH}", self.origin)
        standins.git("-C", root, "-c", "core.hooksPath=/dev/null", "push", "--quiet", self.origin, f"HEAD:refs/heads/{standins.BRANCH}")

    def run(self, workflow: Workflow, event: str = "workflow_dispatch", **given: str) -> bool:
        """Run a workflow with these inputs; return whether all went well.

        :param event: what has started it.
        """
        inputs, done = workflow.inputs(given), dict[str, dict[str, Any]]()
        github = {**self.contexts.get("github", {}), "event_name": event}
        for name, job in workflow.jobs():
            needed = {other: done[other] for other in workflows.needs(job)}
            contexts = {"vars": {}, "secrets": {}, **self.contexts, "github": github, "needs": needed, "inputs": inputs}
            bad = [other for other, each in needed.items() if each["result"] != "success"]
            done[name] = self._job(workflow, name, job, Scope(contexts, "failure" if bad else "success"))
        return all(each["result"] != "failure" for each in done.values())

    def _job(self, workflow: Workflow, name: str, job: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        if name in self.left_out or not scope.holds(job.get("if")):
            self.rows.append(RunRow(workflow.name, name, "", 0.0, "left out" if name in self.left_out else "skipped"))
            return {"result": "skipped", "outputs": {}}
        outputs, good = dict[str, str](), True
        for point in workflows.points(job, scope):
            started = self._start(workflow, " ".join([name, *point.values()]), scope, point, job.get("permissions", {}))
            started.workspace.mkdir(parents=True)
            started.home.mkdir()
            self._steps(workflow, started, job["steps"])
            shutil.rmtree(started.workspace.parent)  # as a runner's is; matrices would fill the disk
            good = started.scope.status == "success" and good
            outputs |= {key: started.scope.fill(value) for key, value in job.get("outputs", {}).items()} if good else {}
        return {"result": "success" if good else "failure", "outputs": outputs}

    def _start(self, workflow: Workflow, label: str, scope: Scope, point: Mapping[str, str], permissions: Mapping[str, str]) -> standins.Job:
        folder = self.work / "jobs" / f"{len(self.rows)}-{workflow.name.partition('.')[0]}"
        steps: dict[str, Any] = {}
        inner = Scope({**scope.contexts, "matrix": point, "steps": steps, "env": {}})
        signing = self.signing if permissions.get("id-token") == "write" else {}
        variables = {**self.environment, **signing, "HOME": str(folder / "home"), "GITHUB_WORKSPACE": str(folder / "workspace")}
        variables |= {key: inner.fill(value) for key, value in workflow.environment.items()}
        return standins.Job(
            name=label,
            workspace=folder / "workspace",
            home=folder / "home",
            origin=self.origin,
            artifacts=self.work / "artifacts",
            environment=variables,
            scope=inner,
            steps=steps,
            may_push=permissions.get("contents") == "write",
            may_open_pull_requests=permissions.get("pull-requests") == "write",
        )

    def _steps(self, workflow: Workflow, job: standins.Job, steps: list[Mapping[str, Any]], within: str = "") -> None:
        for step in steps:
            title = f"{within}{workflows.title(step)}"
            if not job.scope.holds(step.get("if")):
                self.rows.append(RunRow(workflow.name, job.name, title, 0.0, "skipped"))
                continue
            started = time.monotonic()
            good = self._uses(workflow, job, step) if "uses" in step else self._runs(job, step)
            self.rows.append(RunRow(workflow.name, job.name, title, time.monotonic() - started, "ok" if good else "FAILED"))
            job.scope.status = job.scope.status if good else "failure"

    def _uses(self, workflow: Workflow, job: standins.Job, step: Mapping[str, Any]) -> bool:
        action = step["uses"].partition("@")[0]
        given = {key: job.scope.fill(value) for key, value in step.get("with", {}).items()}
        if action.startswith("./"):
            return self._composite(workflow, job, Action.read(job.workspace / action), given)
        try:
            standins.stand_in(action)(job, given)
        except subprocess.CalledProcessError as error:
            print(f"   {action}: {error}", flush=True)
            return False
        return True

    def _composite(self, workflow: Workflow, job: standins.Job, action: Action, given: Mapping[str, str]) -> bool:
        """Run the steps of an action of ours, which see its inputs and what earlier steps of the job have set up."""
        steps: dict[str, Any] = {}
        scope = Scope({**job.scope.contexts, "inputs": action.inputs(given), "steps": steps})
        self._steps(workflow, dataclasses.replace(job, scope=scope, steps=steps), action.steps, f"{action.name}: ")
        return scope.status == "success"

    def _runs(self, job: standins.Job, step: Mapping[str, Any]) -> bool:
        folder = self.work / "files" / str(len(self.rows))
        folder.mkdir(parents=True)
        files = {name: folder / name for name in FILES}
        for file in files.values():
            file.touch()
        own = {key: job.scope.fill(value) for key, value in step.get("env", {}).items()}
        environment = {**job.environment, **own, **{name: str(file) for name, file in files.items()}}
        environment["PATH"] = os.pathsep.join([*job.path, environment["PATH"]])
        tail: deque[str] = deque(maxlen=SHOWN)
        print(f"-- {job.name}: {step['run'].strip()}", flush=True)
        status = _follow([*SHELLS[step.get("shell", "")], job.scope.fill(step["run"])], job.workspace, environment, tail)
        if status:
            print("\n".join(f"   {line}" for line in tail), f"\n   status {status}", flush=True)
        job.steps[step.get("id", "")] = {"outputs": _outputs(files["GITHUB_OUTPUT"])}
        self.summaries += [files["GITHUB_STEP_SUMMARY"].read_text()]
        used = [name for name in UNSUPPORTED if files[name].stat().st_size]
        if used:
            raise Refused(f"{step['run']!r} writes to {', '.join(used)}, which the rehearsal does not read")
        return status == 0


def _follow(command: list[str], workspace: Path, environment: Mapping[str, str], tail: deque[str]) -> int:
    """Run a step as the runner does, and return its status; if somebody interrupts the rehearsal, interrupt it, so that it tidies up too."""
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
