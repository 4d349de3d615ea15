"""The rehearsal of workflows: what it understands, in which order it runs, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain

import pytest

from tests.rehearsal import __main__ as rehearsal
from tests.rehearsal import standins
from tests.rehearsal import workflow as workflows
from tests.rehearsal.expressions import Refused, Scope
from tests.rehearsal.runner import Runner
from tests.rehearsal.workflow import Action, Workflow
from torchstrata.errors import MatrixError
from torchstrata.matrix.matrix import ROOT

CONTEXTS = {
    "needs": {"plan": {"result": "success", "outputs": {"cells": '["a","b"]', "none": "[]"}}},
    "inputs": {"action": "promote", "empty": ""},
    "matrix": {"cell": "a"},
    "vars": {"HOST": "registry.example"},
}

HEAD = """\
on: workflow_dispatch
jobs:
"""


def scope(status="success"):
    """Return what expressions see."""
    return Scope(CONTEXTS, status)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("push ${{ matrix.cell }} to ${{ vars.HOST }}", "push a to registry.example"),
        ("${{ inputs.empty || '*' }}", "*"),
        ("${{ vars.MISSING }}", ""),
        ("${{ inputs.action == 'promote' && 'yes' || 'no' }}", "yes"),
        ("${{ 'it''s' }}", "it's"),
        ("${{ !(inputs.action == 'rollback') }}", "true"),
        ("${{ inputs.action == 'PROMOTE' }}", "true"),
    ],
)
def test_expressions_are_as_at_github(template, text):
    """Values, defaults, comparisons; case does not count; what is missing in ``vars`` is empty."""
    assert scope().fill(template) == text


@pytest.mark.parametrize(
    "template",
    [
        "${{ matrix.cells }}",
        "${{ needs.other.outputs.x }}",
        "${{ runner.os }}",
        "${{ hashFiles('x') }}",
        "${{ github.event.commits[0] }}",
        "${{ inputs.action > 'a' }}",
        "${{ inputs.action == }}",
        "${{ inputs }}",
        "${{ inputs.action 'x' }}",
        "${{ inputs.action == true }}",
        "${{ fromJSON(needs.plan.outputs.cells) }}",
    ],
)
def test_what_is_not_known_is_refused(template):
    """Neither guessed nor empty."""
    with pytest.raises(Refused):
        scope().fill(template)


@pytest.mark.parametrize(
    ("condition", "status", "holds"),
    [
        (None, "success", True),
        (None, "failure", False),
        ("inputs.action == 'promote'", "success", True),
        ("inputs.action == 'promote'", "failure", False),
        ("${{ !cancelled() && inputs.action == 'promote' }}", "failure", True),
        ("needs.plan.outputs.none != '[]'", "success", False),
        ("failure()", "failure", True),
    ],
)
def test_conditions(condition, status, holds):
    """Without a function on the status, everything before must have succeeded."""
    assert scope(status).holds(condition) is holds


def test_a_matrix_is_the_product_of_its_axes():
    """Those that come from the plan's JSON, too."""
    job = {"strategy": {"matrix": {"cell": "${{ fromJSON(needs.plan.outputs.cells) }}", "flavour": ["x", "y"]}}}
    found = workflows.points(job, scope())
    assert found == [{"cell": "a", "flavour": "x"}, {"cell": "a", "flavour": "y"}, {"cell": "b", "flavour": "x"}, {"cell": "b", "flavour": "y"}]
    assert workflows.points({}, scope()) == [{}]


@pytest.mark.parametrize("matrix", [{"cell": "${{ fromJSON(needs.plan.outputs.none) }}"}, {"n": list(map(str, range(257)))}, {"n": ["1"], "include": []}])
def test_what_github_refuses_is_refused(matrix):
    """An empty matrix, one of more than 256 jobs; and forms that are not known here."""
    with pytest.raises(Refused):
        workflows.points({"strategy": {"matrix": matrix}}, scope())


def written(tmp_path, text):
    """Return a workflow with these jobs."""
    path = tmp_path / "x.yml"
    path.write_text(HEAD + text)
    return Workflow.read(path)


def test_jobs_come_in_the_order_of_their_needs(tmp_path):
    """Wherever they are in the file."""
    found = written(tmp_path, "  c: {needs: [a, b], steps: []}\n  b: {needs: a, steps: []}\n  a: {steps: []}\n")
    assert [name for name, _ in found.jobs()] == ["a", "b", "c"]


