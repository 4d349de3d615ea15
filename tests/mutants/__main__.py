"""Plant faults in good images and see that the test named for each fails for the right reason, and passes without the fault.

``nox -s mutants -- [WORD ...]`` tries the faults whose description, image or test contains one of the words, all by default;
``python -m tests.mutants --write`` writes the table in ``docs/faults.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET  # reads what pytest has just written

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tests.mutants.faults import DOCUMENT, FAULTS, Fault, document
from torchstrata import arguments, progress
from torchstrata.building import engine as engines
from torchstrata.commands import cli
from torchstrata.errors import NoImageError, SurvivorError
from torchstrata.matrix.matrix import ROOT
from torchstrata.verification import suite

TAG = "torchstrata-mutant"
PATIENCE = 600
"""Seconds for the tests of one image."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a fault.

    :param trouble: why it counts as not caught; empty if it was caught.
    """

    fault: Fault
    trouble: str
    seconds: float


def outcomes(image: str, cell: str, flavour: str, tests: Collection[str]) -> dict[str, str]:
    """Run tests on an image; return what each said when it failed, nothing if it passed. Tests that did not run are missing.

    A test that is named without a case stands for all of its cases.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        options = ["--image", image, "--cell", cell, "--flavour", flavour, f"--junitxml={report}", "-q", "--gpu", "none"]
        command = [sys.executable, "-m", "pytest", "-p", suite.PLUGIN, *options, *map(place, sorted(tests))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return dict.fromkeys(tests, f"not ended after {PATIENCE} s")
        if not report.exists():
            return dict.fromkeys(tests, f"pytest did not run: {done.stdout[-500:]}{done.stderr[-500:]}")
        return reported(ET.parse(report).getroot(), tests)


def place(test: str) -> str:
    """Return where a test lies that is named by its flavour: ``base/test_users.py::test_no_sudo``."""
    flavour, _, name = test.partition("/")
    return f"images/{flavour}/tests/{name}"


def reported(report: ET.Element, tests: Collection[str]) -> dict[str, str]:
    """Return what each test said in a report of pytest; its classes are paths with dots."""
    known = {place(test).partition("::")[0].removesuffix(".py").replace("/", ".") + "::" + test.partition("::")[2]: test for test in tests}
    said: dict[str, str] = {}
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        test = known.get(name) or known[name.partition("[")[0]]
        said[test] = said.get(test, "") + _said(case)
    return said


def _said(case: ET.Element) -> str:
    return "\n".join(f"{part.get('message')}\n{part.text}" for part in case if part.tag in {"failure", "error", "skipped"})


def build(fault: Fault, number: int) -> str:
    """Build the image with the fault; return its name."""
    tag = f"{TAG}:{os.getpid()}-{number}"
    done = subprocess.run(["docker", "build", "-q", "-t", tag, "-"], input=fault.dockerfile, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SurvivorError(f"the fault '{fault.what}' cannot be planted: {done.stderr.strip().splitlines()[-1]}", fix="correct tests/mutants/faults.py")
    return tag


def plant(fault: Fault, number: int, said_before: str | None) -> Verdict:
    """Plant a fault and see what its test says.

    :param said_before: what the test said of the good image; None if it did not run.
    """
    started = time.monotonic()
    image = build(fault, number)
    try:
        said = outcomes(image, fault.cell, fault.flavour, {fault.test}).get(fault.test)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=True)
    return Verdict(fault=fault, trouble=judge(fault, said_before, said), seconds=time.monotonic() - started)


def judge(fault: Fault, before: str | None, said: str | None) -> str:
    """Return why a fault counts as not caught; nothing if it was."""
    if before is None or said is None:
        return "its test did not run"
    if before:
        return f"its test fails on the good image: {_first(before)}"
    if not said:
        return "survived: its test passes"
    return "" if fault.says in said else f"its test fails for another reason: {_first(said)}"


def _first(said: str) -> str:
    return " ".join(said.split())[:300]


def chosen(words: Sequence[str]) -> list[Fault]:
    """Return the faults that contain one of the words; all if there are none.

    :raises SurvivorError: no fault contains one: to try none is not to catch all.
    """
    found = [fault for fault in FAULTS if not words or any(word in f"{fault.what} {fault.image} {fault.test}" for word in words)]
    if not found:
        raise SurvivorError(f"no fault contains {' or '.join(words)}", fix=f"take words from {DOCUMENT.relative_to(ROOT)}")
    return found


def require(images: Collection[str]) -> None:
    """Refuse to plant faults in images that are not there.

    :raises NoImageError: the engine lacks one.
    """
    engine = engines.connect()
    if lacking := sorted(image for image in images if engine.image_id(f"pytorch-cuda:{image}") is None):
        builds = sorted({f"build-{image.rpartition('-')[0]}" for image in lacking})
        raise NoImageError(f"the engine has no pytorch-cuda:{lacking[0]}", fix=f"nox -s {' '.join(builds)}")


def table(verdicts: Sequence[Verdict]) -> Table:
    """Return the closing table."""
    view = Table("fault", "image", Column("test", overflow="fold"), "caught", "seconds", header_style="bold", box=None, pad_edge=False)
    for one in verdicts:
        view.add_row(one.fault.what, one.fault.image, escape(one.fault.test), escape(one.trouble) or "yes", f"{one.seconds:.1f}")
    return view


def run(words: Sequence[str]) -> None:
    """Try the faults and print the table.

    :raises SurvivorError: one was not caught, or there is none to try.
    :raises NoImageError: the engine lacks a good image.
    """
    faults, console = chosen(words), Console(soft_wrap=True, highlight=False)
    require({fault.image for fault in faults})
    before: dict[tuple[str, str], str] = {}
    for image in sorted({fault.image for fault in faults}):
        own = [fault for fault in faults if fault.image == image]
        said = outcomes(f"pytorch-cuda:{image}", own[0].cell, own[0].flavour, {fault.test for fault in own})
        before |= {(image, test): text for test, text in said.items()}
        console.print(f"{image}: {sum(not text for text in said.values())} of {len({fault.test for fault in own})} tests pass on the good image")
    verdicts = []
    for number, fault in enumerate(faults):
        verdicts.append(plant(fault, number, before.get((fault.image, fault.test))))
        console.print(f"{number + 1}/{len(faults)} {fault.what}: {verdicts[-1].trouble or 'caught'} ({verdicts[-1].seconds:.1f} s)")
    progress.plain_console().print(table(verdicts))
    missed = [one.fault.what for one in verdicts if one.trouble]
    if missed:
        raise SurvivorError(f"{len(missed)} of {len(verdicts)} faults were not caught: {'; '.join(missed)}", fix="give the test named for it teeth")
    console.print(f"{len(verdicts)} faults, all caught")


if __name__ == "__main__":
    parser = arguments.Parser(prog="nox -s mutants --", description="Plant faults in images and see that the tests find them.", allow_abbrev=False)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only faults whose description, image or test contains one (default: all)")
    parser.add_argument("--write", action="store_true", help=f"try nothing: write the table in {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.write:
        DOCUMENT.write_text(document(), encoding="utf-8")
    else:
        with cli.guarded():
            run(options.words)
