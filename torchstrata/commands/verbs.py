"""The verbs of ``inv``: their names, their options, and where the work is. Light, since listing them imports it."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torchstrata import arguments, checkout
from torchstrata.arguments import WRONG_WORDS
from torchstrata.commands import cli, container_options, options, release_options

UNCHANGED: Final = "interrupted; nothing was changed"
ALL_OR_NOTHING: Final = "interrupted; all of it is written, or nothing"
DELETED: Final = "interrupted; what was deleted is gone, and the next run goes on from there"
MOVED: Final = "interrupted; inv release.log shows what is to have moved, and inv release.repair moves what has not"
STOPPED: Final = "interrupted; nothing in containers is lost, and inv ps shows which still run"
STARTED: Final = "interrupted; nothing half-started is left, what ran before runs on, and what was built is kept"
"""What is true after Ctrl-C."""

HELP: Final = ("-h", "--help", "help")
LIST: Final = ("-l", "--list")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """A verb.

    :param name: such as ``release.log``.
    :param work: module of this folder and function that gets the options, such as ``release.log``.
    :param options: dataclass of what can be asked of it; its docstring begins with a sentence about the verb.
    :param anywhere: it needs no checkout.
    :param interrupted: what is true after Ctrl-C.
    """

    name: str
    work: str
    options: type
    anywhere: bool = False
    interrupted: str = cli.INTERRUPTED

    @property
    def sentence(self) -> str:
        """What it does."""
        return (self.options.__doc__ or "").partition("\n")[0]

    def parse(self, words: Sequence[str]) -> Any:
        """Return the options that words mean.

        :raises SystemExit: they mean nothing; or help was asked for.
        """
        return arguments.parse(arguments.parser(f"inv {self.name}", self.options), self.options, words)


VERBS: Final = (
    Verb(name="add-torch", work="torches.add", options=options.AddTorchOptions, interrupted=ALL_OR_NOTHING),
    Verb(name="attest", work="signatures.attest", options=release_options.AttestOptions),
    Verb(name="cache", work="housekeeping.cache", options=options.CacheOptions, anywhere=True, interrupted=DELETED),
    Verb(name="catalogue", work="catalogue.write", options=release_options.CatalogueOptions, interrupted=ALL_OR_NOTHING),
    Verb(name="doctor", work="doctor.run", options=container_options.DoctorOptions, interrupted=UNCHANGED),
    Verb(name="down", work="running_containers.down", options=container_options.DownOptions, anywhere=True, interrupted=STOPPED),
    Verb(name="drift", work="drift.run", options=container_options.DriftOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="drop-torch", work="torches.drop", options=options.DropTorchOptions, interrupted=ALL_OR_NOTHING),
    Verb(name="join", work="join.join", options=release_options.JoinOptions),
    Verb(name="jupyter", work="running_containers.jupyter", options=container_options.JupyterOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="key", work="signatures.make_key", options=release_options.KeyOptions, anywhere=True, interrupted=ALL_OR_NOTHING),
    Verb(name="lock", work="lock.run", options=options.LockOptions),
    Verb(name="logs", work="running_containers.logs", options=container_options.LogsOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="mirror", work="mirror.mirror", options=release_options.MirrorOptions),
    Verb(name="new-flavour", work="new_flavour.run", options=options.NewFlavourOptions, interrupted=ALL_OR_NOTHING),
    Verb(name="nightly", work="nightly.run", options=release_options.NightlyOptions),
    Verb(name="plan", work="build.plan", options=options.PlanOptions, interrupted=UNCHANGED),
    Verb(name="ps", work="running_containers.ps", options=container_options.PsOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="push", work="build.push", options=options.PushOptions),
    Verb(name="sizes", work="build.weigh", options=options.SizesOptions),
    Verb(name="ssh", work="running_containers.ssh", options=container_options.SshOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="try-os", work="trial.run", options=options.TryOsOptions),
    Verb(name="up", work="up.up", options=container_options.UpOptions, interrupted=STARTED),
    Verb(name="verify-release", work="signatures.verify_release", options=release_options.VerifyReleaseOptions, anywhere=True, interrupted=UNCHANGED),
    Verb(name="watchdog", work="nightly.watch", options=release_options.WatchdogOptions, interrupted=UNCHANGED),
    Verb(name="registry.prune", work="housekeeping.prune", options=release_options.PruneOptions, interrupted=DELETED),
    Verb(name="release.diff", work="release.diff", options=release_options.DiffOptions, interrupted=UNCHANGED),
    Verb(name="release.log", work="release.log", options=release_options.LogOptions, interrupted=UNCHANGED),
    Verb(name="release.promote", work="release.promote", options=release_options.PromoteOptions, interrupted=MOVED),
    Verb(name="release.repair", work="release.repair", options=release_options.RepairOptions, interrupted=MOVED),
    Verb(name="release.rollback", work="release.rollback", options=release_options.RollbackOptions, interrupted=MOVED),
)


def run(words: Sequence[str]) -> None:
    """Run the verb that words name, with the options that follow; ``--help VERB`` is the same as ``VERB --help``.

    :raises SystemExit: there is no such verb, the words mean nothing, the work failed; or help was asked for.
    """
    try:
        _run(words)
    except KeyboardInterrupt:  # at the very beginning of a guard, which has not begun to catch it
        cli.end_interrupted()


def _run(words: Sequence[str]) -> None:
    if not words or words[0] in LIST or (len(words) == 1 and words[0] in HELP):
        with cli.guarded(cli.BETWEEN):
            sys.stdout.write(listing())
        return
    first, *rest = (words[1], "--help", *words[2:]) if words[0] in HELP else words
    verb = find(first)
    asked = verb.parse(rest)
    with cli.guarded(cli.BETWEEN):
        if not verb.anywhere:
            checkout.require()
    work(verb.work, asked, interrupted=verb.interrupted)


def find(name: str) -> Verb:
    """Return the verb of a name.

    :raises SystemExit: there is none; the nearest ones are named.
    """
    verbs = {verb.name: verb for verb in VERBS}
    if name not in verbs:
        near = ", ".join(difflib.get_close_matches(name, verbs, cutoff=0.4))
        sys.stderr.write(f"inv: there is no verb {name!r}\n  -> {near and f'nearest: {near}; '}inv --list shows all\n")
        raise SystemExit(WRONG_WORDS)
    return verbs[name]


def listing() -> str:
    """Return all verbs with their sentences, one a line."""
    width = max(len(verb.name) for verb in VERBS)
    return "usage: inv VERB [options]; inv --help VERB shows them\n\n" + "".join(f"  {verb.name:{width}}  {verb.sentence}\n" for verb in VERBS)


def work(where: str, *asked: Any, interrupted: str = cli.INTERRUPTED) -> None:
    """Do the work of a verb or session; its libraries are imported only here.

    :param where: module of this folder and function.
    :param interrupted: what is true after Ctrl-C.
    :raises SystemExit: it failed.
    """
    with cli.guarded(interrupted):
        cli.hush()
        function(where)(*asked)


def function(where: str) -> Any:
    """Return the function ``module.function`` of this folder."""
    module, _, name = where.partition(".")
    return getattr(importlib.import_module(f"torchstrata.commands.{module}"), name)
