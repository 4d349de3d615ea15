"""The folders of the package: each imports only from those below it, and no name stands for two things."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from tests import house
from tests.house import MODULES, PACKAGE, ROOMS, TABLE, imported, imports

GROUND = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
"""Modules in no folder."""

HERE = Path(__file__).parent
TESTS = sorted(HERE.rglob("test_*.py"))


def twice(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def classes(path: Path) -> list[str]:
    """Return the names of the classes of a module."""
    return re.findall(r"^\s*class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def dotted(path: Path) -> str:
    """Return the name of a module below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def modules(path: Path) -> set[str]:
    """Return the modules of the package that a module imports."""
    known = {dotted(module) for module in MODULES}
    return known & {*imports(path), *(name.rpartition(".")[0] for name in imports(path))}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import torchstrata.store.store", ["store.store"]),
        ("from torchstrata import commands", ["commands"]),
        ("from torchstrata import process, text as words", ["process", "text"]),
        ("from torchstrata.store import codec, store", ["store.codec", "store.store"]),
        ("from torchstrata.store.store import Store", ["store.store.Store"]),
        ("def work():\n    from torchstrata.commands import verbs\n", ["commands.verbs"]),
        ("import torchstrata", []),
        ("import torch, os\nfrom torch import nn", []),
    ],
)
def test_every_way_to_import_is_seen(line, names):
    """Also a folder or module by itself, and an import within a function."""
    assert list(imported(ast.parse(line))) == names


def test_every_folder_is_a_room():
    """CONTRIBUTING.md lists each, and nothing else, with what lies in no folder."""
    folders = {path.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert sorted(ROOMS) == sorted(folders)
    assert {name for name in re.findall(r"`(\w+)`", TABLE) if name in GROUND} == GROUND


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_from_those_below_them(room):
    """Imports in functions count, and those of a folder by its name alone."""
    below = {*ROOMS[ROOMS.index(room) :], *GROUND}
    inside = [path for path in MODULES if path.is_relative_to(PACKAGE / room)]
    wrong = {dotted(path): {name for name in imports(path) if name.split(".")[0] not in below} for path in inside}
    assert not any(wrong.values()), wrong


def test_the_picture_is_of_today():
    """What CONTRIBUTING.md shows is drawn from the imports."""
    assert house.PICTURE.read_text(encoding="utf-8") == house.draw(), "a module or an import came or went: nox -s house draws the picture again"


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_imports_from_no_room(name):
    """All rooms stand on it."""
    assert {imported.split(".")[0] for imported in imports(PACKAGE / f"{name}.py")} <= GROUND


def test_no_module_imports_itself_in_the_end():
    """A circle hides behind imports in functions; here these count like all others."""
    assert len([*TopologicalSorter({dotted(path): modules(path) for path in MODULES}).static_order()]) == len(MODULES)


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_in_a_sentence_what_it_is(room):
    """That is all that its ``__init__.py`` has, so that importing one of its modules imports no other."""
    (sentence,) = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(sentence, ast.Expr)
    assert isinstance(sentence.value, ast.Constant)
    assert str(sentence.value.value).endswith(".")


def test_no_two_modules_have_one_name():
    """What is imported by its name alone is one thing everywhere."""
    assert twice(path.stem for path in MODULES) == []


def test_no_two_classes_have_one_name():
    """What a class is can be told without its module."""
    assert twice(chain.from_iterable(map(classes, MODULES))) == []


def test_unit_tests_lie_in_rooms():
    """The same as the package has, and one for what runs inside containers."""
    assert {path.parent.name for path in TESTS if path.parent != HERE} <= {*ROOMS, "container"}


def test_no_two_unit_tests_have_one_name():
    """Guides name them without their folder."""
    assert twice(path.name for path in TESTS) == []
