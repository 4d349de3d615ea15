"""What sessions and tasks call: words in, one exit code out. Light, since listing the sessions imports it; the work is in verbs.py."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, TextIO, cast, get_args

from torchstrata import errors, process
from torchstrata.commands import cputime
from torchstrata.commands.cputime import SessionCost
from torchstrata.commands.options import BuildOptions, MirrorOptions, NightlyOptions, PruneOptions, ReleaseOptions, Step
from torchstrata.host import variables
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.verification.request import VerifyOptions

CHATTY: Final = ("urllib3", "py_serializable", "docker", "httpcore2", "httpx2", "unearth", "filelock", "asyncio")
"""Libraries that nox, which shows every log message, would let speak."""

COSTS: Final = matrix.ROOT / "bench" / "results" / "tests.json"
"""What the tiers of tests cost when it was last recorded."""

INTERRUPTED: Final = "interrupted; what was complete is kept, and the next run goes on from there"

_guards: list[None] = []
"""One for each :func:`guarded` that is under way."""

SESSION: Final = re.compile(r"(?:--sessions?=|-[se]=?)?(?P<verb>build|test|push)-(?P<cell>.+)")
"""A word of nox's command line that names a session of a cell."""

UNSEALED: Final = "use parts that nobody whom the build trusts has sealed: whoever may push to the registry then decides what is in the images"

OTHER_CHOICES: Final = ("-k", "--keywords", "-t", "--tags", "-f", "--noxfile", "-db", "--default-venv-backend")
"""Options of nox's whose words are no names of sessions."""


@contextmanager
def guarded() -> Iterator[None]:
    """Print an error in two lines and exit with its code; never a traceback for what a person can mend.

    Its code is kept where nobody reads standard error, and a full disk or a closed pipe behind standard output is an error, too.
    Where a library in C makes the process die of a signal, which nobody could explain afterwards, every thread's traceback is printed before.
    """
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)
    _guards.append(None)
    try:
        _open_streams()
        variables.check()
        with _output():
            yield
    except errors.TorchstrataError as error:
        with contextlib.suppress(errors.OutputError), _output():
            pass
        _tell(f"error: {error}\n")
        raise SystemExit(error.code) from error
    except KeyboardInterrupt:
        _tell(f"\n{INTERRUPTED}\n")
        raise SystemExit(errors.INTERRUPTED) from None
    finally:
        _guards.pop()


def _open_streams() -> None:
    """Give a process that was started without standard output or error the null device for it; Python has ``None`` there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # as long as the process


@contextmanager
def _output() -> Iterator[None]:
    """Write out at the end what was printed.

    :raises OutputError: standard output takes nothing more.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or _takes(sys.stdout, "\n"):
            raise
        raise errors.OutputError(
            f"standard output cannot be written: {error.strerror}", fix="see what it leads to: a full disk, or a program that has ended"
        ) from error


def _tell(text: str) -> None:
    """Write to standard error, if that takes anything."""
    _takes(sys.stderr, text)


