"""OS parts: what their identities depend on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from tests.parts import DEBIAN13, LOCKED, UBUNTU
from torchstrata.errors import StoreError
from torchstrata.layers import contexts, os_bake, os_parts
from torchstrata.layers.os_image_source import BakeSettings, OsImageSource
from torchstrata.matrix import matrix
from torchstrata.store.codec import Codec
from torchstrata.store.part import Part
from torchstrata.store.store import Store

MATRIX = matrix.load()
FLAVOURS = MATRIX.with_parents(MATRIX.all_in_one)


def identities(root: Path) -> list[str]:
    """Return the identity of each flavour on debian13."""
    return [os_parts.identity(DEBIAN13, MATRIX.with_parents(flavour), Codec(), root) for flavour in FLAVOURS]


def test_identity_does_not_depend_on_the_checkout(checkout: Path) -> None:
    """Another directory and another umask give the same identities."""
    assert identities(checkout) == identities(matrix.ROOT)


def test_a_touched_dockerfile_changes_its_flavour_and_its_children(checkout: Path) -> None:
    """Nothing below it is made again."""
    before = identities(checkout)
    with (checkout / "images" / "devel" / "Dockerfile").open("a") as file:
        file.write("# touched\n")
    assert [old == new for old, new in zip(before, identities(checkout), strict=True)] == [True, False, False, False]


def test_python_requirements_are_none_of_its_business(checkout: Path) -> None:
    """OS parts know nothing of the payload."""
    before = identities(checkout)
    (checkout / "images" / "devel" / "requirements.in").write_text("numpy\n")
    assert identities(checkout) == before


def test_codec_is_part_of_the_identity() -> None:
    """Layers of gzip are others."""
    assert os_parts.identity(DEBIAN13, ("base",), Codec()) != os_parts.identity(DEBIAN13, ("base",), Codec(name="gzip", level=6))


@pytest.mark.parametrize("name", ["flavour.yaml", "requirements.in", "tests/test_gym.py", "tests/required/free.toml"])
def test_what_changes_no_os_part(checkout: Path, tmp_path: Path, name: str) -> None:
    """What a flavour says of itself, its wheels and its tests are in no identity and in no build context."""
    before = identities(checkout)
    (checkout / "images/base" / name).parent.mkdir(exist_ok=True, parents=True)
    (checkout / "images/base" / name).write_text("changed\n")
    contexts.stage(checkout, ["base"], {}, tmp_path)
    assert identities(checkout) == before
    assert not (tmp_path / "base" / name).exists()


@pytest.mark.parametrize(("home", "mark"), [("ada@corp", "@"), ("c:", ":"), ("one,two", ",")])
def test_a_place_that_buildx_would_take_apart_is_told(home: str, mark: str) -> None:
    """Before anything is made there; with the classic store of images only directories are named, which are taken whole."""
    work = Path("/srv", home, "a b", "\u00fc")
    with pytest.raises(StoreError, match=f"takes apart at {mark}") as caught:
        os_bake._Workspace(work=work, exporter="layout", in_parallel=map).check()
    assert "TORCHSTRATA_CACHE" in caught.value.fix
    os_bake._Workspace(work=work, exporter="image", in_parallel=map).check()
    os_bake._Workspace(work=Path("/srv/ada/a b/\u00fc"), exporter="layout", in_parallel=map).check()


def test_image_of_parts_that_are_not_there(tmp_path: Path) -> None:
    """An image cannot be had before its parts are baked."""
    with pytest.raises(StoreError, match="not in the store"):
        os_parts.image(DEBIAN13, ("base",), Store(tmp_path), Codec())


def test_the_digest_of_an_os_image_is_part_of_identities(tmp_path: Path) -> None:
    """The same packages on another image are another OS part, and so are those of an OS that does without one of them."""
    system = msgspec.structs.replace(UBUNTU, lacks=("git",))
    found = set[str]()
    for of, lock in ((UBUNTU, LOCKED), (UBUNTU, dataclasses.replace(LOCKED, image=f"{UBUNTU.image}@sha256:{'2' * 64}")), (system, LOCKED)):
        found.add(os_parts.identity_by(of, ("base",), lock, Codec(), matrix.ROOT))
    assert len(found) == 3


def test_what_is_not_as_locked_is_said_once(store: Store) -> None:
    """Three flavours without children have the packages of `base` in common."""
    said: list[str] = []
    settings = BakeSettings(store=store, codec=Codec(), on_line=said.append)
    base, whole = "less 1 -> 2", "less 1 -> 2, make 3 -> 4"
    for drift in (base, whole, base, whole):
        part = Part(layers=(), extras={}, notes={"title": "a part", os_parts.DRIFT: drift})
        OsImageSource(settings=settings, locks={DEBIAN13: LOCKED}).compare(DEBIAN13, part)
    assert [line.partition(f"{LOCKED.date}: ")[2] for line in said] == [base, "make 3 -> 4"]
