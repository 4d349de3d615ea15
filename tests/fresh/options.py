"""The options of ``nox -s fresh``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tests.fresh.cases import CASES
from tests.fresh.circumstances import Circumstances
from tests.fresh.rootfs import SUITES
from torchstrata import arguments
from torchstrata.arguments import option, switch
from torchstrata.commands import sessions
from torchstrata.matrix.matrix import ROOT

WORKFLOWS: Final = sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml"))


@dataclass(frozen=True, kw_only=True)
class FreshOptions(Circumstances):
    """Run README's commands on machines that nobody prepared."""

    as_: tuple[str, ...] = option(f"{', '.join(CASES)} (default: root)", "USERS", ("root",), name="as")
    on: tuple[str, ...] = option(f"{', '.join(SUITES)} (default: debian12)", "SYSTEMS", ("debian12",))
    repeat: int = option("so many of each, one after the other (default: 1)", "N", 1)
    or_here: bool = switch("where no machine can be made, use this one")
    verbose: bool = switch("show all that the commands print")

    def contradiction(self) -> str:
        """Return what was given that does not exist, or does not go with the rest."""
        named: Mapping[str, tuple[Collection[str], Collection[str]]] = {
            "--as": (self.as_, CASES),
            "--on": (self.on, SUITES),
            "--workflow": ([self.workflow] if self.workflow else [], WORKFLOWS),
        }
        for name, (given, known) in named.items():
            if unknown := sorted(set(given) - set(known)):
                return f"argument {name}: {', '.join(unknown)}: choose from {', '.join(known)}"
        for name, directory in {"--store": self.store, "--in": self.directory}.items():
            if directory and not directory.is_dir():
                return f"argument {name}: {directory}: no such directory"
        if not self.repeat:
            return "argument --repeat: a number from 1 on"
        return ""


def parse(words: list[str]) -> FreshOptions:
    """Return what ``words`` ask for; end the program with its usage if they cannot be understood."""
    options = arguments.parse(arguments.parser("nox -s fresh --", FreshOptions), FreshOptions, words)
    sessions.check_sessions([f"build-{cell}" for cell in options.cells], "")
    return options
