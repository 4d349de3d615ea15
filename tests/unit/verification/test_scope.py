"""Scopes of a verification: what a quick one runs, and that a full one runs everything."""

from __future__ import annotations

import shutil
from itertools import product

import pytest

from tests import trees
from tests.built import CPU, CUDA
from torchstrata.matrix import matrix
from torchstrata.verification import required, scope
from torchstrata.verification.evidence import EngineImage, Host
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.subject import Subject

MATRIX = matrix.load()
DIGEST = "sha256:" + "a" * 64
TIERS = ("free", "gpu", "host")


def subject(cell: str, flavour: str, machine: str = "x86_64") -> Subject:
    """Return an image of a cell, on a kind of machine."""
    image = EngineImage(reference="i", digest=DIGEST, manifest=DIGEST, config=None)
    return Subject(
        cell=matrix.select(MATRIX, cell)[0].id, flavour=flavour, image=image, host=Host(kernel="6.1", engine="26.1", cpus=2, machine=machine), gpu=None
    )


def modules(cell: str, flavour: str, wanted: scope.Scope) -> set[str]:
    """Return the modules whose tests an image must pass in a scope."""
    return {module for _, module, _ in scope.lists(subject(cell, flavour), wanted)["free"].cases}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("flavour", MATRIX.flavours)
@pytest.mark.parametrize("cell", [CPU, CUDA])
def test_a_full_scope_leaves_nothing_out(cell, flavour, tier):
    """What a quick one no longer runs is not lost: every test of the lists runs on every image that it applies to."""
    expected = Expectation(cell=matrix.select(MATRIX, cell)[0], flavour=flavour)
    assert [key for key in required.read(tier).cases if not scope.includes("full", key, expected)] == []


def test_the_all_in_one_of_a_cell_without_cuda_runs_all_that_is_not_costly():
    """It contains all flavours, and what they do does not depend on CUDA. What is costly is eight in a hundred at most."""
    everything = scope.lists(subject(CPU, MATRIX.all_in_one), "full")["free"]
    quick = scope.lists(subject(CPU, MATRIX.all_in_one), "quick")["free"]
    assert quick == everything.restrict(lambda key: not costly(key))
    assert sum(quick.cases.values()) > 0.92 * sum(everything.cases.values()) > 900


def test_of_an_emulated_image_all_is_required_but_what_no_emulator_does():
    """The full scope is as full as it can be, and says so; a machine of its own has to pass all."""
    native, emulated = (scope.lists(subject(CUDA, "base", machine), "full")["free"] for machine in ("x86_64", "aarch64"))
    assert emulated == native.restrict(lambda key: "native" not in key[0].split())
    assert 0 < sum(native.cases.values()) - sum(emulated.cases.values()) < 10


def costly(key: required.Key) -> bool:
    """Return whether the full scope alone runs a test."""
    return scope.COSTLY in key[0].split()


def test_of_a_cell_with_cuda_what_only_it_has():
    """The all-in-one runs each test of CUDA, torchvision and torchaudio, and those of what the image is."""
    quick = scope.lists(subject(CUDA, MATRIX.all_in_one), "quick")["free"].cases
    full = scope.lists(subject(CUDA, MATRIX.all_in_one), "full")["free"].cases
    special = {key for key in full if scope.ONLY_THERE & set(key[0].split())}
    identity = {key for key in full if key[1] in {"test_truth", "test_hygiene"}}
    assert set(quick) == special | identity
    assert special
    assert {key: full[key] for key in quick} == quick


@pytest.mark.parametrize("cell", [CPU, CUDA])
@pytest.mark.parametrize("flavour", [flavour for flavour in MATRIX.with_parents(MATRIX.all_in_one) if flavour != MATRIX.all_in_one])
def test_other_flavours_are_what_they_say(cell, flavour):
    """Their contents are not those of the all-in-one. A start without services is the same in each, and the first one of a cell shows it."""
    starts = {"test_users"} if (cell, flavour) == (CPU, "base") else set()
    assert modules(cell, flavour, "quick") == {"test_truth", "test_hygiene"} | starts


@pytest.mark.parametrize(
    ("flavour", "section", "module", "runs"),
    [
        ("gym", "gym", "test_gym", True),
        ("gym", "gym costly", "test_gym", False),
        ("gym", "jupyter", "test_jupyter", False),
        ("gym", "base", "test_users", True),
        ("jupyter", "jupyter", "test_jupyter", False),
        ("ssh", "jupyter", "test_jupyter", True),
    ],
)
def test_flavours_beside_the_all_in_one_run_their_own(tmp_path, flavour, section, module, runs):
    """No other image of a quick run contains them; of their parents they run what every flavour runs."""
    shutil.copy(matrix.MATRIX, trees.grow(tmp_path, {"base": "", "devel": "base", "jupyter": "devel", "ssh": "jupyter", "gym": "jupyter"}))
    expected = Expectation(cell=matrix.select(MATRIX, CPU)[0], flavour=flavour, root=tmp_path)
    assert scope.includes("quick", (section, module, "test_x"), expected) is runs


@pytest.mark.parametrize("tier", ["free", "host"])
def test_no_test_is_in_no_quick_scope(tier):
    """Between them the images of a quick run pass each test that needs no GPU and is not costly."""
    cells = [matrix.select(MATRIX, cell)[0] for cell in (CPU, CUDA)]
    images = [Expectation(cell=cell, flavour=flavour) for cell, flavour in product(cells, MATRIX.flavours)]
    keys = required.read(tier).cases
    ran = {key for key in keys if any(_applies(key, image) and scope.includes("quick", key, image) for image in images)}
    assert ran == {key for key in keys if not costly(key)}


def _applies(key: required.Key, image: Expectation) -> bool:
    return bool(required.sections(image.lineage, image.applies | {scope.COSTLY, "native"}, [key[0]]))
