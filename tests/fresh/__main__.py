"""``nox -s fresh``: README's commands on machines that nobody prepared."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.table import Column, Table

from tests.fresh import cases, machine, options, visiting
from tests.fresh.cases import CASES
from tests.fresh.options import FreshOptions
from tests.fresh.readme import Commands
from tests.fresh.visiting import Visit
from torchstrata import progress
from torchstrata.commands import cli
from torchstrata.errors import CommandError
from torchstrata.host import apt

NEEDED: Final = {
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/slirp4netns": "slirp4netns",
    "/usr/sbin/mkfs.ext4": "e2fsprogs",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
"""What the host must have to make machines, and the packages that bring it."""

COMPILER: Final = {"/usr/bin/cc": "gcc", "/usr/include/time.h": "libc6-dev"}
"""The same for machines with another time of day."""


def main(words: list[str]) -> int:
    """Run what ``words`` ask for; return 0 if every command succeeded, else the status of the first that did not."""
    asked = options.parse(words)
    commands = Commands.here()
    why = machine.trouble() or _lack(asked)
    if why and not asked.or_here:
        fix = "run it as root of a Linux that may make namespaces; or add --or-here"
        raise CommandError(f"no machine can be made here: {why}", fix=fix)
    visits: list[Visit] = []
    try:
        if why:
            print(f"no machine of its own can be made: {why}; README's commands run on this one", flush=True)
            visits.append(visiting.here(commands, asked, verbose=asked.verbose))
        else:
            visiting.check_clonable()
            bring(asked)
            _visit_all(visits, commands, asked)
    finally:
        _show(visits)
    rows = itertools.chain.from_iterable(visit.rows for visit in visits)
    return next((row.status for row in rows if row.status), 0)


def _visit_all(visits: list[Visit], commands: Commands, asked: FreshOptions) -> None:
    """Go to machine after machine, whatever happened at the last one."""
    for number, system, name in itertools.product(range(asked.repeat), asked.on, asked.as_):
        title = f"{system} {name}" + (f" {number + 1}" if asked.repeat > 1 else "")
        visits.append(visit := Visit.begin(title, verbose=asked.verbose))
        steps = list(cases.steps(CASES[name], commands, asked))
        visiting.go(visit, system, CASES[name], steps, asked)


def _lack(asked: FreshOptions) -> str | None:
    """Return what is missing on this host and cannot be brought; None if there is no such thing."""
    missing = _missing(asked)
    return f"{', '.join(missing)} is missing, and so is apt" if missing and not apt.is_here() else None


def _missing(asked: FreshOptions) -> list[str]:
    needed = {**NEEDED, **(COMPILER if asked.year_ahead else {})}
    return [package for file, package in needed.items() if not (Path(file).exists() or shutil.which(Path(file).name))]


def bring(asked: FreshOptions) -> None:
    """Install what makes machines, where it is missing."""
    if missing := _missing(asked):
        apt.install(missing, partial(print, flush=True), unless=lambda: not _missing(asked))


def _show(visits: Sequence[Visit]) -> None:
    """Print what happened where, and last what failed."""
    numbers = (Column(name, justify="right") for name in ("seconds", "of CPU"))
    result = Column("result", overflow="fold")
    view = Table("machine", "step", *numbers, result, header_style="bold", box=None, pad_edge=False)
    for row in itertools.chain.from_iterable(visit.rows for visit in visits):
        view.add_row(row.machine, row.step, f"{row.seconds:.1f}", f"{row.cpu:.1f}", row.result)
    for visit in visits:
        view.add_row(visit.name, "in all", f"{visit.seconds:.1f}", f"{visit.cpu:.1f}", f"log: {visit.log}")
    progress.plain_console().print(view)
    good = sum(not visit.failed for visit in visits)
    print(f"{good} of {len(visits)} machines: all commands succeeded", flush=True)
    for visit in visits:
        if failed := visit.failed:
            last = f"{visit.name}: {failed.step}: {failed.result}"
            print("\n".join([f"--- the end of {visit.log}", *visit.tail, last]), flush=True)


if __name__ == "__main__":
    with cli.guarded():
        sys.exit(main(sys.argv[1:]))
