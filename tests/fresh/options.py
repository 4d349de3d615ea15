"""The options of ``nox -s fresh``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from tests.fresh.cases import CASES, Wishes
from tests.fresh.circumstances import Circumstances
from tests.fresh.given import by_this_host
from tests.fresh.rootfs import SUITES
from torchstrata import arguments
from torchstrata.commands import sessions
from torchstrata.matrix.matrix import ROOT

PLACE: Final = Path(os.environ.get("TMPDIR", "/var/tmp"))
"""Where machines' files lie by default: the system's other temporary directory is often in memory."""

WORKFLOWS: Final = sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml"))

FAKES_TIME: Final = "debian13"
"""In libfaketime 0.9.10 of Debian 12, a sleep until a moment of the monotonic clock is refused or has no end."""


def parse(words: list[str]) -> argparse.Namespace:
    """Return what ``words`` ask for; end the program with its usage if they cannot be understood."""
    parser = arguments.Parser(prog="nox -s fresh --", description="Run README's commands on machines that nobody prepared.")
    _add_machines(parser.add_argument_group("machines"))
    _add_lines(parser.add_argument_group("what is typed"))
    _add_circumstances(parser.add_argument_group("what they meet"))
    parser.add_argument("--or-here", action="store_true", help="where no machine can be made, use this one")
    parser.add_argument("--verbose", action="store_true", help="show all that the commands print")
    options = parser.parse_args(words)
    sessions.check_sessions([f"build-{cell}" for cell in options.cells], "")
    if options.year_ahead and set(options.on) != {FAKES_TIME}:
        parser.error(f"--year-ahead: only with --on {FAKES_TIME}; under the libfaketime of others Python cannot sleep")
    return options


def wishes(options: argparse.Namespace) -> Wishes:
    """Return what is to be typed."""
    return Wishes(
        cells=options.cells,
        only_first=options.first,
        seeded=options.store is not None,
        workflow=options.workflow,
        readme=options.readme,
        then=tuple(options.then),
    )


def circumstances(options: argparse.Namespace) -> Circumstances:
    """Return what machines meet."""
    return Circumstances(
        given=by_this_host(),
        directory=options.directory,
        cold=options.cold,
        store=options.store,
        apt_locked=options.apt_locked,
        dropped=options.drop,
        snapshots=options.snapshots,
        year_ahead=options.year_ahead,
    )


def _add_machines(group: argparse._ArgumentGroup) -> None:
    cases, systems = ", ".join(CASES), ", ".join(SUITES)
    group.add_argument("--as", dest="as_", type=_among(CASES), default=("root",), metavar="USERS", help=cases)
    group.add_argument("--on", type=_among(SUITES), default=("debian12",), metavar="SYSTEMS", help=systems)
    group.add_argument("--repeat", type=_at_least_one, default=1, metavar="N", help="so many of each, one after the other")
    group.add_argument("--cold", action="store_true", help="bootstrap root file systems though one of today is kept")
    group.add_argument("--store", type=_directory, metavar="DIR", help="a content store whose layers of wheels they have")
    group.add_argument("--in", dest="directory", type=_directory, default=PLACE, metavar="DIR", help="where their files lie")


def _add_lines(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cells", type=_words, default=(), help="cells that the first command builds, not README's")
    group.add_argument("--first", action="store_true", help="leave README's second command out")
    group.add_argument("--workflow", choices=WORKFLOWS, metavar="NAME", help="the steps of a workflow, as a runner does by itself")
    group.add_argument("--readme", action="store_true", help="README's commands, as a runner too")
    group.add_argument("--then", action="append", default=[], metavar="LINE", help="one more line; more than once for more")


def _add_circumstances(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--apt-locked", type=int, default=0, metavar="SECONDS", help="others hold apt's locks so long")
    group.add_argument("--drop", type=_words, default=(), metavar="PACKAGES", help="the mirror has only newer versions")
    group.add_argument("--snapshots", action="store_true", help="a snapshot archive has the older ones")
    group.add_argument("--year-ahead", action="store_true", help="clocks of programs are a year ahead")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 on")
    return int(text)


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such directory")
    return Path(text)


def _among(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return what reads an option that names some of ``known``."""

    def chosen(text: str) -> tuple[str, ...]:
        if unknown := sorted(set(_words(text)) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return _words(text)

    return chosen
