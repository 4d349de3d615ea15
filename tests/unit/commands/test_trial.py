"""Trying OSes that nobody has verified."""

from __future__ import annotations

import shutil

import pytest

from torchstrata.commands import build, lock, trial
from torchstrata.commands.options import TryOsOptions
from torchstrata.errors import MatrixError, RegistryError
from torchstrata.matrix import matrix
from torchstrata.verification import suite

TABLE = matrix.load()
WAITING = [system for system in TABLE.systems.values() if system.image]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Give a matrix in which all OSes from registries wait to be verified, to be edited."""
    (tmp_path / "images").symlink_to(matrix.ROOT / "images")
    path = tmp_path / "matrix.yaml"
    shutil.copy(matrix.MATRIX, path)
    text = path.read_text()
    for system in WAITING:
        head, name, rest = text.partition(f"  {system.id}:")
        text = head + name + rest.replace("verified: true", "verified: false", 1) if system.verified else text
    path.write_text(text)
    monkeypatch.setattr(matrix, "MATRIX", path)
    monkeypatch.setattr(matrix, "load", lambda real=matrix.load: real(path))
    return path


@pytest.fixture
def done(monkeypatch):
    """Give what was done, instead of doing it."""
    steps = []
    monkeypatch.setattr(lock, "lock_systems", lambda names: steps.append(("lock", *names)))
    monkeypatch.setattr(build, "build", lambda cell, _: steps.append(("build", cell)))
    monkeypatch.setattr(suite, "run", lambda cell, *_: steps.append(("verify", cell.id)))
    return steps


def test_what_passes_is_marked_and_nothing_else_changes(file, done):
    """Each OS that waits is locked, one cell of it is built and verified, and then its line says so."""
    before = file.read_text()
    trial.run(TryOsOptions())
    assert [step[0] for step in done] == ["lock", "build", "verify"] * len(WAITING)
    assert all(system.verified for system in matrix.load().systems.values())
    assert file.read_text().replace("verified: true", "") == before.replace("verified: true", "").replace("verified: false", "")
    assert sorted(path.name for path in file.parent.iterdir()) == ["images", "matrix.yaml"]


def test_a_cell_that_was_weighed_is_tried(file, done):
    """The one whose images are smallest, since a disk must hold them."""
    for system in WAITING:
        sizes = {cell.id: weight for cell in TABLE.cells if cell.os == system and (weight := TABLE.flavours["ssh"].budget(cell.short))}
        assert trial.smallest(TABLE, system).id == min(sizes, key=sizes.__getitem__)


def test_one_that_fails_keeps_no_other_from_being_tried(file, done, monkeypatch, capsys):
    """It is not marked, and its error is that of the run."""

    def lock_systems(names):
        if names == [WAITING[0].id]:
            raise RegistryError("no route to host", fix="x")

    monkeypatch.setattr(lock, "lock_systems", lock_systems)
    with pytest.raises(RegistryError):
        trial.run(TryOsOptions())
    assert f"failed: {WAITING[0].id}: no route to host" in capsys.readouterr().out
    assert {system.id for system in matrix.load().systems.values() if not system.verified} == {WAITING[0].id}


def test_a_small_disk_locks_alone(file, done):
    """The night builds its cells then, a flavour at a time."""
    before = file.read_text()
    trial.run(TryOsOptions(cells=(WAITING[0].id,), only_lock=True))
    assert (done, file.read_text()) == ([("lock", WAITING[0].id)], before)


def test_what_is_verified_is_not_tried(file, done, capsys):
    """A workflow that runs for ever costs nothing then; a person is told why nothing happens."""
    trial.run(TryOsOptions(cells=("debian*",)))
    assert (done, capsys.readouterr().out) == ([], "nothing to try: debian13, debian12 are verified\n")


def test_a_line_of_another_shape_is_for_people(file):
    """It is not guessed where the word belongs."""
    file.write_text(file.read_text().replace(f"  {WAITING[0].id}:", f"  {WAITING[0].id}x:"))
    with pytest.raises(MatrixError, match=f"no `verified: false` of {WAITING[0].id}"):
        trial.mark(WAITING[0], file)
