"""Verification of real images by the command that users type, and what it does when it is used wrongly or things break."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import docker
import pytest

from tests.built import CPU, Built
from tests.checkout import Checkout, Ended, Running
from tests.system.sockets import Relay
from torchstrata import errors
from torchstrata.host import docker_config
from torchstrata.verification import evidence, leftovers

pytestmark = pytest.mark.usefixtures("own_turn")

PROGRAM = "import pathlib, sys; from torchstrata.commands import sessions; sessions.verify(sys.argv[1], sys.argv[2:], lambda: pathlib.Path(sys.executable))"
QUICK = ("-k", "test_it_is_the_working_directory or test_missing_mount_is_said", "--numprocesses=1")
LASTING = ("-k", "test_subject or test_torch_works")
"""Tests that share a container in which the doctor is busy for a while."""
SKIPPER = """\
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_it_is_the_working_directory":
            item.add_marker(pytest.mark.skip(reason="planted"))
"""


@dataclasses.dataclass(frozen=True)
class Verifier:
    """The verb in a process of its own, with results that belong to one test."""

    checkout: Checkout
    results: Path

    def start(self, *words: str, **env: str) -> Running:
        """Start a verification of the CPU cell."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "160", **env}
        command = [sys.executable, "-c", PROGRAM, CPU, "--results", str(self.results), *words]
        return Running.start(command, cwd=self.checkout.root, env=environment, start_new_session=True)

    def run(self, *words: str, **env: str) -> Ended:
        """Run a verification to its end."""
        return self.start(*words, **env).ended()

    @property
    def evidence(self) -> list[evidence.Evidence]:
        """What was written."""
        return [evidence.read(path) for path in sorted(self.results.glob("*/*/verify.json"))]


@pytest.fixture
def verifier(checkout: Checkout, cpu_base: Built, tmp_path: Path) -> Verifier:
    """Give the verb, where the images of the CPU cell are built."""
    return Verifier(checkout, tmp_path / "results")


