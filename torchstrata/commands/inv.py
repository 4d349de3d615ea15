"""What Invoke gets: tasks to list and to complete, and a program whose words are read here.

Invoke's own parser knows no word that may be left out and no nearest verb; it stops at the first unexpected word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from invoke.collection import Collection
from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.program import Program
from invoke.tasks import Task

from torchstrata.arguments import declared
from torchstrata.commands import verbs
from torchstrata.commands.verbs import VERBS, Verb


class VerbTask(Task[Callable[[Context], None]]):
    """A verb as Invoke lists and completes it."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb

        def body(_: Context) -> None:
            verbs.run([verb.name])

        body.__doc__ = verb.sentence
        super().__init__(body, name=verb.name.rpartition(".")[2])

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:  # noqa: ARG002, FBT001  # Invoke's signature
        """Return the options; words are no options, and nothing completes them."""
        options = (argument for argument in declared(self.verb.options) if not argument.declared.positional)
        return [Argument(argument.name, kind=bool if argument.is_switch else str, help=argument.declared.help) for argument in options]


def collection() -> Collection:
    """Return the verbs for Invoke; those with a dot in a collection of their own."""
    top = Collection()
    below: dict[str, Collection] = {}
    for verb in VERBS:
        group = verb.name.rpartition(".")[0]
        target = below.setdefault(group, Collection(group)) if group else top
        target.add_task(VerbTask(verb))
    for collected in below.values():
        top.add_collection(collected)
    return top


def answer(program: Program) -> None:
    """Run the verb that the words of Invoke's program name, or list all, and end; return for Invoke's own options.

    :raises SystemExit: always where there is a verb, or a plain ``--list``, or nothing.
    """
    if not program.argv or program.args.complete.value:  # without words Invoke is not running: something else has imported the tasks
        return
    words = _words(program)
    if words or len(program.argv) == 1:
        verbs.run(words)
        sys.exit(0)


def _words(program: Program) -> list[str]:
    """Return what was typed, without options of Invoke's own, and with what follows ``--``, which Invoke takes away.

    After a verb it means to the verb what it means to every program: what follows are words, be they a command's options.
    """
    if isinstance(program.args.help.value, str):
        return ["--help", program.args.help.value]
    given = list(program.argv[1:])
    if len(given) == 1 and given[0] in verbs.LIST:
        return given
    dropped = given[given.index("--") :] if "--" in given else []
    return [*program.core.unparsed, *dropped] if program.core.unparsed else dropped[1:]
