"""Fuzz every reader for some time: ``python -m tests.soak.fuzzing [--seconds S] [--seed N] [NAME ...]``.

Anything but an error of ours, more than 10 s for an input and more than 500 MB are findings: the input is kept, and a command that
reads it again is printed. Each target runs in a process of its own.
"""

from __future__ import annotations

import faulthandler
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.soak.fuzzing.targets import TARGETS
from torchstrata import arguments

FOUND: Final = Path("results/fuzzing")
"""Where inputs are kept that a reader stumbled over; git ignores it."""

GRACE: Final = 300
"""Seconds that a process gets beyond its time: to begin, to instrument what it imports, and to end."""

DONE: Final = re.compile(r"Done (\d+) runs in (\d+) second|stat::number_of_executed_units: +(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How the fuzzing of a target ended.

    :param inputs: files that it stumbled over.
    :param tail: the end of what the process said.
    """

    name: str
    runs: int
    status: int
    inputs: tuple[Path, ...]
    tail: str


def fuzz(name: str, seconds: int, seed: int, found: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.glob(f"{name}-*"))
    with tempfile.TemporaryDirectory() as corpus:
        words = (sys.executable, "-m", "tests.soak.fuzzing.one", name, str(seconds), str(seed), corpus, str(found))
        try:
            ended = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=seconds + GRACE, check=False)
            status, said = ended.returncode, ended.stdout + ended.stderr
        except subprocess.TimeoutExpired as late:
            status, said = -1, f"{late}"
    runs = max((int(match[1] or match[3]) for match in DONE.finditer(said)), default=0)
    inputs = tuple(sorted(path for path in set(found.glob(f"{name}-*")) - before if "slow-unit" not in path.name))
    return Outcome(name=name, runs=runs, status=status, inputs=inputs, tail="\n".join(said.splitlines()[-40:]))


def report(outcome: Outcome, seconds: int, seed: int) -> bool:
    """Print how a target went; return whether nothing was found."""
    good = outcome.status == 0 and outcome.runs > 0 and not outcome.inputs
    print(f"{outcome.name:20} {outcome.runs:9} inputs {seconds:5} s  seed {seed}  {'nothing found' if good else 'FOUND'}", flush=True)
    if not good:
        print(outcome.tail)
    for path in outcome.inputs:
        print(f"  again: {sys.executable} -m tests.soak.fuzzing --again {outcome.name} {path}", flush=True)
    return good


def again(name: str, path: Path) -> None:
    """Read one input again; a traceback is the finding, and after 10 s that of where it hangs."""
    faulthandler.dump_traceback_later(10, exit=True, file=sys.__stderr__)
    try:
        print("accepted" if TARGETS[name].accepts(path.read_bytes()) else "refused")
    finally:
        faulthandler.cancel_dump_traceback_later()


def main(words: Sequence[str]) -> int:
    """Fuzz; return the exit status."""
    parser = arguments.Parser(prog="nox -s fuzz --", description="Feed readers of what comes from outside.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"targets (default: all): {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31), help="a number from 1 on (default: any)")
    parser.add_argument("--found", type=Path, default=FOUND, help=f"where to keep what is found (default: {FOUND})")
    parser.add_argument("--again", nargs=2, metavar=("NAME", "FILE"), help="read one input that was kept")
    options = parser.parse_args(words)
    if options.again:
        again(options.again[0], Path(options.again[1]))
        return 0
    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = options.names or list(TARGETS)
    good = [report(fuzz(name, options.seconds, options.seed, options.found), options.seconds, options.seed) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
