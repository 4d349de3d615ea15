"""Containers in which people have changed something: each change is named, and frozen where it can be."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from tests.built import MATRIX, Built
from tests.images.wheel import make_wheel
from tests.serving import serving
from torchstrata.errors import DriftError, ForeignContainerError, NoContainerError
from torchstrata.matrix.matrix import ROOT

pytestmark = pytest.mark.usefixtures("own_turn")

SITE = "/opt/venv/lib/python3.11/site-packages"
USER_SITE = "/home/dev/.local/lib/python3.11/site-packages"
PIP = "pip install --quiet --no-index --no-deps --find-links /tmp/wheels"
SOURCE = 'mkdir -p /workspace/mine && printf \'[project]\\nname = "mine"\\nversion = "3"\\n\' > /workspace/mine/pyproject.toml'


@dataclass(frozen=True)
class DriftCase:
    """A container that somebody has worked in.

    :param script: what was done, in a shell.
    :param named: change, kind, name and version of each difference.
    :param left: names of what cannot be frozen.
    """

    script: str
    named: set[tuple[str, str, str, str]]
    left: set[str] = field(default_factory=set)
    user: str = "1000:0"


CASES = {
    "pip install": DriftCase(f"{PIP} probe", {("added", "wheel", "probe", "1")}),
    "pip as root": DriftCase(f"{PIP} probe", {("added", "wheel", "probe", "1")}, user="0:0"),
    "pip from a file": DriftCase(f"{PIP} /tmp/wheels/probe-1-py3-none-any.whl", {("added", "wheel", "probe", "1")}),
    "torch replaced": DriftCase(f"env -u PIP_CONSTRAINT {PIP} torch==2.99.0", {("changed", "torch", "torch", "2.99.0")}),
    "removed package": DriftCase("pip uninstall --quiet -y pillow", {("removed", "wheel", "pillow", "")}),
    "user site": DriftCase(f"{PIP} --target {USER_SITE} probe", {("added", "wheel", "probe", "1")}),
    "editable": DriftCase(
        f"{SOURCE} && pip install --quiet --no-index --no-build-isolation --no-deps --editable /workspace/mine",
        {("added", "wheel", "mine", "3")},
        {"mine"},
    ),
    "conda beside it": DriftCase(
        "mkdir -p ~/miniconda3/conda-meta ~/miniconda3/bin && touch ~/miniconda3/conda-meta/history ~/miniconda3/bin/python",
        {("added", "environment", "/home/dev/miniconda3", "")},
        {"/home/dev/miniconda3"},
    ),
    "files": DriftCase(
        f"echo '# mine' >> {SITE}/numpy/version.py; chmod 0600 {SITE}/numpy/__init__.py; echo > {SITE}/extra.py; rm {SITE}/numpy/matlib.py",
        {
            ("edited", "file", f"{SITE}/numpy/version.py", ""),
            ("mode", "file", f"{SITE}/numpy/__init__.py", ""),
            ("added", "file", f"{SITE}/extra.py", ""),
            ("removed", "file", f"{SITE}/numpy/matlib.py", ""),
        },
    ),
    "names": DriftCase(
        f"d={SITE}/$(printf 'deep/%.0s' $(seq 20)); mkdir -p $d && echo > $d/mine.py; echo > {SITE}/größe.py; echo > '{SITE}/a b.py'",
        {("added", "file", f"{SITE}/{path}", "") for path in (f"{'deep/' * 20}mine.py", "größe.py", "a b.py")},
    ),
    "apt": DriftCase(
        "apt-get update -qq && apt-get install -y -qq tree && apt-get purge -y -qq less && echo '# mine' >> /etc/profile",
        {("added", "package", "tree:amd64", "*"), ("removed", "package", "less:amd64", ""), ("edited", "file", "/etc/profile", "")},
        user="0:0",
    ),
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with wheels, one of them of a torch that the image has not."""
    directory = tmp_path_factory.mktemp("wheels")
    make_wheel(directory)
    make_wheel(directory, name="torch", version="2.99.0")
    return directory


@pytest.fixture(scope="module")
def settings(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give pip's settings of a machine whose index has these wheels."""

    class WheelHandler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(wheels))

    with serving(WheelHandler) as port:
        file = tmp_path_factory.mktemp("settings") / "pip.conf"
        file.write_text(f"[global]\nno-index = true\nfind-links = http://127.0.0.1:{port}/\n")
        yield file


@dataclass(frozen=True)
class Frozen:
    """An image to be made of what was written.

    :param name: its name.
    :param files: where that is written.
    """

    name: str
    files: Path
    base: str
    settings: Path

    def build(self) -> None:
        """Build it as the Dockerfile says; the base is in no registry."""
        options = ["--quiet", "--network=host", f"--build-arg=BASE={self.base}", f"--secret=id=pip.conf,src={self.settings}"]
        subprocess.run(["docker", "build", *options, f"--tag={self.name}", self.files], check=True)