def _takes(stream: TextIO, text: str) -> bool:
    """Write a text and return whether a stream took it; one that does not becomes the null device, since Python writes once more at its end."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return False
    return True


def answer_interrupts() -> None:
    """Say that a verb was interrupted also while it is looked up: Invoke would end with 1 and without a word then."""
    process.end_as_by_ctrl_c()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    if _guards:
        raise KeyboardInterrupt
    _open_streams()
    _tell(f"\n{INTERRUPTED}\n")
    raise SystemExit(errors.INTERRUPTED)


def _verbs() -> ModuleType:
    """Import the part that does the work, with all its libraries."""
    _hush()
    from torchstrata.commands import verbs  # noqa: PLC0415  # see the module's docstring

    return verbs


def _hush() -> None:
    """Silence libraries, some of which already speak when they are imported."""
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)


def cells() -> tuple[Cell, ...]:
    """Return every cell of the matrix, for listing."""
    with guarded():
        return matrix.load().cells


def check_sessions(words: Sequence[str], more: str) -> None:
    """Refuse sessions of cells that do not exist, with the nearest that do; nox would only say that there is no such session.

    :param words: of nox's command line.
    :param more: what the variable ``NOXSESSION`` holds: names with commas between them.
    """
    asked = [*_named(itertools.takewhile(lambda word: word != "--", words)), *more.split(",")]
    with guarded():
        for found in filter(None, map(SESSION.fullmatch, asked)):
            _check_session(found["verb"], found["cell"])


def _named(words: Iterable[str]) -> Iterator[str]:
    """Yield the words that may name sessions."""
    option = ""
    for word in words:
        option = word if word.startswith("-") else option
        if option not in OTHER_CHOICES:
            yield word


def _check_session(verb: str, cell: str) -> None:
    """Refuse a session that does not exist.

    :raises MatrixError: there is no such cell, or no such session of cells.
    """
    table = matrix.load()
    if not any(cell in known.names for known in table.cells):
        near = ", ".join(f"{verb}-{name}" for name in matrix.nearest(table, cell))
        raise errors.MatrixError(matrix.why_none(table, cell), fix=f"nearest: {near}; how to add a row to matrix.yaml: docs/adding.md")
    if verb == "push":
        raise errors.MatrixError(f"there is no session push-{cell}", fix=f"nox -s build-{cell} -- --push; or, without an engine: inv push {cell}")


def build(cell: str, words: Sequence[str]) -> None:
    """Build the images of a cell; ``words`` are the options that ``nox -s build-CELL -- --help`` lists."""
    parser = argparse.ArgumentParser(prog=f"nox -s build-{cell} --", description=f"Build the images of {cell}.")
    parser.add_argument("--flavour", action="append", default=[], help="build this flavour and its parents; more than once for more (default: all)")
    parser.add_argument("--locked", action="store_true", help="refuse OS packages that are not to be had at their locked version")
    parser.add_argument("--codec", choices=("zstd", "gzip"), default="zstd", help="compression of new layers (default: zstd)")
    parser.add_argument("--level", type=int, default=None, help="its level (default: 3 for zstd, 6 for gzip)")
    where = "look for parts there, and push there (default: TORCHSTRATA_REGISTRY, then registry: in matrix.yaml, if any)"
    parser.add_argument("--registry", metavar="HOST[/PATH]", default=None, help=where)
    parser.add_argument("--names", action="store_true", help="push also under the names that the images have in an engine, which moves these tags")
    parser.add_argument("--to", metavar="DIRECTORY", type=Path, help="write an OCI image layout there instead of loading the images into an engine")
    parser.add_argument("--push", action="store_true", help="push the images to the registry afterwards")
    parser.add_argument("--trust-unsealed-parts", action="store_true", help=UNSEALED)
    options = parser.parse_args(words)
    with guarded():
        _verbs().build(cell, BuildOptions(**vars(options) | {"flavour": tuple(options.flavour)}))


def push(cells: str, options: BuildOptions) -> None:
    """Push the images of the cells that match, without an engine; what neither the content store nor the registry has is built."""
    with guarded():
        _verbs().build(cells, dataclasses.replace(options, push=True, load=False))


def verify(cell: str, words: Sequence[str], prepare: Callable[[], Path]) -> None:
    """Verify images of a cell; ``words`` are the options that ``nox -s test-CELL -- --help`` lists.

    :param prepare: called once the words are understood; returns an interpreter that has what the tests need.
    """
    parser = argparse.ArgumentParser(prog=f"nox -s test-{cell} --", description=f"Verify the images of {cell}.", epilog="Other options go to pytest.")
    parser.add_argument("--flavour", action="append", default=[], help="verify this flavour; more than once for more (default: all)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--image", metavar="REF", help="verify this image: any name or digest that the engine has")
    where.add_argument("--hosts", metavar="URI", help="verify a machine that is not a container: local:// or ssh://USER@HOST")
    parser.add_argument("--gpu", choices=("auto", "required", "none"), default="auto", help="tests that need a GPU (default: run if there is one)")
    parser.add_argument("--results", metavar="DIRECTORY", type=Path, default=matrix.ROOT / "results", help="where evidence goes (default: results)")
    quick = "what each image is; what it does, on one all-in-one (default: full, which alone counts for releases)"
    parser.add_argument("--scope", choices=("quick", "full"), default="full", help=quick)
    parser.add_argument("--again", action="store_true", help="run the tests though the same ones have passed on the same image")
    options, rest = parser.parse_known_args(words)
    fields = vars(options) | {"flavour": tuple(options.flavour), "results": options.results.absolute(), "rest": tuple(rest)}
    python = prepare()
    with guarded():
        _verbs().verify(cell, python, VerifyOptions(**fields))


def tier_options(name: str, words: Sequence[str], cells: Sequence[str]) -> argparse.Namespace:
    """Return what is asked of a tier of tests: ``cells``, ``again`` and ``record``; ``words`` are the options that ``nox -s NAME -- --help`` lists."""
    parser = argparse.ArgumentParser(prog=f"nox -s {name} --", description="Run a tier of tests: see CONTRIBUTING.md.")
    parser.add_argument("--cells", type=_some_of(cells), default=list(cells), help=f"only these of {', '.join(cells)}, for a small disk (default: all)")
    parser.add_argument("--again", action="store_true", help="test images though they have passed the same tests before")
    parser.add_argument("--record", action="store_true", help=f"keep the CPU times in {COSTS.relative_to(matrix.ROOT)}")
    return parser.parse_args(words)


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what reads a list with commas, of words that are known."""

    def read(text: str) -> list[str]:
        words = text.split(",")
        if unknown := sorted(set(words) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return words

    return read


def cpu_time(parts: Sequence[SessionCost], words: Sequence[str]) -> None:
    """Print what the sessions of a tier have cost, and record it if asked; ``words`` are its name and perhaps ``--record``."""
    sys.stdout.write("\n".join(cputime.lines(parts)) + "\n")
    sys.stdout.write(f"core-seconds: CPU time of the whole machine, {os.cpu_count()} cores, containers and others' work included\n")
    if "--record" in words:
        cputime.record(COSTS, words[0], parts)


def plan(globs: Sequence[str], *, as_json: bool) -> None:
    """Print what a build of the cells that match would reuse and make."""
    with guarded():
        _verbs().plan(globs, as_json=as_json)


def lock_cells(words: Sequence[str]) -> None:
    """Lock the wheels of cells; ``words`` are what ``nox -s lock -- --help`` lists."""
    parser = argparse.ArgumentParser(prog="nox -s lock --", description="Lock the wheels of cells.", epilog="All other locks: inv lock --help.")
    parser.add_argument("cells", nargs="*", metavar="CELL", help="cell ids or globs (default: all)")
    lock(parser.parse_args(words).cells)


LockKind = Literal["wheels", "os", "toolchain", "tool", "check"]


def lock(globs: Sequence[str], kind: LockKind = "wheels", exclude_newer: str | None = None) -> None:
    """Write the locks of the cells that match, of their OSes, of the toolchains, or of this tool; or check all of them offline."""
    with guarded():
        verbs = _verbs()
        if kind == "check":
            verbs.check_locks()
        elif kind == "os":
            verbs.lock_systems(globs)
        elif kind == "toolchain":
            verbs.lock_toolchains(exclude_newer)
        elif kind == "tool":
            verbs.lock_tool(exclude_newer)
        else:
            verbs.lock(globs, exclude_newer)


def cache(*, prune: bool, older_than: float | None, max_gb: float | None) -> None:
    """Print what the content store holds, or remove what was not used for ``older_than`` days or exceeds ``max_gb`` GB."""
    with guarded():
        _verbs().cache(prune=prune, older_than=older_than, max_gb=max_gb)


def sizes(globs: Sequence[str], *, write: bool) -> None:
    """Print what the images of the cells that match weigh, or take it as what they weigh."""
    with guarded():
        _verbs().weigh(globs, write=write)


def key(prefix: str) -> None:
    """Make a pair of keys to sign with."""
    with guarded():
        _publishing().make_key(Path(prefix))


def attest(reference: str, key: str | None) -> None:
    """Attach the result of its tests to an image that is in a registry, signed."""
    with guarded():
        _publishing().attest(reference, key)


def verify_release(reference: str, key: str | None, identity: str | None, issuer: str | None) -> None:
    """Check everything that is signed about an image in a registry."""
    with guarded():
        _publishing().verify_release(reference, key, identity, issuer)


def _publishing() -> ModuleType:
    """Import the verbs around signatures, with all their libraries."""
    _hush()
    from torchstrata.commands import signatures  # noqa: PLC0415  # see the module's docstring

    return signatures


def engine() -> None:
    """Make an engine available, and say what was done."""
    with guarded():
        _verbs().engine()


def _releasing() -> ModuleType:
    """Import the verbs of releases, with all their libraries."""
    _hush()
    from torchstrata.commands import release  # noqa: PLC0415  # see the module's docstring

    return release


def promote(globs: Sequence[str], channel: str, options: ReleaseOptions, *, origin: str | None = None, no_soak: str = "") -> None:
    """Show what would move into a channel, or move it."""
    with guarded():
        _releasing().promote(globs, channel, origin, no_soak, options)


def rollback(globs: Sequence[str], channel: str, options: ReleaseOptions, *, to: int | None, why: str) -> None:
    """Show what a channel would go back to, or move it."""
    with guarded():
        _releasing().rollback(globs, channel, to, why, options)


def release_log(globs: Sequence[str], channel: str | None, options: ReleaseOptions, *, from_registry: bool) -> None:
    """Print the ledger, or the registry's copy of it."""
    with guarded():
        _releasing().log(globs, channel, options, from_registry=from_registry)


def repair(options: ReleaseOptions, entries: int | None = None) -> None:
    """Move tags to what the ledger says; have a branch of so many entries signed as it is."""
    with guarded():
        _releasing().repair(options, entries)


def release_diff(old: str, new: str, options: ReleaseOptions, *, as_markdown: bool) -> None:
    """Print what differs between two images in a registry."""
    with guarded():
        _releasing().diff(old, new, options, as_markdown=as_markdown)


def _night() -> ModuleType:
    """Import the verbs of the night, with all their libraries."""
    _hush()
    from torchstrata.commands import nightly  # noqa: PLC0415  # see the module's docstring

    return nightly


def step(word: str) -> Step:
    """Return the step of a nightly run that ``word`` names.

    :raises SystemExit: it names none.
    """
    for known in get_args(Step):
        if word == known:
            return cast("Step", known)
    with guarded():
        raise errors.NightlyError(f"a nightly run has no step {word!r}", fix=f"use one of {', '.join(get_args(Step))}")


def nightly(globs: Sequence[str], options: NightlyOptions) -> None:
    """Look what is new since yesterday, and do what follows from it."""
    with guarded():
        _night().run(globs, options)


def try_systems(globs: Sequence[str], *, only_lock: bool) -> None:
    """Lock, build and verify a cell of each OS that nobody has verified."""
    with guarded():
        _hush()
        from torchstrata.commands import trial  # noqa: PLC0415  # see the module's docstring

        trial.run(globs, only_lock=only_lock)


def watchdog(options: ReleaseOptions) -> None:
    """Fail if something is wrong with a channel."""
    with guarded():
        _night().watch(options)


def prune(options: PruneOptions) -> None:
    """Show what may go from the registry, or delete it."""
    with guarded():
        _hush()
        from torchstrata.commands import housekeeping  # noqa: PLC0415  # see the module's docstring

        housekeeping.prune(options)


def mirror(word: str, options: MirrorOptions) -> None:
    """Copy images with all that belongs to them to another registry or to a directory."""
    with guarded():
        _hush()
        from torchstrata.commands import mirror  # noqa: PLC0415  # see the module's docstring

        mirror.mirror(word, options)
