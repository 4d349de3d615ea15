"""What surrounds the work of nox's sessions: their words are read, a failure ends one session, CPU time is measured."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

import nox
from nox.command import CommandFailed
from nox.virtualenv import ProcessEnv, get_virtualenv

from torchstrata import arguments, errors
from torchstrata.commands import cputime, verbs
from torchstrata.commands.cli import guarded
from torchstrata.commands.cputime import Meter, SessionCost
from torchstrata.commands.options import BuildOptions, LockOptions, RecordOptions, TierOptions
from torchstrata.errors import INTERRUPTED
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.verification.request import VerifyOptions

Work = Callable[[nox.Session], None]

COSTS: Final = matrix.ROOT / "bench" / "results" / "tests.json"
"""What the tiers of tests cost when it was last recorded."""

SESSION: Final = re.compile(r"(?:--sessions?=|-[se]=?)?(?P<verb>build|test|push|[a-z]+(?=-\d+\.\d+-(?:cpu|cu\d)))-(?P<cell>.+)")
"""A word of nox's command line that names a session of a cell; one with a torch and a CUDA can be nothing else."""

VERBS: Final = ("build", "test")

HELP: Final = frozenset({"-h", "--help"})

KEYWORDS: Final = ("-k", "--keywords")
OTHER_CHOICES: Final = (*KEYWORDS, "-t", "--tags", "-f", "--noxfile", "-db", "--default-venv-backend")
"""Options of nox's whose words are no names of sessions."""

SHARED: Final = "develop"
"""Name of the environment that sessions share."""
_shared: Final[dict[str, ProcessEnv]] = {}
"""Environments that this call has brought up to date, by directory."""

TIDYING: Final = 60.0
"""Seconds that a program has to tidy up after Ctrl-C; nox would kill it after half a one."""

METER: Final = Meter()
"""What the sessions of this call have cost."""


def part(work: Work) -> Work:
    """Return ``work`` as the function of a session: CPU time is measured, and leaving the program fails it alone.

    A call's only session ends with the code of what it has run: nox would end with 1, whatever that was.
    """

    @functools.wraps(work)
    def run(session: nox.Session) -> None:
        failed = True
        try:
            work(session)
            failed = False
        except SystemExit as ended:
            failed = bool(ended.code)
            _fail(session, ended)
        except CommandFailed as stopped:
            if _is_alone(session) and (stopped.return_code or 0) > 0:  # less is a signal
                raise SystemExit(stopped.return_code) from stopped
            raise
        finally:
            METER.lap(session.name, failed=failed)

    return run


def wordless(work: Work) -> Work:
    """Return ``work`` as that of a session without options: asked for help it does nothing else, and alone it takes no word.

    Beside others it leaves the words to them: ``nox -s engine build-2.8-cu121 -- --locked``.
    """

    @functools.wraps(work)
    def run(session: nox.Session) -> None:
        if _is_alone(session) or not HELP.isdisjoint(session.posargs):
            parser = arguments.Parser(prog=f"nox -s {session.name} --", description=work.__doc__, allow_abbrev=False)
            parser.parse_args(["--help"] if not HELP.isdisjoint(session.posargs) else session.posargs)
        work(session)

    return run


def _is_alone(session: nox.Session) -> bool:
    """Return whether a call of nox has this session only."""
    return len(session._runner.manifest) == 1  # noqa: SLF001  # nothing public tells how many sessions a call has


def _fail(session: nox.Session, ended: SystemExit) -> None:
    """Fail a session that has left the program; a call's only session ends it with its own code, not nox's 1."""
    if ended.code == INTERRUPTED:
        raise KeyboardInterrupt from ended  # ends the call, with this code
    if not ended.code:
        return
    if _is_alone(session):
        raise ended
    session.error(f"exit code {ended.code}")


def run(session: nox.Session, *command: str) -> None:
    """Run a program that makes what must not stay, such as containers; after Ctrl-C, which it sees itself, it can remove them."""
    session.run(*command, interrupt_timeout=TIDYING, terminate_timeout=TIDYING)


def share_environment(session: nox.Session, *packages: str) -> None:
    """Let a session without an environment use the one that all such sessions share, with ``packages`` as they are now.

    Nox would make one for each: five times the work, and each begins without bytecode.
    """
    runner = session._runner  # noqa: SLF001  # nox names environments by their sessions, and offers no other way
    envdir = str(Path(runner.global_config.envdir, SHARED))
    if envdir not in _shared:
        runner.venv = get_virtualenv("uv", "virtualenv", download_python="auto", envdir=envdir, reuse_existing=True)
        runner.venv.create()
        session.install(*packages)
        _shared[envdir] = runner.venv
    runner.venv = _shared[envdir]


def cells() -> tuple[Cell, ...]:
    """Return every cell of the matrix, for listing."""
    with guarded():
        return matrix.load().cells


