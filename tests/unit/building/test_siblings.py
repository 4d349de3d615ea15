"""A plan with siblings: what `gym` and `sight` add to `jupyter` beside `ssh`, and what each image stacks."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from torchstrata.commands import new_flavour
from torchstrata.commands.options import NewFlavourOptions
from torchstrata.locks import lockfile, wheel_locks
from torchstrata.locks.lockfile import Pin
from torchstrata.matrix import matrix

CELL = "2.13-cpu-debian12"

IMAGINED = Pin(name="zebra-sight", version="1.0", filename="zebra_sight-1.0-py3-none-any.whl", sha256="0" * 64, size=1000)

GOLDEN = f"""\
{CELL}-base: Python environment
{CELL}-base: torch
{CELL}-base: wheels of base
{CELL}-base: bytecode of base
{CELL}-base: debian12 base
{CELL}-devel: debian12 devel
{CELL}-jupyter: opencv-python-headless
{CELL}-jupyter: wheels of jupyter
{CELL}-jupyter: bytecode of jupyter
{CELL}-jupyter: debian12 jupyter
{CELL}-gym: debian12 gym
{CELL}-sight: wheels of sight
{CELL}-sight: bytecode of sight
{CELL}-sight: debian12 sight
{CELL}-ssh: debian12 ssh
"""
"""Each item once, with the first image that has it: nothing that siblings share is made twice."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Give a copy of this checkout's data with two flavours more, of which one has a wheel of its own."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("matrix.yaml", "matrix.schema.json", "flavour.schema.json", "README.md"):
        shutil.copy(matrix.ROOT / name, root)
    for name in ("images", "locks", "torchstrata"):
        shutil.copytree(matrix.ROOT / name, root / name, symlinks=True)
    for flavour in ("gym", "sight"):
        new_flavour.run(NewFlavourOptions(name=flavour, parent="jupyter"), root)
    (root / "images/sight/requirements.in").write_text(f"{IMAGINED.name}\n")
    (root / "images/sight/Dockerfile").unlink()
    (cell,) = matrix.select(matrix.load(root / "matrix.yaml"), CELL)
    lock = wheel_locks.read(cell, "jupyter", root)
    pins = tuple(sorted((*lock.pins, IMAGINED), key=lambda pin: pin.name))
    for more in (
        dataclasses.replace(lock, flavour="gym", requires=()),
        dataclasses.replace(lock, flavour="sight", requires=(IMAGINED.name,), pins=pins),
    ):
        (root / wheel_locks.path_of(cell, more.flavour)).write_text(lockfile.render(more))
    return root


@pytest.fixture(scope="module")
def planned(checkout, tmp_path_factory):
    """Give what `inv plan` prints of it, for programs."""
    return plan(checkout, tmp_path_factory.mktemp("store"))


def plan(root, store):
    """Return what `inv plan` prints in a checkout."""
    command = [sys.executable, "-m", "torchstrata.commands", "plan", CELL, "--json"]
    return json.loads(subprocess.run(command, cwd=root, env=os.environ | {"TORCHSTRATA_CACHE": str(store)}, check=True, capture_output=True).stdout)


def test_plan_of_siblings(planned):
    """The golden plan."""
    own = [line for line in planned if line["image"].rpartition("-")[2] in {"base", "devel", "jupyter", "ssh", "gym", "sight"}]
    assert "".join(f"{line['image']}: {_unnumbered(line['item'])}\n" for line in own) == GOLDEN


def _unnumbered(title):
    """Return a title without versions and numbers of wheels, which move with locks."""
    return " ".join(word for word in title.split() if not re.match("[0-9]", word))


def test_siblings_change_no_identity(planned, tmp_path):
    """What images of today are made from is what it was without them."""
    before = plan(matrix.ROOT, tmp_path)
    names = {line["image"] for line in before}
    assert [(line["item"], line["identity"]) for line in planned if line["image"] in names] == [(line["item"], line["identity"]) for line in before]