@pytest.fixture
def container(cpu_base: Built, wheels: Path) -> Iterator[Container]:
    """Run the image, with the wheels in a place that is nobody's drift."""
    made = cpu_base.client.containers.run(cpu_base.tag, ["sleep", "infinity"], detach=True)
    subprocess.run(["docker", "cp", "--quiet", wheels, f"{made.id}:/tmp/wheels"], check=True)
    yield made
    made.remove(force=True)


@pytest.fixture
def frozen(cpu_base: Built, settings: Path, tmp_path: Path) -> Iterator[Frozen]:
    """Give a name for an image, which is removed afterwards."""
    name = f"torchstrata-frozen:{uuid.uuid4().hex}"
    yield Frozen(name=name, files=tmp_path / "files", base=cpu_base.tag, settings=settings)
    subprocess.run(["docker", "image", "rm", "--force", name], check=True)


def drift(*words: str) -> tuple[int, dict[str, Any], str]:
    """Run the verb; return its status, what it says for programs, and to people."""
    command = [sys.executable, "-m", "torchstrata.commands", "drift", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TORCHSTRATA_ROOT": str(ROOT)}, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def named(found: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    """Return the differences; the version of what a mirror has today does not matter."""
    return {(one["change"], one["kind"], one["name"], "*" if one["kind"] == "package" and one["now"] else one["now"]) for one in found["drift"]}


def work(container: Container, case: DriftCase) -> None:
    """Let somebody work in a container."""
    done = container.exec_run(["bash", "-c", f"set -e; {case.script}"], user=case.user)
    assert done.exit_code == 0, done.output.decode()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_change(case: DriftCase, container: Container, frozen: Frozen) -> None:
    """It is named; an image made of what was written has it, too, but for what is said to be left."""
    work(container, case)
    status, found, said = drift(container.name, "--freeze", str(frozen.files))
    assert named(found) == case.named, said
    assert {why.partition(":")[0] for why in found["not_frozen"]} == case.left
    assert status == (DriftError.code if case.left else 0)
    frozen.build()
    status, found, said = drift(container.name, "--against", frozen.name)
    assert {name for _, _, name, _ in named(found)} == case.left, said
    assert status == (DriftError.code if case.left else 0)


def test_container_of_what_was_frozen(container: Container, frozen: Frozen, cpu_base: Built) -> None:
    """Has no drift of its own, and starts as the same user."""
    work(container, CASES["files"])
    drift(container.name, "--freeze", str(frozen.files))
    frozen.build()
    made = cpu_base.client.containers.run(frozen.name, ["sleep", "infinity"], detach=True)
    try:
        assert made.exec_run(["id", "-u"]).output == b"1000\n"
        assert drift(made.name)[0] == 0
    finally:
        made.remove(force=True)


def test_directories_of_what_was_frozen_stay_the_user_s(container: Container, frozen: Frozen, cpu_base: Built) -> None:
    """They are not made anew as root's, so that the user can go on installing there."""
    work(container, CASES["user site"])
    drift(container.name, "--freeze", str(frozen.files))
    frozen.build()
    owners = cpu_base.client.containers.run(frozen.name, ["stat", "-c", "%u", "/home/dev/.local", USER_SITE, f"{USER_SITE}/probe-1.dist-info"], remove=True)
    assert owners.split() == [b"1000"] * 3


def test_a_container_that_has_ended_and_has_no_python(container: Container) -> None:
    """Nothing runs in it: what is broken is named all the same."""
    work(container, DriftCase("mv /usr/bin/python3.11 /usr/bin/python3.11.off", set(), user="0:0"))
    container.kill()
    status, found, _ = drift(container.name)
    assert status == DriftError.code
    assert named(found) == {("removed", "file", "/usr/bin/python3.11", ""), ("added", "file", "/usr/bin/python3.11.off", "")}


def test_an_untouched_container(container: Container) -> None:
    """Has no drift, though torch has run and left bytecode, caches and results."""
    work(container, DriftCase("python -c 'import torch; print(torch.ones(2))' && echo x > /workspace/result && touch ~/.cache-of-mine", set()))
    status, found, said = drift(container.name)
    assert (status, found["drift"]) == (0, []), said


def test_no_container_of_ours(cpu_base: Built) -> None:
    """One that is not there, and one of another image, are two errors, each with a cure."""
    status, _, said = drift(f"nothing-{uuid.uuid4().hex}")
    assert (status, "docker ps --all" in said) == (NoContainerError.code, True)
    name = f"torchstrata-foreign:{uuid.uuid4().hex}"
    subprocess.run(["docker", "build", "--quiet", "--tag", name, "-"], input=b"FROM scratch\nENV A=1\n", check=True)
    made = cpu_base.client.containers.create(name, ["none"])
    try:
        status, _, said = drift(made.name)
        assert (status, "no image of ours" in said) == (ForeignContainerError.code, True)
    finally:
        made.remove()
        cpu_base.client.images.remove(name)


def test_no_engine() -> None:
    """Is said as everywhere."""
    command = [sys.executable, "-m", "torchstrata.commands", "drift", "desk"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DOCKER_HOST": "unix:///nothing.sock"}, capture_output=True, text=True, check=False)
    assert done.returncode == 16
    assert "no Docker engine answers at unix:///nothing.sock" in done.stderr
    assert MATRIX.name not in done.stdout