@pytest.fixture
def broken(client: docker.DockerClient, cpu_base: Built) -> Iterator[str]:
    """Give an image whose containers end at once."""
    recipe = f'FROM {cpu_base.tag}\nENTRYPOINT ["sh", "-c", "echo cannot go on; exit 3"]\n'
    subprocess.run(["docker", "build", "--quiet", "--tag", "torchstrata-test:broken", "-"], input=recipe.encode(), check=True, capture_output=True)
    yield "torchstrata-test:broken"
    client.images.remove("torchstrata-test:broken", force=True)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Give a socket that leads to the engine until it is cut."""
    made = Relay(tmp_path / "engine.sock", docker_config.address().removeprefix("unix://"))
    yield made
    made.cut()


def left(client: docker.DockerClient, process: int) -> list[str]:
    """Return the commands of the containers that a verification has started, running or not."""
    found = client.containers.list(all=True, filters={"label": leftovers.LABEL}, ignore_removed=True)
    return [" ".join(each.attrs["Config"]["Cmd"] or ()) for each in found if each.labels[leftovers.LABEL].endswith(f":{process}")]


def complaint(ended: Ended) -> list[str]:
    """Return the lines from the error on."""
    lines = ended.output.splitlines()
    return lines[next((number for number, line in enumerate(lines) if line.startswith("error: ")), len(lines)) :]


WRONG = {
    "image that is not there": (("--image", "nowhere.invalid/none:1"), errors.NoImageError, "the engine has no image nowhere.invalid/none:1"),
    "digest that is not there": (("--image", "sha256:" + "0" * 64), errors.NoImageError, "the engine has no image sha256:0000"),
    "name that is none": (("--image", "NONE@@"), errors.NoImageError, "does not take NONE@@ for the name of an image"),
    "flavour": (("--flavour", "nope"), errors.MatrixError, "unknown flavour nope"),
    "gpu": (("--gpu", "required", "--flavour", "base"), errors.NoGpuError, "has no CUDA"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use(verifier, case):
    """What cannot be verified is said in two lines, with a code of its own, before any test runs."""
    words, error, said = WRONG[case]
    ended = verifier.run(*words)
    assert ended.status == error.code
    assert said in complaint(ended)[0]
    assert len(complaint(ended)) == 2
    assert len(ended.output.splitlines()) == 2


def test_container_that_ends_at_once(verifier, client, broken):
    """An image whose containers do not last is named with what they said, and no container stays."""
    running = verifier.start("--image", broken)
    ended = running.ended()
    assert ended.status == errors.ContainerError.code
    assert complaint(ended)[0] == f"error: a container of {broken} ended at once with status 3: cannot go on"
    assert left(client, running.process.pid) == []


def test_engine_that_dies(verifier, client, relay):
    """When the engine dies in the middle, the run ends with one error; no evidence says passed, and what stayed is removed by the next run."""
    with verifier.start("--flavour", "base", *LASTING, DOCKER_HOST=relay.address) as running:
        process = running.process.pid
        running.wait_for(lambda: "sleep infinity" in left(client, process), "the container that tests share")
        relay.cut()
        ended = running.ended()
    assert ended.status == errors.EngineLostError.code
    assert "Traceback" not in "".join(complaint(ended))
    assert complaint(ended)[0].startswith("error: the engine died while pytorch-cuda:2.13-cpu-base was tested")
    assert verifier.evidence == []
    assert verifier.run("--flavour", "base", *QUICK).status == 0
    assert left(client, process) == []


def test_interrupt(verifier, client):
    """After Ctrl-C no container stays, and there is no evidence."""
    with verifier.start("--flavour", "base", *LASTING) as running:
        running.wait_for(lambda: "sleep infinity" in left(client, running.process.pid), "the container that tests share")
        os.killpg(running.process.pid, signal.SIGINT)
        ended = running.ended()
    assert ended.status == errors.INTERRUPTED
    assert left(client, running.process.pid) == []
    assert verifier.evidence == []


@pytest.mark.quick
def test_chosen_tests_are_no_evidence(verifier, cpu_base):
    """A run of chosen tests succeeds, and says of itself that it proves nothing; a release that asks is refused."""
    ended = verifier.run("--flavour", "base", *QUICK)
    assert ended.status == 0, ended.output
    found = verifier.evidence[0]
    assert (found.complete, found.passed, found.counts.passed) == (False, False, 2)
    assert found.is_of(cpu_base.attributes["Id"])
    assert "incomplete" in ended.output.splitlines()[-1]
    with pytest.raises(errors.EvidenceError, match="did not pass"):
        evidence.find(cpu_base.attributes["Id"], verifier.results)


def test_reports(verifier, cpu_base):
    """JUnit and HTML lie beside the evidence, and the HTML names the digest."""
    verifier.run("--image", cpu_base.attributes["Id"], *QUICK)
    folder = verifier.results / cpu_base.cell.id / "base"
    assert [suite.get("tests") for suite in ET.parse(folder / "junit.xml").getroot()] == ["2"]
    assert cpu_base.attributes["Id"] in (folder / "report.html").read_text()


@pytest.mark.quick
def test_skip_is_a_failure(verifier, tmp_path):
    """A test that is skipped fails the run and is named."""
    (tmp_path / "skipper.py").write_text(SKIPPER)
    ended = verifier.run("--flavour", "base", *QUICK, "-p", "skipper", PYTHONPATH=str(tmp_path))
    assert ended.status == errors.VerificationError.code
    assert "skipped: images/base/tests/test_workspace.py::test_it_is_the_working_directory" in complaint(ended)[0]


def test_image_of_another_cell(verifier, tmp_path):
    """An image that is not what it is said to be fails, whatever its labels say."""
    ended = verifier.run("--image", "pytorch-cuda:2.13-cpu-devel", "--flavour", "base", "-k", "test_labels", "--numprocesses=1")
    assert ended.status == errors.VerificationError.code
