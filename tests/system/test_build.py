"""Real builds, by the commands that users type: what comes of them, and what is made again.

They run in the user's own content store, so that they are quick where it is full. Expected values come from the locks and the facts.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import docker
import pytest
from rich.console import Console

from tests.built import BUILDS, CPU, CUDA, MATRIX, Built, cell_of, index
from tests.checkout import Checkout, Ended
from tests.scripts import script
from tests.wheelhouse import wheel
from torchstrata import errors
from torchstrata.building.maker import Maker
from torchstrata.building.plan import Plan
from torchstrata.host import docker_config
from torchstrata.image import compose
from torchstrata.layers.strata import Stratum
from torchstrata.progress import PlainReporter
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

pytestmark = pytest.mark.usefixtures("own_turn")

BASE = ("--flavour", "base")

IMPORTED = """\
import importlib.metadata, sys
for name in sys.argv[1:]:
    __import__(name)
"""


# What the images are, beyond what tests/images finds in each


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Give a directory with a small wheel that every user of a container can read."""
    wheel(tmp_path, "tiny-answer", "1.0", {"tiny_answer.py": b"ANSWER = 42\n"})
    tmp_path.chmod(0o755)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    return tmp_path


def test_python_starts_from_bytecode(cuda_base: Built) -> None:
    """Importing torch compiles nothing: the bytecode in the image belongs to its sources and its interpreter."""
    log = cuda_base.run("python", "-v", "-c", "import torch", stdout=False, stderr=True)
    loaded = re.findall(r"^# code object from '(/opt/[^']+)'", log, re.MULTILINE)
    assert sum(path.endswith(".pyc") for path in loaded) > 500
    assert [path for path in loaded if path.endswith(".py")] == []
    assert "wrote '/opt" not in log


def test_jupyter_imports_what_it_promises(client: docker.DockerClient, builds: Mapping[str, Ended]) -> None:
    """The packages that people start a notebook for are there and load."""
    image = Built(client, cell_of(CPU), "jupyter")
    image.run("python", "-c", IMPORTED, "jupyterlab", "matplotlib.pyplot", "pandas", "sklearn", "cv2", "tensorboard", "ipywidgets")


@pytest.mark.quick
def test_history_names_every_wheel(built: Built) -> None:
    """``docker history`` shows which layer each wheel is in; layers leave room for derived images."""
    history = built.client.api.history(built.tag)
    told = ", ".join(entry["Comment"] for entry in history)
    assert [f"{name} {version}" for name, version in built.versions.items() if f"{name} {version}" not in told] == []
    assert len(built.attributes["RootFS"]["Layers"]) <= compose.LAYER_LIMIT


@pytest.mark.quick
def test_cuda_strata_are_the_lowest_layers(cuda_base: Built) -> None:
    """CUDA lies below everything of a Python or an OS, in the image as in the plan."""
    kinds = [item.source.kind if isinstance(item.source, Stratum) else "other" for item in cuda_base.plan.items]
    count = kinds.count("cuda")
    assert count
    assert kinds[:count] == ["cuda"] * count
    layers = chain.from_iterable(item.part.layers for item in cuda_base.plan.items[:count] if item.part)
    lowest = [layer.diff_id for layer in layers]
    assert cuda_base.attributes["RootFS"]["Layers"][: len(lowest)] == lowest


def test_cells_share_their_cuda_strata(cuda_base: Built, checkout: Checkout) -> None:
    """2.8-cu121 and 2.8-cu128, on debian13 and debian12, plan each CUDA stratum once, all of them in the store already; 2.8-cu128 adds no part."""
    planned = checkout.plan("2.8-cu121-debian13,2.8-cu121-debian12,2.8-cu128-debian13,2.8-cu128-debian12")
    shared = {item.title for item in cuda_base.plan.items if isinstance(item.source, Stratum) and item.source.kind == "cuda"}
    found = [entry for entry in planned if entry["item"] in shared]
    assert sorted(entry["item"] for entry in found) == sorted(shared)
    assert all(entry["reuse"] for entry in found)
    assert {entry["image"].rpartition("-")[0] for entry in planned} == {"2.8-cu121-debian13", "2.8-cu121-debian12"}