def check_sessions(words: Sequence[str], more: str) -> None:
    """Refuse sessions of cells that do not exist, with the nearest that do; nox would name none.

    :param words: of nox's command line.
    :param more: what the variable ``NOXSESSION`` holds: names with commas between them.
    """
    own = list(_with_options(itertools.takewhile(lambda word: word != "--", words)))
    asked = [*(word for option, word in own if option not in OTHER_CHOICES), *more.split(",")]
    with guarded():
        for word in (word for option, word in own if option in KEYWORDS and SESSION.fullmatch(word)):
            _refuse_keyword(word)
        for session in filter(None, map(SESSION.fullmatch, asked)):
            _check_session(session["verb"], session["cell"])


def _with_options(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield words, each with the option that stands before it."""
    option = ""
    for word in words:
        option = word if word.startswith("-") else option
        yield option, word


def _refuse_keyword(word: str) -> NoReturn:
    """Refuse the name of a session where nox reads an expression of Python's.

    :raises MatrixError: always.
    """
    fix = f"nox -s {word}; an expression is 'build and cu121'"
    raise errors.MatrixError(f"-k {word} is a subtraction to nox, by which it would run every session, or none", fix=fix)


def _check_session(verb: str, cell: str) -> None:
    """Refuse a session that does not exist.

    :raises MatrixError: there is no such cell, or no such session of cells.
    """
    table = matrix.load()
    if not any(cell in known.names for known in table.cells):
        cells_near = ", ".join(f"{verb}-{name}" for name in matrix.nearest(table, cell))
        raise errors.MatrixError(matrix.why_none(table, cell), fix=f"nearest: {cells_near}; how to add a row to matrix.yaml: docs/adding.md")
    if verb == "push":
        raise errors.MatrixError(f"there is no session push-{cell}", fix=f"nox -s build-{cell} -- --push; or, without an engine: inv push {cell}")
    if verb not in VERBS:
        verbs_near = difflib.get_close_matches(verb, VERBS, cutoff=0.0)
        raise errors.MatrixError(f"there is no session {verb}-{cell}", fix=f"nearest: {', '.join(f'{near}-{cell}' for near in verbs_near)}")


def build(cell: str, words: Sequence[str]) -> None:
    """Build the images of a cell; ``words`` are the options that ``nox -s build-CELL -- --help`` lists."""
    parser = arguments.parser(f"nox -s build-{cell} --", BuildOptions, description=f"Build the images of {cell}.")
    verbs.work("build.build", cell, arguments.parse(parser, BuildOptions, words))


def verify(cell: str, words: Sequence[str], prepare: Callable[[], Path]) -> None:
    """Verify images of a cell; ``words`` are the options that ``nox -s test-CELL -- --help`` lists.

    :param prepare: called once the words are understood; returns an interpreter that has what the tests need.
    """
    parser = arguments.parser(f"nox -s test-{cell} --", VerifyOptions, description=f"Verify the images of {cell}.", epilog="Other options go to pytest.")
    options, rest = arguments.parse_known(parser, VerifyOptions, words)
    options = dataclasses.replace(options, results=options.results.absolute(), rest=rest)
    with guarded():
        matrix.load().check(options.flavour)  # before anything is installed for their tests
    verbs.work("build.verify", cell, prepare(), options)


def lock(words: Sequence[str]) -> None:
    """Do what ``inv lock`` does with these words."""
    verbs.work("lock.run", arguments.parse(arguments.parser("nox -s lock --", LockOptions), LockOptions, words))


def engine() -> None:
    """Make an engine available, and say what was done."""
    verbs.work("build.engine")


def tier_options(name: str, words: Sequence[str], cells: Sequence[str]) -> TierOptions:
    """Return what is asked of a tier of tests; ``words`` are the options that ``nox -s NAME -- --help`` lists.

    :param cells: those that it has.
    """
    parser = arguments.parser(f"nox -s {name} --", TierOptions)
    options = arguments.parse(parser, TierOptions, words)
    if unknown := sorted(set(options.cells) - set(cells)):
        parser.error(f"argument --cells: {', '.join(unknown)}: choose from {', '.join(cells)}")
    return dataclasses.replace(options, cells=options.cells or tuple(cells))


def is_recorded(name: str, words: Sequence[str]) -> bool:
    """Return whether the CPU times of a session are to be kept; ``words`` are the options that ``nox -s NAME -- --help`` lists."""
    return arguments.parse(arguments.parser(f"nox -s {name} --", RecordOptions), RecordOptions, words).record


def cpu_time(parts: Sequence[SessionCost], words: Sequence[str]) -> None:
    """Print what the sessions of a tier have cost, and record it if asked; ``words`` are its name and ``--record``."""
    sys.stdout.write("\n".join(cputime.lines(parts)) + "\n")
    sys.stdout.write(f"core-seconds: CPU time of the whole machine, {os.cpu_count()} cores, containers and others' work included\n")
    if "--record" in words:
        cputime.record(COSTS, words[0], parts)
