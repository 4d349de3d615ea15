"""The words of verbs: in any order, each option declared once, and read only by what it is for."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest

from torchstrata import arguments
from torchstrata.commands import verbs
from torchstrata.commands.options import BuildOptions, LockOptions, PlanOptions, TierOptions
from torchstrata.commands.verbs import VERBS
from torchstrata.verification.request import VerifyOptions

KINDS = [*(verb.options for verb in VERBS), BuildOptions, VerifyOptions, TierOptions]
VALUES = {int: "7", float: "7", str: "text", arguments.Path: "path"}


def parse(text):
    """Return the options that a verb gets for what is typed."""
    name, *words = shlex.split(text)
    return verbs.find(name).parse(words)


def value(argument):
    """Return a word that an option takes."""
    choices = arguments.choices(argument.kind)
    return choices[-1] if choices else VALUES.get(argument.kind, "a,b")


def given(verb):
    """Return each option of a verb with its value, if it has one, as lists of words; and the words that are no options.

    Those that exclude each other are left out.
    """
    ungrouped = [argument for argument in arguments.declared(verb.options) if not argument.declared.group]
    options = [[f"--{argument.name}", *([] if argument.is_switch else [value(argument)])] for argument in ungrouped if not argument.declared.positional]
    return options, [f"word{number}" for number, argument in enumerate(ungrouped) if argument.declared.positional]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_words_stand_anywhere_among_options(verb):
    """First, last, and after every option, also one without a value: what is understood is the same."""
    options, words = given(verb)
    places = [[*itertools.chain(*options[:place]), *words, *itertools.chain(*options[place:])] for place in range(len(options) + 1)]
    parsed = [verb.parse(line) for line in places]
    assert all(options == parsed[0] for options in parsed)
    assert all(getattr(parsed[0], argument.field) not in {None, False, ()} for argument in arguments.declared(verb.options) if not argument.declared.group)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_words_are_left_out_where_they_have_a_default(verb, capsys):
    """Elsewhere that is a mistake, which names what is missing."""
    options = [*itertools.chain(*given(verb)[0])]
    missing = [argument for argument in arguments.declared(verb.options) if argument.required and argument.declared.positional]
    if not missing:
        assert not getattr(verb.parse(options), "cells", ())
        return
    with pytest.raises(SystemExit) as ended:
        verb.parse(options)
    assert ended.value.code == verbs.WRONG_WORDS
    assert missing[0].declared.metavar in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("plan --json 2.8-cu121", PlanOptions(cells=("2.8-cu121",), json=True)),
        ("plan 2.8-cu121 --json", PlanOptions(cells=("2.8-cu121",), json=True)),
        ("lock --os 2.8-cu121", LockOptions(cells=("2.8-cu121",), os=True)),
        ("lock --check 2.8-cu121", LockOptions(cells=("2.8-cu121",), check=True)),
    ],
)
def test_a_switch_does_not_swallow_the_word_after_it(text, options):
    """It is the cell."""
    assert parse(text) == options


@pytest.mark.parametrize("words", [("2.8-*,2.13-cpu",), ("2.8-*", "2.13-cpu"), ("2.8-*", "--json", "2.13-cpu")])
def test_several_cells_have_commas_or_spaces_between_them(words):
    """As people write lists; nothing is none, as workflows pass it."""
    assert verbs.find("plan").parse(words).cells == ("2.8-*", "2.13-cpu")
    assert verbs.find("plan").parse([""]).cells == ()


def test_a_command_for_a_container_stays_as_it_was_typed():
    """Its words are no lists: commas and empty words belong to it."""
    command = ("desk", "awk", "-F,", "{print $1,$2}", "")
    assert verbs.find("ssh").parse([command[0], "--", *command[1:]]).words == command


@pytest.mark.parametrize("name", ["ssh", "jupyter", "logs", "down"])
def test_an_empty_word_is_not_the_only_container(name):
    """A variable that is not set would stop, or remove, what somebody else's word was for."""
    assert verbs.find(name).parse([""]) != verbs.find(name).parse([])


