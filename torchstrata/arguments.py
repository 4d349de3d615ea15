"""Arguments of a command line as fields of dataclasses: one declaration gives the parser, its help and the value.

Words and options stand in any order. An option either always has a value or never: one that may have one would
swallow the word after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import itertools
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

T = TypeVar("T")

LARGEST: Final = 1_000_000
"""The largest number of days or gigabytes that is taken: more than anybody has. Python has no time of 10^9 days."""

WRONG_WORDS: Final = 2
"""Status of a command that was given words which mean nothing, as parsers have it."""

_DECLARATION: Final = "declaration"
"""Key of a field's metadata."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """How the command line shows a field.

    :param help: what it does, in one line, with its default.
    :param metavar: what stands for the value, with its unit.
    :param name: without dashes; that of the field if empty.
    :param positional: it is a word, not an option.
    :param group: options of the same group exclude each other.
    :param verbatim: each of several words stays as it is; else it is a list with commas in it.
    """

    help: str
    metavar: str = ""
    name: str = ""
    positional: bool = False
    group: str = ""
    verbatim: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """A field of a dataclass that the command line has.

    :param field: its name there.
    :param kind: its type, without ``None``.
    :param required: it has no default.
    """

    field: str
    kind: Any
    default: Any
    required: bool
    declared: Declaration

    @property
    def name(self) -> str:
        """What people write, without dashes before it."""
        return self.declared.name or self.field.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it has no value."""
        return self.kind is bool


@runtime_checkable
class CheckedOptions(Protocol):
    """Options that check themselves: some of them contradict each other."""

    def contradiction(self) -> str:
        """Return one line on those that were given and contradict each other; empty where none do."""


def option(text: str, metavar: str = "", default: Any = None, *, name: str = "", group: str = "", verbatim: bool = False) -> Any:  # noqa: PLR0913  # of one option
    """Return a field that is an option with a value."""
    shown = Declaration(help=text, metavar=metavar, name=name, group=group, verbatim=verbatim)
    return dataclasses.field(default=default, metadata={_DECLARATION: shown})


def required(text: str, metavar: str, *, positional: bool = True, name: str = "") -> Any:
    """Return a field that must be given, as a word or as an option."""
    return dataclasses.field(metadata={_DECLARATION: Declaration(help=text, metavar=metavar, name=name, positional=positional)})


def switch(text: str, *, group: str = "") -> Any:
    """Return a field that is an option without a value."""
    return dataclasses.field(default=False, metadata={_DECLARATION: Declaration(help=text, group=group)})


def word(text: str, metavar: str) -> Any:
    """Return a field that is a word which may be left out."""
    return dataclasses.field(default=None, metadata={_DECLARATION: Declaration(help=text, metavar=metavar, positional=True)})


def words(text: str, metavar: str, *, verbatim: bool = False) -> Any:
    """Return a field that is any number of words."""
    return dataclasses.field(default=(), metadata={_DECLARATION: Declaration(help=text, metavar=metavar, positional=True, verbatim=verbatim)})


def declared(kind: type) -> Iterator[Argument]:
    """Yield what the command line has of a dataclass; what several have in common, a base, comes last."""
    hints = get_type_hints(kind)
    for field in sorted(dataclasses.fields(kind), key=lambda field: field.name not in kind.__annotations__):
        if declaration := field.metadata.get(_DECLARATION):
            missing = field.default is dataclasses.MISSING
            yield Argument(field=field.name, kind=_bare(hints[field.name]), default=field.default, required=missing, declared=declaration)


class Parser(argparse.ArgumentParser):
    """A parser that says in two lines what is wrong and what helps; argparse prints all options first, which hides it."""

    def error(self, message: str) -> NoReturn:
        """End the program with :data:`WRONG_WORDS`."""
        said = " ".join(message.split())
        self.exit(WRONG_WORDS, f"error: {said}\n  -> {self._nearest(said)}{self.prog} --help lists what it takes\n")

    def _nearest(self, message: str) -> str:
        """Return the options nearest to those that a message names; nothing where it names none that is like one."""
        known = itertools.chain.from_iterable(action.option_strings for action in self._actions)
        options = [name for name in known if name.startswith("--") and name != "--help"]
        unknown = re.findall(r"--[\w-]+", message) if message.startswith("unrecognized arguments: ") else []
        near = dict.fromkeys(itertools.chain.from_iterable(difflib.get_close_matches(word, options, n=1) for word in unknown))
        return f"nearest: {', '.join(near)}; " if near else ""


