"""The verbs of ``inv``: all are there, under the names that the guides use."""

from __future__ import annotations

import pytest
from invoke import Program, Task

import tasks

NAMES = {name.replace("_", "-") for name in tasks.namespace.task_names}


def test_every_task_is_listed():
    """A task that is in no collection could not be called."""
    made = {each for each in vars(tasks).values() if isinstance(each, Task)}
    assert made == {tasks.namespace[name] for name in tasks.namespace.task_names}


@pytest.mark.parametrize("verb", ["promote", "rollback", "log", "repair", "diff"])
def test_releases_have_their_verbs(verb):
    """They are in a collection of their own."""
    assert f"release.{verb}" in NAMES


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_nothing_moves_without_yes(verb):
    """A dry run is what happens if nobody says otherwise."""
    arguments = {argument.name: argument for argument in tasks.namespace[f"release.{verb}"].get_arguments()}
    assert arguments["yes"].default is False


def test_a_promotion_takes_its_origin_as_from():
    """As the guides write it."""
    (found,) = [context for context in tasks.namespace.to_contexts() if context.name == "release.promote"]
    assert "--from" in found.flags


def test_nothing_is_deleted_without_yes():
    """A prune shows what would go if nobody says otherwise, and leaves parts alone."""
    arguments = {argument.name: argument for argument in tasks.namespace["registry.prune"].get_arguments()}
    assert (arguments["yes"].default, arguments["parts"].default) == (False, False)


@pytest.mark.parametrize(
    ("words", "positional"), [("lock --os ubuntu24.04", ["cells"]), ("lock 2.8-cu121", ["cells"]), ("lock --os", []), ("lock --exclude-newer 2026-01-01", [])]
)
def test_cells_may_follow_a_switch(monkeypatch, words, positional):
    """An OS is named behind --os, as its errors say; the value of an option is no cell."""
    monkeypatch.setattr("sys.argv", ["inv", *words.split()])
    assert tasks._cells_of("lock", "--os") == positional


def test_a_mirror_takes_its_origin_as_from():
    """As the guides write it."""
    (found,) = [context for context in tasks.namespace.to_contexts() if context.name == "mirror"]
    assert {"--from", "--to"} <= set(found.flags)


def test_a_cell_is_pushed_by_name():
    """The cell is the word after the verb; the options are those of a build, but for the engine."""
    (found,) = [context for context in tasks.namespace.to_contexts() if context.name == "push"]
    assert [each.name for each in found.positional_args] == ["cells"]
    assert {"--flavour", "--locked", "--gzip", "--level", "--names", "--registry"} <= set(found.flags)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("cache --days many", "--days many: not a number"),
        ("cache --max-gb=-1", "--max-gb -1: less than 0"),
        ("cache --max-gb nan", "--max-gb nan: less than 0, or not a number"),
        ("push 2.13-cpu --level high", "--level high: not a whole number"),
        ("release.rollback --to yesterday", "--to yesterday: not a whole number"),
        ("registry.prune --keep 1.5", "--keep 1.5: not a whole number"),
        ("registry.prune --older-than week", "--older-than week: not a number"),
    ],
)
def test_a_word_where_a_number_must_be_is_refused(words, said, capsys):
    """In one line, with the code of wrong words."""
    with pytest.raises(SystemExit) as ended:
        Program(namespace=tasks.namespace).run(f"inv {words}")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)