def test_a_circle_is_refused(tmp_path):
    """Nothing could begin."""
    with pytest.raises(Refused, match="wait for each other"):
        list(written(tmp_path, "  a: {needs: b, steps: []}\n  b: {needs: a, steps: []}\n").jobs())


@pytest.mark.parametrize("text", ["  a: {services: {}, steps: []}\n", "  a: {steps: [{run: x, continue-on-error: 'true'}]}\n"])
def test_keys_that_are_not_known_are_refused(tmp_path, text):
    """They would change what runs."""
    with pytest.raises(Refused, match="does not know"):
        written(tmp_path, text)


def test_inputs_have_their_defaults(tmp_path):
    """One that is missing or too many is named."""
    release = Workflow.read(ROOT / ".github/workflows/release.yml")
    assert release.inputs({"cells": "x"})["channel"] == "stable"
    for given in ({}, {"cells": "x", "chanel": "stable"}):
        with pytest.raises(Refused, match="has the inputs"):
            release.inputs(given)


@pytest.fixture
def runner(tmp_path):
    """Return a runner whose remote has two commits with a file and an action."""
    repository = tmp_path / "repository"
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    (repository / "file").write_text("content\n")
    (repository / "action").mkdir()
    (repository / "action/action.yml").write_text(ACTION)
    for words in (["add", "."], [*identity, "commit", "--quiet", "-m", "x"], [*identity, "commit", "--quiet", "--allow-empty", "-m", "y"]):
        subprocess.run(["git", "-C", repository, *words], check=True)
    environment, contexts = {"PATH": os.environ["PATH"]}, {"vars": {"HOST": "registry.example"}}
    made = Runner(tmp_path / "work", environment, contexts, {"SIGNER": "one"}, frozenset({"slow"}))
    made.work.mkdir()
    made.adopt(repository)
    return made


ACTION = """\
inputs:
  who: {required: true}
  how: {default: well}
runs:
  using: composite
  steps:
    - {if: inputs.how == 'badly', run: "false", shell: sh}
    - {run: 'test "$WHO $HOW" = "a well"', shell: sh, env: {WHO: "${{ inputs.who }}", HOW: "${{ inputs.how }}"}}
"""

JOBS = """\
  plan:
    outputs: {cells: "${{ steps.plan.outputs.cells }}"}
    steps:
      - uses: actions/checkout@0
      - {id: plan, run: "cat file; echo 'cells=[\\"a\\",\\"b\\"]' >> $GITHUB_OUTPUT; echo '# news' >> $GITHUB_STEP_SUMMARY"}
  each:
    needs: plan
    strategy: {matrix: {cell: "${{ fromJSON(needs.plan.outputs.cells) }}"}}
    steps:
      - {run: 'test "$CELL" = a', env: {CELL: "${{ matrix.cell }}"}}
      - {run: "mkdir out; echo $HOST > out/host", env: {HOST: "${{ vars.HOST }}"}}
      - {uses: actions/upload-artifact@0, with: {name: "out-${{ matrix.cell }}", path: out}}
  slow: {steps: [{run: "false"}]}
  after: {needs: each, steps: [{run: "true"}]}
  always: {if: "${{ !cancelled() }}", needs: each, steps: [{run: "true"}]}
"""


def test_a_workflow_runs_as_at_github(runner, tmp_path):
    """Outputs reach other jobs, matrices fan out, the rest of a job that failed is skipped, and so is what needs it unless it says otherwise."""
    assert not runner.run(written(tmp_path, JOBS))
    found = {(row.job, row.step.partition(" ")[0]): row.result for row in runner.rows}
    assert found == {
        ("plan", "actions/checkout"): "ok",
        ("plan", "cat"): "ok",
        ("each a", "test"): "ok",
        ("each a", "mkdir"): "ok",
        ("each a", "actions/upload-artifact"): "ok",
        ("each b", "test"): "FAILED",
        ("each b", "mkdir"): "skipped",
        ("each b", "actions/upload-artifact"): "skipped",
        ("slow", ""): "left out",
        ("after", ""): "skipped",
        ("always", "true"): "ok",
    }
    assert (runner.work / "artifacts/out-a/host").read_text() == "registry.example\n"
    assert "".join(runner.summaries) == "# news\n"
    assert list((runner.work / "jobs").iterdir()) == []


@pytest.mark.parametrize("step", ["{uses: other/action@0}", '{run: "echo X=1 >> $GITHUB_ENV"}'])
def test_steps_that_are_not_known_are_refused(runner, tmp_path, step):
    """An action that nothing stands for here, or a way to talk to later steps that is not read."""
    with pytest.raises(Refused):
        runner.run(written(tmp_path, f"  a: {{steps: [{step}]}}\n"))