def parser(program: str, kind: type, *, description: str = "", epilog: str = "") -> Parser:
    """Return the parser of what a dataclass declares.

    :param description: a sentence on what it is for; the first line of the docstring if empty.
    """
    sentence = description or (kind.__doc__ or "").partition("\n")[0]
    made = Parser(prog=program, description=sentence, epilog=epilog, allow_abbrev=False)
    groups: dict[str, argparse._ActionsContainer] = {"": made}
    for argument in declared(kind):
        group = argument.declared.group
        if group not in groups:
            groups[group] = made.add_mutually_exclusive_group()
        _add(groups[group], argument)
    return made


def parse(reader: argparse.ArgumentParser, kind: type[T], arguments: Sequence[str]) -> T:
    """Return the value that words and options mean.

    :raises SystemExit: they mean nothing, with code 2; or help was asked for, with 0.
    """
    value = _value(kind, reader.parse_intermixed_args(arguments))
    if empty := [argument.declared.metavar for argument in declared(kind) if argument.required and getattr(value, argument.field) in {"", ()}]:
        reader.error(f"an empty word is no {', and none is '.join(empty)}")
    if isinstance(value, CheckedOptions) and (contradiction := value.contradiction()):
        reader.error(contradiction)
    return value


def parse_known(reader: argparse.ArgumentParser, kind: type[T], arguments: Sequence[str]) -> tuple[T, tuple[str, ...]]:
    """Return the value, and what the parser does not know.

    :raises SystemExit: options that it knows mean nothing, with code 2; or help was asked for, with 0.
    """
    namespace, unknown = reader.parse_known_args(arguments)
    return _value(kind, namespace), tuple(unknown)


def choices(kind: Any) -> tuple[str, ...]:
    """Return the words that a type allows; none where it is no list of words."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def _add(to: argparse._ActionsContainer, argument: Argument) -> None:
    shown, kind = argument.declared, argument.kind
    more: dict[str, Any] = {"help": shown.help.replace("%", "%%")}
    if argument.is_switch:
        to.add_argument(f"--{argument.name}", dest=argument.field, action="store_true", **more)
        return
    several = get_origin(kind) is tuple
    if allowed := choices(kind):
        more["choices"] = allowed
    else:
        read = str if shown.verbatim else _commas if several else _readers().get(kind, kind)
        more |= {"metavar": shown.metavar, "type": read}
    if shown.positional:
        more["nargs"] = ("+" if argument.required else "*") if several else None if argument.required else "?"
        to.add_argument(argument.field, **more)
    else:
        more |= {"action": "append" if shown.verbatim else "extend"} if several else {"default": None if argument.required else argument.default}
        to.add_argument(f"--{argument.name}", dest=argument.field, required=argument.required, **more)


def _value(kind: type[T], namespace: argparse.Namespace) -> T:
    """Return the value of a dataclass; what was given for lists is made one tuple."""
    return kind(**{argument.field: _one(argument, getattr(namespace, argument.field)) for argument in declared(kind)})


def _one(argument: Argument, value: Any) -> Any:
    if get_origin(argument.kind) is not tuple:
        return value
    return argument.default if value is None and not argument.declared.positional else tuple(_flat(value or ()))


def _flat(values: Sequence[str | list[str]]) -> Iterator[str]:
    """Yield words of lists in a list, as several words with commas in them are."""
    for value in values:
        yield from [value] if isinstance(value, str) else value


def _bare(hint: Any) -> Any:
    """Return a type without ``None``."""
    if not isinstance(hint, types.UnionType):
        return hint
    (kind,) = (alternative for alternative in get_args(hint) if alternative is not type(None))
    return kind


def _commas(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _readers() -> dict[Any, Callable[[str], Any]]:
    return {int: _whole, float: _number, Path: _path}


def _path(text: str) -> Path:
    """Return a path; an empty word, as a variable that is not set leaves it, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("an empty word names no file or directory")
    return Path(text)


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not a whole number") from None
    return int(_positive(number, text))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: not a number") from None
    if number > LARGEST:
        raise argparse.ArgumentTypeError(f"{text}: more than {LARGEST}")
    return _positive(number, text)


def _positive(number: float, text: str) -> float:
    """Return a number that is at least 0.

    :raises argparse.ArgumentTypeError: it is not, as what is not a number is not.
    """
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text}: less than 0, or not a number")
    return number
