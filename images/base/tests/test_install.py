"""Installing packages never replaces torch by accident."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted
from tests.images.wheel import make_wheel

HERE = "base"

TORCH = "cd /opt/venv/lib/python3*/site-packages && ls -d torch-*.dist-info && cat torch-*.dist-info/RECORD torch/version.py torch/__init__.py | sha256sum"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A directory of wheels: a torch that nobody wants, a package that needs it, and one that needs nothing."""
    directory = tmp_path_factory.mktemp("wheels")
    make_wheel(directory, name="torch", version="99.0")
    make_wheel(directory, name="greedy", version="1", requires="torch>=99")
    make_wheel(directory, name="modest", version="1")
    return directory


@pytest.fixture(scope="module")
def box(start_shared, index):
    """A container with these wheels."""
    return start_shared("sleep", "infinity", volumes=mounted(index, "/wheels", "ro"))


@pytest.mark.parametrize("tool", ["pip install", "uv pip install"])
@pytest.mark.parametrize("request_", ["--upgrade torch", "torch==99.0", "greedy"])
def test_torch_stays(box, tool, request_):
    """Whoever asks for another torch, directly or through a package, is refused with the reason, and torch stays."""
    before = box.run("bash", "-c", TORCH).out
    said = box.run("bash", "-c", f"{tool} --no-index --find-links /wheels {request_} 2>&1").out
    assert before == box.run("bash", "-c", TORCH).out != ""
    assert "constraint" in said or "torch==" in said or "already satisfied" in said or "Audited" in said or "Checked" in said


@pytest.mark.parametrize(("variable", "tool"), [("PIP_CONSTRAINT", "pip install"), ("UV_CONSTRAINT", "uv pip install")])
def test_override(start, index, expected, variable, tool):
    """The documented override works; on the layers of others, where the torch to be removed comes in no more, it is only planned."""
    asked = f"{tool} {'' if expected.flavour == HERE else '--dry-run'} --no-index --find-links /wheels torch==99.0"
    box = start("bash", "-c", f"env -u {variable} {asked}", volumes=mounted(index, "/wheels", "ro"))
    assert box.ended() == 0, box.log
    assert "99.0" in box.log


PROJECT = """\
[project]
name = "project"
version = "0"
requires-python = ">=3.10"
dependencies = [{}]
[tool.uv]
no-index = true
find-links = ["/wheels"]
"""


@pytest.fixture
def project(box):
    """Make a project of uv's with some dependencies, run a command in it, and return the result with all that was said."""

    def run(command, *dependencies):
        box.run("rm", "-rf", "/tmp/project")
        box.run("mkdir", "/tmp/project")
        box.put("/tmp/project/pyproject.toml", PROJECT.format(", ".join(f'"{name}"' for name in dependencies)).encode())
        return box.run("bash", "-c", f"cd /tmp/project && {command} 2>&1")

    return run


@pytest.mark.parametrize(
    ("command", "dependencies"),
    [
        ("uv sync --active", ["greedy"]),
        ("uv sync --active", []),
        ("uv --directory /tmp/project sync --active", ["greedy"]),
        ("uv --project . --color never run --active python -c 1", ["greedy"]),
        ("uv sync --active --inexact", ["greedy"]),
        ("UV_PROJECT_ENVIRONMENT=/opt/venv uv sync", ["greedy"]),
        ("uv run --active python -c 1", ["greedy"]),
        ("uv add --active greedy", []),
        ("uv remove --active modest", ["modest", "greedy"]),
    ],
)
def test_torch_stays_in_projects(box, project, command, dependencies):
    """Project commands of uv, which would make ``/opt/venv`` what a project asks for, do not replace or remove torch: they name the constraint."""
    before = box.run("bash", "-c", TORCH).out
    done = project(command, *dependencies)
    assert before == box.run("bash", "-c", TORCH).out != ""
    assert done.status != 0
    assert "torch==" in done.out


@pytest.mark.costly
@pytest.mark.parametrize("command", ["uv sync --active --inexact", "uv run --active true", "uv add --active modest", "uv sync"])
def test_projects_that_leave_torch_alone(project, command):
    """A project that asks for no other torch is installed beside it."""
    done = project(f"{command} && uv run --active --no-sync python -c 'import torch'", *([] if "add" in command else ["modest"]))
    assert done.status == 0, done.out


@pytest.mark.parametrize("command", ["uv sync --active --dry-run", "env -u UV_CONSTRAINT uv sync --active --dry-run"])
def test_projects_show_their_plan(project, command):
    """A plan is shown as it is, and whoever takes the constraint away gets uv alone."""
    assert "torch==99.0" in project(command, "greedy").out