CHECKOUT = "{uses: actions/checkout@0}"


def results(runner, tmp_path, job, event="push"):
    """Return what became of each step of a job, by the beginning of its title."""
    runner.run(written(tmp_path, f"  a: {job}\n"), event)
    return [row.result for row in runner.rows]


@pytest.mark.parametrize(("how", "ran"), [("well", ["ok", "skipped", "ok", "ok"]), ("badly", ["ok", "FAILED", "skipped", "FAILED"])])
def test_an_action_of_ours_runs_with_its_inputs(runner, tmp_path, how, ran):
    """Its steps run as they are in the checkout, and one that fails fails the step that uses it."""
    assert results(runner, tmp_path, f"{{steps: [{CHECKOUT}, {{uses: ./action, with: {{who: a, how: {how}}}}}]}}") == ran


@pytest.mark.parametrize("given", ["{}", "{who: a, when: now}"])
def test_an_action_of_ours_refuses_other_inputs(runner, tmp_path, given):
    """A required one is missing, or one is given that it does not have."""
    with pytest.raises(Refused, match="has the inputs who, how"):
        results(runner, tmp_path, f"{{steps: [{CHECKOUT}, {{uses: ./action, with: {given}}}]}}")


SIGNING = """steps: [{run: 'test "$SIGNER" = one'}]"""
DEEP = "{{uses: actions/checkout@0, with: {{fetch-depth: '{}'}}}}, {{run: 'test $(git rev-list --count HEAD) = {}'}}"
PYTHON = "{run: 'test $(command -v python) = $HOME/python/bin/python; ! python -c \"import nox\"'}"


@pytest.mark.parametrize(
    ("job", "ran"),
    [
        (f"permissions: {{id-token: write}}, {SIGNING}", ["ok"]),
        (f"permissions: {{contents: write}}, {SIGNING}", ["FAILED"]),
        (f"permissions: {{}}, {SIGNING}", ["FAILED"]),
        (f"steps: [{DEEP.format(1, 1)}]", ["ok", "ok"]),
        (f"steps: [{DEEP.format(0, 2)}]", ["ok", "ok"]),
        ("steps: [{run: 'test -z \"$(ls -A $HOME)\"; touch $HOME/x'}]", ["ok"]),
        (f"steps: [{{uses: actions/setup-python@0}}, {PYTHON}]", ["ok", "ok"]),
    ],
    ids=["signs", "may not sign", "may nothing", "shallow", "with its history", "home", "python"],
)
def test_a_job_has_what_it_asks_for(runner, tmp_path, job, ran):
    """Who signs, with the permission alone; history if it says so; an empty home; Python without packages."""
    assert results(runner, tmp_path, f"{{{job}}}") == ran


@pytest.mark.parametrize(
    ("contents", "kept", "result"),
    [("write", "true", "ok"), ("read", "true", "FAILED"), ("write", "false", "FAILED")],
    ids=["may", "may not", "no credentials"],
)
def test_only_a_job_that_may_can_push(runner, tmp_path, contents, kept, result):
    """With the permission, and credentials that the checkout has kept."""
    checkout = f"{{uses: actions/checkout@0, with: {{persist-credentials: '{kept}'}}}}"
    steps = f"[{checkout}, {{run: 'git push --quiet origin HEAD:refs/heads/new'}}]"
    assert results(runner, tmp_path, f"{{permissions: {{contents: {contents}}}, steps: {steps}}}")[-1] == result


@pytest.mark.parametrize(("change", "content"), [("echo new > file", "new\n"), ("true", None)])
def test_a_pull_request_is_a_branch(runner, tmp_path, change, content):
    """With a commit of the paths that were named; none where nothing has changed."""
    request = "{uses: peter-evans/create-pull-request@0, with: {branch: update/x, add-paths: 'file, action', commit-message: Move it}}"
    job = f"{{permissions: {{contents: write, pull-requests: write}}, steps: [{CHECKOUT}, {{run: '{change}; echo x > other'}}, {request}]}}"
    assert results(runner, tmp_path, job) == ["ok", "ok", "ok"]
    shown = subprocess.run(["git", "-C", runner.origin, "show", "update/x:file"], capture_output=True, text=True, check=False)
    assert (None if shown.returncode else shown.stdout) == content
    assert subprocess.run(["git", "-C", runner.origin, "show", "update/x:other"], capture_output=True, check=False).returncode


