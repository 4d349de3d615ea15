"""Installing packages never replaces torch by accident."""

from __future__ import annotations

import pytest

from tests.images.boxes import mounted
from tests.images.wheel import make_wheel

HERE = "base"

TORCH = "cd /opt/venv/lib/python3*/site-packages && ls -d torch-*.dist-info && cat torch-*.dist-info/RECORD torch/version.py torch/__init__.py | sha256sum"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A directory of wheels: a torch that nobody wants, and a package that needs it."""
    directory = tmp_path_factory.mktemp("wheels")
    make_wheel(directory, name="torch", version="99.0")
    make_wheel(directory, name="greedy", version="1", requires="torch>=99")
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