def test_derived_image_builds_and_runs(cuda_base: Built, wheels: Path) -> None:
    """``FROM`` an image and ``RUN pip install`` work as with any other image."""
    (wheels / "Dockerfile").write_text(f"FROM {cuda_base.tag}\nCOPY *.whl /tmp/\nRUN pip install --no-index --find-links /tmp tiny-answer\n")
    tag = "torchstrata-test:derived"
    subprocess.run(["docker", "build", "--quiet", "--network", "none", "--tag", tag, str(wheels)], check=True)
    try:
        printed = cuda_base.client.containers.run(tag, ["python", "-c", "import tiny_answer, torch; print(tiny_answer.ANSWER)"], remove=True)
        assert printed == b"42\n"
    finally:
        cuda_base.client.images.remove(tag)


# What is made again


@pytest.mark.quick
@pytest.mark.cuda
def test_build_says_what_serves_the_asked_cuda(builds: Mapping[str, Ended]) -> None:
    """Who builds 2.8-cu121 reads, in one line, that upstream has no such build and which wheels serve it."""
    facts = cell_of(CUDA).facts
    (line,) = (line for line in builds[CUDA].output.splitlines() if "upstream has no torch" in line)
    assert str(facts.asked_cuda) in line
    assert str(facts.driver_floor) in line


@pytest.mark.quick
def test_second_build_makes_nothing(builds: Mapping[str, Ended], checkout: Checkout) -> None:
    """Everything comes from the store, and the engine has it: the closing table shows nothing made, and no step is done."""
    assert all(entry["reuse"] for entry in checkout.plan(CPU))
    again = checkout.build(CPU)
    assert again.status == 0, again.output
    assert [verb for verb, _ in again.steps if verb != "load"] == []
    assert set(again.closing) == {f"{MATRIX.name}:{CPU}-{flavour}" for flavour in BUILDS[CPU]} | {f"{MATRIX.name}:v{cell_of(CPU).torch}"}
    assert {made for _, _, made in again.closing.values()} == {0}


def test_removed_images_are_loaded_again_without_converting(builds: Mapping[str, Ended], checkout: Checkout, client: docker.DockerClient) -> None:
    """After ``docker rmi`` of the images that have the top layers alone, those in the store are enough."""
    tags = [f"{MATRIX.name}:{CPU}-{MATRIX.all_in_one}", f"{MATRIX.name}:v{cell_of(CPU).torch}"]
    before = {tag: client.images.get(tag).id for tag in tags}
    for tag in tags:
        client.images.remove(tag, force=True)
    again = checkout.build(CPU)
    assert again.status == 0, again.output
    assert [verb for verb, _ in again.steps] == ["load"]
    assert {tag: client.images.get(tag).id for tag in tags} == before


@pytest.mark.quick
def test_a_directory_of_images_needs_no_engine(builds: Mapping[str, Ended], checkout: Checkout, tmp_path: Path) -> None:
    """With every part in the store, ``--to`` writes the images where no engine answers."""
    alone = dataclasses.replace(checkout, env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    ended = alone.build(CPU, "--to", str(tmp_path))
    assert ended.status == 0, ended.output
    assert len(index(tmp_path)["manifests"]) == len(BUILDS[CPU]) + 1


@pytest.mark.parametrize("flavour", ["base", "jupyter"])
def test_touched_dockerfile_changes_os_layers_of_its_flavour_and_above(checkout: Checkout, tmp_path: Path, flavour: str) -> None:
    """The payload stays as it is: no wheel is converted for a new OS package."""
    other = checkout.copy(tmp_path / "touched")
    dockerfile = other.root / "images" / flavour / "Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}# touched\n")
    before, after = ({(entry["image"], entry["item"]): entry["identity"] for entry in one.plan(CUDA)} for one in (checkout, other))
    assert before.keys() == after.keys()
    changed = [item for (image, item), identity in after.items() if before[image, item] != identity]
    assert changed == [f"{cell_of(CUDA).os.id} {name}" for name in MATRIX.flavours if flavour in MATRIX.with_parents(name)]


