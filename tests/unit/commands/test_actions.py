"""What steps tell GitHub Actions."""

from __future__ import annotations

import pytest

from torchstrata.commands import actions
from torchstrata.errors import VariableError
from torchstrata.matrix import matrix
from torchstrata.nightly import decisions, pushed_images
from torchstrata.nightly.decisions import Patch, Report

REPORT = Report(news=(), patches=(Patch(torch="2.13", old="2.13.0", new="2.13.1"),), work=(), left_out={}, silent=("the index is away",))


def test_outputs_are_words_or_json(tmp_path, monkeypatch):
    """One line each, after what other steps wrote."""
    file = tmp_path / "output"
    file.write_text("before=1\n")
    monkeypatch.setenv(actions.OUTPUT, str(file))
    actions.output(cells=("a", "b"), commit="0123")
    assert file.read_text() == 'before=1\ncells=["a","b"]\ncommit=0123\n'


def test_elsewhere_nothing_is_written(monkeypatch, tmp_path, capsys):
    """On a machine that is no runner there is nowhere to write to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(actions.OUTPUT, raising=False)
    monkeypatch.delenv(actions.SUMMARY, raising=False)
    actions.output(cells=())
    actions.summary("x")
    assert [*tmp_path.iterdir(), *capsys.readouterr()] == ["", ""]


@pytest.mark.parametrize("name", ["", "long" * 100, "none/output"])
def test_what_is_no_file_is_told(name, tmp_path, monkeypatch):
    """A directory, a name that is too long, a file in no directory."""
    monkeypatch.setenv(actions.OUTPUT, str(tmp_path / name))
    with pytest.raises(VariableError, match=f"{actions.OUTPUT} names"):
        actions.output(cells=())


@pytest.mark.parametrize(("count", "chosen"), [(0, 0), (28, 28), (64, 64), (65, 64), (300, 64)])
def test_a_matrix_has_at_most_256_jobs(count, chosen):
    """With four jobs for each cell; the rest waits."""
    assert len(actions.tonight([f"cell-{number}" for number in range(count)], 4)) == chosen


def test_the_summary_names_what_moved():
    """And what needs a person, what could not be asked, what is made, and what waits."""
    text = decisions.markdown(REPORT, ["2.13-cpu-debian12"], later=1)
    assert "- torch 2.13: 2.13.0 -> 2.13.1 is out; facts and locks need a pull request" in text
    assert "- could not be asked: the index is away" in text
    assert "- to make: 2.13-cpu-debian12; the last 1 of them in the next run" in text
    assert decisions.markdown(REPORT, []).endswith("- nothing to make")


def test_the_last_flavour_is_verified_with_the_all_in_one():
    """Since its tests are about both."""
    table = matrix.load()
    (cell,) = matrix.select(table, "2.13-cpu")
    assert pushed_images.local(table, cell, "base") == {"base": "pytorch-cuda:2.13-cpu-base"}
    assert pushed_images.local(table, cell, "ssh") == {"ssh": "pytorch-cuda:2.13-cpu-ssh", "v2.13": "pytorch-cuda:v2.13"}