def test_a_run_knows_what_has_started_it(runner, tmp_path):
    """Conditions on the event hold as at GitHub."""
    job = "{if: github.event_name == 'push', steps: [{run: 'true'}]}"
    assert results(runner, tmp_path, job, "push") == ["ok"]
    assert results(runner, tmp_path, job, "pull_request") == ["ok", "skipped"]


AS_ROOT = 'sudo --preserve-env env "PATH=$PATH" "HOME=$HOME" '

TERMINATED = """
import os, pathlib, signal
from tests.rehearsal import __main__ as rehearsal, runner

class Impatient:
    def extend(self, lines):
        assert next(lines) == "begun"
        os.kill(os.getpid(), signal.SIGTERM)
        list(lines)

rehearsal.end_in_order()
script = "trap 'touch tidied; exit' INT; echo begun; sleep 60 & wait"
runner._follow(["bash", "-c", script], pathlib.Path.cwd(), os.environ, Impatient())
"""


def test_a_rehearsal_that_is_terminated_interrupts_its_step(tmp_path):
    """So that the step tidies up, too, whoever has had enough."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", TERMINATED], cwd=tmp_path, env=settings, check=False)
    assert ended.returncode == 143
    assert (tmp_path / "tidied").exists()


def test_a_night_of_no_cell_is_refused_before_it_begins():
    """A rehearsal takes many minutes, and the night comes late in it."""
    with pytest.raises(MatrixError, match="no cell matches nonsense"):
        rehearsal.main(["--cells", "2.13-cpu,nonsense"])


OURS = sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml"))


def used(steps):
    """Yield the actions of others that steps use, those of our own looked into."""
    for step in steps:
        action = step.get("uses", "").partition("@")[0]
        if action.startswith("./"):
            yield from used(Action.read(ROOT / action).steps)
        elif action:
            yield action


@pytest.mark.parametrize("name", OURS)
def test_our_workflows_are_understood(name):
    """Every key, the order of jobs, and every action."""
    jobs = list(Workflow.read(ROOT / ".github/workflows" / name).jobs())
    assert jobs
    actions = chain.from_iterable(used(job["steps"]) for _, job in jobs)
    assert [action for action in actions if not standins.stand_in(action)] == []


@pytest.mark.parametrize("large", [False, True])
def test_every_workflow_is_rehearsed(large):
    """Without a choice; and each that is chosen after those that it needs."""
    assert {run.workflow for run in rehearsal.program("x", large=large, only=None)} == set(OURS)
    chosen = [run.workflow for run in rehearsal.program("x", large=large, only=["release.yml"])]
    assert chosen[:2] == ["nightly.yml", "release.yml"]


@pytest.mark.parametrize(("event", "full"), [("pull_request", False), ("push", True)])
def test_the_full_tests_run_on_a_large_runner_alone(event, full):
    """For what has been merged, where the team has one."""
    condition = dict(Workflow.read(ROOT / ".github/workflows/ci.yml").jobs())["full"]["if"]
    assert Scope({"github": {"event_name": event}, "vars": {"LARGE_RUNNER": "x"}}).holds(condition) is full
    assert not Scope({"github": {"event_name": event}, "vars": {}}).holds(condition)


@pytest.mark.parametrize(
    ("quick", "full", "passes"),
    [
        ("success", "success", True),
        ("success", "skipped", True),
        ("success", "failure", False),
        ("success", "cancelled", False),
        ("skipped", "skipped", False),
        ("failure", "success", False),
        ("cancelled", "skipped", False),
    ],
)
def test_the_gate_lets_only_passed_tests_through(quick, full, passes):
    """Whatever became of the jobs, it runs, and fails unless they have passed."""
    gate = dict(Workflow.read(ROOT / ".github/workflows/ci.yml").jobs())["gate"]
    scope = Scope({"needs": {"quick": {"result": quick}, "full": {"result": full}}}, "success" if quick == full == "success" else "failure")
    assert scope.holds(gate["if"])
    (step,) = gate["steps"]
    assert step["run"] == "false"
    assert Scope(scope.contexts).holds(step["if"]) is not passes


@pytest.mark.parametrize("name", OURS)
def test_workflows_hold_no_logic(name):
    """Steps call nox, as root where they must, or inv, and the gate fails; what is variable comes by the environment, so that nothing is injected."""
    steps = chain.from_iterable(job["steps"] for _, job in Workflow.read(ROOT / ".github/workflows" / name).jobs())
    lines = [step["run"] for step in steps if "run" in step]
    assert [line for line in lines if not line.removeprefix(AS_ROOT).startswith(("nox -s ", "inv ", "false")) or "${{" in line or "\n" in line] == []