@pytest.mark.parametrize(("verb", "asked"), [(verb, "--help") for verb in VERBS] + [(VERBS[0], "help")], ids=lambda value: getattr(value, "name", value))
def test_help_reads_well(verb, asked, capsys):
    """A sentence, then a line for each option, which has its name, its unit and what it does."""
    with pytest.raises(SystemExit) as ended:
        verbs.run([asked, verb.name])
    said = " ".join(re.sub(r"-\n\s+", "-", capsys.readouterr().out).split())  # lines are broken after hyphens, too
    assert ended.value.code == 0
    assert said.startswith(f"usage: inv {verb.name} [-h]")
    assert verb.sentence in said
    options = [*arguments.declared(verb.options)]
    shown = [*(each.declared.help for each in options), *(each.declared.metavar for each in options if not each.is_switch)]
    assert [text for text in shown if text not in said] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_option_with_a_value_says_its_default(kind):
    """And its unit, where no list of values says it; what must be given says so."""
    options = [argument for argument in arguments.declared(kind) if not argument.is_switch and not argument.declared.positional]
    assert [option.name for option in options if not re.search(r"\(default: |\(must be given\)", option.declared.help)] == []
    assert [option.name for option in options if not option.declared.metavar and not arguments.choices(option.kind)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache --days many", "argument --days: many: not a number"),
        ("cache --max-gb=-1", "argument --max-gb: -1: less than 0"),
        ("cache --max-gb nan", "argument --max-gb: nan: less than 0, or not a number"),
        ("cache --days 1e300 --prune", "argument --days: 1e300: more than 1000000"),
        ("cache --max-gb inf --prune", "argument --max-gb: inf: more than 1000000"),
        ("registry.prune --older-than 1e999", "argument --older-than: 1e999: more than 1000000"),
        ("up v2.13 --workspace=", "argument --workspace: an empty word names no file or directory"),
        ("release.rollback --to yesterday", "argument --to: yesterday: not a whole number"),
        ("registry.prune --keep 1.5", "argument --keep: 1.5: not a whole number"),
        ("registry.prune --older-than week", "argument --older-than: week: not a number"),
        ("nightly --step dance", "argument --step: invalid choice: 'dance'"),
        ("plan --jso", "unrecognized arguments: --jso"),
        ("key stray", "unrecognized arguments: stray"),
        ("cache --days 3", "--days: only with --prune"),
        ("cache --max-gb 3 --days 0", "--days and --max-gb: only with --prune"),
        ("lock --check --os", "argument --os: not allowed with argument --check"),
        ("lock --os --upgrade", "--os takes no --upgrade"),
        ("lock --check --exclude-newer 2026-11-01", "--check takes no --exclude-newer"),
        ("lock --tool --upgrade 2.8-cu121", "--tool takes no --upgrade and no cells"),
        ("push ''", "an empty word is no CELL"),
        ("add-torch ''", "an empty word is no TORCH"),
    ],
)
def test_words_that_mean_nothing_are_refused(text, said, capsys):
    """With the code of wrong words, and the option that they were given to; none is left aside in silence."""
    with pytest.raises(SystemExit) as ended:
        parse(text)
    assert ended.value.code == verbs.WRONG_WORDS
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("plan --jsn 2.13-cpu", "nearest: --json; inv plan --help lists what it takes"),
        ("up --workspac x", "nearest: --workspace; inv up --help lists what it takes"),
        ("cache --keep 1", "inv cache --help lists what it takes"),
        ("push", "inv push --help lists what it takes"),
        ("up --print --compose", "inv up --help lists what it takes"),
        ("nightly --step dance", "inv nightly --help lists what it takes"),
    ],
)
def test_wrong_words_are_answered_in_two_lines(text, cure, capsys):
    """What is wrong, and the nearest option; a screen of options would hide it."""
    with pytest.raises(SystemExit):
        parse(text)
    first, second = capsys.readouterr().err.splitlines()
    assert (first.startswith("error: "), second) == (True, f"  -> {cure}")


@pytest.mark.parametrize(("name", "near"), [("plna", "plan"), ("release.premote", "release.promote"), ("watchdgo", "watchdog"), ("prune", "registry.prune")])
def test_an_unknown_verb_names_the_nearest(name, near, capsys):
    """In two lines, also where only its help was asked for."""
    for words in ([name], ["--help", name]):
        with pytest.raises(SystemExit) as ended:
            verbs.run(words)
        first, second = capsys.readouterr().err.splitlines()
        assert (ended.value.code, first) == (verbs.WRONG_WORDS, f"inv: there is no verb {name!r}")
        assert near in second.partition(";")[0]


def test_an_option_that_stands_where_a_verb_must_names_no_verb(capsys):
    """None is like it, and all of them are no help."""
    with pytest.raises(SystemExit) as ended:
        verbs.run(["--hlep"])
    assert (ended.value.code, capsys.readouterr().err.splitlines()[1]) == (verbs.WRONG_WORDS, "  -> inv --list shows all")


@pytest.mark.parametrize("words", [[], ["--list"], ["--help"], ["help"]])
def test_without_a_verb_all_are_listed(words, capsys):
    """Each with its sentence."""
    verbs.run(words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [verb.name for verb in VERBS]


@pytest.mark.parametrize("name", ["release.promote", "release.rollback", "registry.prune"])
def test_nothing_moves_or_goes_without_yes(name):
    """A dry run is what happens if nobody says otherwise."""
    assert parse(name).yes is False


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_work_of_a_verb_is_there(verb):
    """The module and the function exist, and it takes the options."""
    hints = arguments.get_type_hints(verbs.function(verb.work))
    assert verb.options in hints.values()