def test_a_build_that_ends_takes_no_interpreter_from_another(builds: Mapping[str, Ended], client: docker.DockerClient) -> None:
    """Two builds on one OS run the same Python in the engine; each has its image until it ends itself, and then nothing is left."""
    system = cell_of(CPU).os
    making = functools.partial(Maker, Plan(images=()), Store.open(), Codec(), PlainReporter(Console()), locked=False)
    with making() as first:
        kept = first._interpreter(system)
        with making() as second:
            gone = second._interpreter(system)
        assert client.containers.run(kept, ["python3", "--version"], remove=True).decode().startswith(f"Python {system.python}.")
        assert client.images.list(gone) == []
    assert client.images.list(kept) == []


# Bad input


@dataclass(frozen=True)
class Bad:
    """A command that cannot work.

    :param code: its exit status.
    :param text: what its error says.
    """

    command: tuple[str, ...]
    code: int
    text: str


def build_of(cell: str, *words: str) -> tuple[str, ...]:
    """Return the words of a build, as for :meth:`Checkout.start`."""
    return ("nox", "--session", f"build-{cell}", "--", *words)


BAD = {
    "not locked": Bad(build_of("2.8-cu126", "--locked"), errors.LockError.code, "2.8-cu126 is not locked"),
    "unknown flavour": Bad(build_of(CPU, "--flavour", "nope"), errors.MatrixError.code, "unknown flavour nope"),
    "unknown cell": Bad(("invoke", "plan", "9.9-cu999"), errors.MatrixError.code, "no cell matches 9.9-cu999"),
    "CUDA that upstream never built": Bad(("invoke", "plan", "2.8-cu118"), errors.MatrixError.code, "no cell matches 2.8-cu118"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_a_code(checkout: Checkout, tmp_path: Path, name: str) -> None:
    """Each mistake has its code, one line that says what is wrong, one that says what to do, and no traceback; nothing is written."""
    store = tmp_path / "store"
    ended = dataclasses.replace(checkout, env={"TORCHSTRATA_CACHE": str(store)}).run(*BAD[name].command)
    assert ended.status == BAD[name].code, ended.output
    assert sum(BAD[name].text in line for line in ended.output.splitlines()) == 1
    assert ended.output.splitlines()[-1].startswith("  -> ")
    assert "Traceback" not in ended.output
    assert not store.exists()


def test_a_cell_that_does_not_exist_is_answered_with_the_nearest(checkout: Checkout) -> None:
    """It has no session; the answer names those that are like it, and how to add a row."""
    ended = checkout.build("9.9-cu999")
    assert ended.status == errors.MatrixError.code
    assert "no cell matches 9.9-cu999" in ended.output
    assert "nearest: build-" in ended.output
    assert "docs/adding.md" in ended.output


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
@pytest.mark.quick
def test_missing_engine_is_told(checkout: Checkout, address: str) -> None:
    """Without an engine the build ends before it makes anything, and says where it looked and how to come back to this machine's own."""
    ended = dataclasses.replace(checkout, env={"DOCKER_HOST": address}).build(CPU)
    assert ended.status == errors.EngineError.code, ended.output
    assert f"no Docker engine answers at {address}" in ended.output
    assert "unset DOCKER_HOST" in ended.output
    assert "Traceback" not in ended.output


def test_missing_buildx_is_told(checkout: Checkout, tmp_path: Path) -> None:
    """A docker command whose buildx does not work is an error of its own: docker ignores a plugin that cannot describe itself."""
    plugin = tmp_path / "docker" / "cli-plugins" / "docker-buildx"
    plugin.parent.mkdir(parents=True)
    script(plugin, "exit 1")
    env = {"DOCKER_CONFIG": str(tmp_path / "docker"), "DOCKER_HOST": docker_config.address(), "TORCHSTRATA_CACHE": str(tmp_path / "store")}
    ended = dataclasses.replace(checkout, env=env).build(CPU, *BASE, "--to", str(tmp_path / "images"))
    assert ended.status == errors.BuildxError.code, ended.output
    assert "Traceback" not in ended.output
    assert ended.output.splitlines()[-1].startswith("  -> ")
