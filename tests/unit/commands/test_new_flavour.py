"""``inv new-flavour``: what it makes is whole and right at once, and what it refuses leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from torchstrata.commands import new_flavour
from torchstrata.commands.options import NewFlavourOptions
from torchstrata.errors import FlavourError, StoreError
from torchstrata.locks import lockfile
from torchstrata.matrix import entries, matrix
from torchstrata.verification import required, suite


@pytest.fixture
def root(tmp_path):
    """Give the files of a checkout that a flavour is made from."""
    place = tmp_path / "checkout"
    place.mkdir()
    for name in ("matrix.yaml", "README.md", "pyproject.toml"):
        shutil.copy(matrix.ROOT / name, place / name)
    shutil.copytree(matrix.ROOT / "images", place / "images", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def make(root, name="gym", parent="jupyter"):
    """Make a flavour."""
    new_flavour.run(NewFlavourOptions(name=name, parent=parent), root)


def content(root):
    """Return all files below a directory."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_is_one_folder_and_one_line(root, capsys):
    """Nothing else changes; the flavour is in the tree, and README describes it."""
    before = content(root)
    make(root)
    after = content(root)
    assert sorted(after.keys() - before.keys()) == [
        "images/gym/Dockerfile",
        "images/gym/flavour.yaml",
        "images/gym/requirements.in",
        "images/gym/tests/required/free.toml",
        "images/gym/tests/test_gym.py",
    ]
    assert [name for name in before if before[name] != after[name]] == ["README.md"]
    lines = [line for line in after["README.md"].decode().splitlines() if line not in before["README.md"].decode().splitlines()]
    assert lines == ["| `gym` | `jupyter`, and what you add |"]
    table = matrix.load(root / "matrix.yaml")
    assert table.with_parents("gym") == ("base", "devel", "jupyter", "gym")
    assert entries.with_flavours(after["README.md"].decode(), table) == after["README.md"].decode()
    assert "nox -s build-2.13-cpu test-2.13-cpu -- --flavour gym" in capsys.readouterr().out


def test_its_list_is_what_its_tests_are(root):
    """What `nox -s required` would write is there already."""
    make(root, name="my-gym")
    shutil.copytree(matrix.ROOT / "tests", root / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "torchstrata").symlink_to(matrix.ROOT / "torchstrata")
    written = content(root)
    command = [sys.executable, "-m", "pytest", "-p", suite.PLUGIN, *required.PLACES, "-q", "-p", "no:cacheprovider", "--list-to", str(root)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    lists = {name: text for name, text in content(root).items() if name.endswith(".toml")}
    assert lists == {name: text for name, text in written.items() if name.endswith(".toml")}
    assert "images/my-gym/tests/required/free.toml" in lists


@pytest.mark.parametrize(
    ("name", "parent", "what", "fix"),
    [
        ("Gym", "jupyter", "'Gym' cannot be a flavour's name", "lower-case letters"),
        ("../gym", "jupyter", "'../gym' cannot be a flavour's name", "lower-case letters"),
        ("debian12-gym", "jupyter", "'debian12-gym' cannot be a flavour's name: tags have an OS there", "another word"),
        ("gym-arm64", "jupyter", "'gym-arm64' cannot be a flavour's name: tags have a platform there", "another word"),
        ("arm64", "jupyter", "'arm64' cannot be a flavour's name: tags have a platform there", "another word"),
        ("cpu", "jupyter", "'cpu' cannot be a flavour's name: tags have a CUDA there", "another word"),
        ("apt", "jupyter", "'apt' cannot be a flavour's name: it means something else here", "use none of"),
        ("ssh", "jupyter", "there is images/ssh already", "another name"),
        ("gym", "jupiter", "unknown flavour jupiter", "nearest: jupyter"),
    ],
)
def test_what_cannot_be_made_is_refused(root, name, parent, what, fix):
    """With a line that says why and one that says what to do, and nothing is written."""
    before = content(root)
    with pytest.raises(FlavourError) as refused:
        make(root, name, parent)
    assert refused.value.what == what
    assert fix in refused.value.fix
    assert content(root) == before


def test_a_readme_without_the_table_is_refused(root):
    """Before anything is written."""
    (root / "README.md").write_text("# ours\n")
    before = content(root)
    with pytest.raises(FlavourError, match=r"README\.md has no table of flavours"):
        make(root)
    assert content(root) == before


def test_what_fails_leaves_nothing(root, monkeypatch):
    """Not even the folder, where README cannot be written."""

    def replaced(path, text):
        raise StoreError(f"{path.name} cannot be written", fix="x")

    monkeypatch.setattr(lockfile, "replaced", replaced)
    before = content(root)
    with pytest.raises(StoreError):
        make(root)
    assert content(root) == before
    assert sorted(path.name for path in (root / "images").iterdir()) == sorted(path.name for path in (matrix.ROOT / "images").iterdir())


def test_what_a_kill_has_left_is_no_flavour(root):
    """An unfinished folder has a name that no flavour has."""
    (root / "images/.new-x").mkdir()
    (root / "images/.new-x/Dockerfile").write_text("FROM base\n")
    assert list(matrix.load(root / "matrix.yaml").flavours) == list(matrix.load().flavours)
