"""The rehearsal of workflows: what it understands, in which order it runs, and what it refuses."""

from __future__ import annotations

import subprocess

import pytest

from tests.rehearsal import workflow as workflows
from tests.rehearsal.expressions import Refused, Scope
from tests.rehearsal.runner import Runner
from tests.rehearsal.workflow import Workflow
from torchstrata.cells.matrix import ROOT

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
    """Return a runner whose remote has one commit with one file."""
    repository = tmp_path / "repository"
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    (repository / "file").write_text("content\n")
    for words in (["add", "file"], [*identity, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", "-C", repository, *words], check=True)
    made = Runner(tmp_path / "work", {}, {"HOST": "registry.example"}, frozenset({"slow"}))
    made.work.mkdir()
    made.adopt(repository)
    return made


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


@pytest.mark.parametrize("name", ["nightly.yml", "release.yml", "watchdog.yml"])
def test_our_workflows_are_understood(name):
    """Every key, and the order of jobs."""
    assert list(Workflow.read(ROOT / ".github/workflows" / name).jobs())


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_hold_no_logic(path):
    """Steps call nox, inv, or what CI runs anywhere; what is variable comes by the environment, so that nothing is injected."""
    steps = [step["run"] for _, job in Workflow.read(path).jobs() for step in job["steps"] if "run" in step]
    assert [step for step in steps if not step.startswith(("nox -s ", "inv ", ".ci/run")) or "${{" in step or "\n" in step] == []
