"""Verification of images: each runs the tests of its flavour and of all that this contains, in a pytest of its own."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker.errors
import requests
from rich.table import Table

from torchstrata import platforms, process, progress
from torchstrata.building import engine as engines
from torchstrata.building.engine import Engine
from torchstrata.errors import ContainerError, EngineLostError, EvidenceError, VerificationError
from torchstrata.host import docker_config, emulator
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell
from torchstrata.verification import evidence, leftovers, required, reuse, scope, subject
from torchstrata.verification.evidence import Evidence
from torchstrata.verification.request import VerifyOptions
from torchstrata.verification.subject import Claim, Subject

PLUGIN: Final = "tests.images.plugin"
"""What tests of images share, wherever they lie."""

WORKERS: Final = ("--dist=loadscope", "--no-loadscope-reorder")
MANY_TESTS: Final = 100
"""Tests from which on four modules run at a time, since most wait for containers; else two: each starts with 2 s."""

PASSED: Final = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One image to verify, or one machine.

    :param name: for people.
    :param flavour: ``None`` if the machine says it.
    :param where: options of pytest that lead there.
    :param subject: ``None`` for a machine, which the tests themselves look at.
    """

    name: str
    flavour: str | None
    where: tuple[str, ...]
    subject: Subject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How the verification of a target ended.

    :param status: of pytest.
    :param evidence: ``None`` if it wrote none.
    :param seconds: that it took.
    :param is_known: it had been verified before, and nothing ran.
    """

    target: Target
    status: int
    evidence: Evidence | None
    seconds: float
    is_known: bool = False

    @property
    def why(self) -> str:
        """In one line, why the target failed."""
        if self.evidence and self.evidence.problems:
            more = len(self.evidence.problems) - 1
            return self.evidence.problems[0] + (f" (and {more} more)" if more else "")
        return f"pytest ended with status {self.status}"


def run(cell: Cell, python: Path, options: VerifyOptions) -> None:
    """Verify images of ``cell`` and show what came out.

    :param python: an interpreter that has what the tests need.
    :raises NoImageError, ContainerError, NoGpuError, MatrixError: nothing can be verified or started; no test ran.
    :raises EmulatorError, AptError: programs of its platform cannot run here, nor could that be changed; no test ran.
    :raises EngineLostError: the engine died meanwhile.
    :raises VerificationError: something failed, was left out or was missing.
    """
    with _engine(options) as engine:
        verdicts = []
        for target in _targets(cell, options, engine):
            known = _known(target, options)
            progress.say(f"== {target.name}{_by_whom(known)}")
            verdicts.append(known or _verify(cell, target, python, options))
            if verdicts[-1].status == EngineLostError.code:
                raise EngineLostError(
                    f"the engine died while {target.name} was tested", fix="start it and verify again: that removes containers that were left"
                )
    progress.say(table(verdicts))
    failed = [verdict for verdict in verdicts if verdict.status != PASSED]
    if failed:
        names = ", ".join(verdict.target.name for verdict in failed)
        raise VerificationError(f"not verified: {names}: {failed[0].why}", fix=f"read {evidence.folder(options.results, cell.name, '*')}/report.html")


def _check_start(cell: Cell, engine: Engine, targets: Iterable[Target]) -> None:
    """Check that all start, where an emulator can be had by it, and say before tests that take hours there what is known of it."""
    for target in targets:
        try:
            subject.check_start(engine, target.name)
        except ContainerError:
            if platforms.is_native(cell.platform) or not engine.is_local:
                raise
            emulator.ensure(cell.platform, progress.say)
            subject.check_start(engine, target.name)
    if engine.is_local and (concern := emulator.concern(cell.platform)):
        progress.say(concern)


@contextlib.contextmanager
def _engine(options: VerifyOptions) -> Iterator[Engine | None]:
    """Give the engine, where one is needed, and leave no container in it."""
    if options.hosts:
        yield None
        return
    engine = engines.connect()
    engine.ask(leftovers.sweep)
    try:
        yield engine
    finally:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):  # it died; the next verification sweeps
            leftovers.sweep(engine.client, own=True)


def _targets(cell: Cell, options: VerifyOptions, engine: Engine | None) -> tuple[Target, ...]:
    """Return what is to be verified, after a look at all of it, so that a missing one shows before the first runs."""
    if engine is None:
        flavour = options.flavour[0] if options.flavour else None
        return (Target(name=str(options.hosts), flavour=flavour, where=("--hosts", str(options.hosts))),)
    table = matrix.load()
    flavours = options.flavour or tuple(table.flavours)
    table.check(flavours)
    if options.image:
        names = {options.image: options.flavour[0] if options.flavour else None}
    else:
        end = platforms.suffix(cell.platform)
        names = {f"{table.name}:{cell.names[0]}-{flavour}{end}": flavour for flavour in flavours}
    targets = tuple(_target(engine, cell, name, flavour, options) for name, flavour in names.items())
    _check_start(cell, engine, targets)
    return targets


def _target(engine: Engine, cell: Cell, name: str, flavour: str | None, options: VerifyOptions) -> Target:
    examined = subject.examine(engine, name, Claim(cell=cell.id, flavour=flavour), options.gpu)
    return Target(name=name, flavour=examined.flavour, where=("--image", name), subject=examined)


def _known(target: Target, options: VerifyOptions) -> Verdict | None:
    """Return the verdict on an image that has passed the same tests before, ``None`` if they must run."""
    if options.again or options.rest or target.subject is None:
        return None
    evidence_found = reuse.find(target.subject, options.scope, options.results)
    return Verdict(target=target, status=PASSED, evidence=evidence_found, seconds=0, is_known=True) if evidence_found else None


def _by_whom(known: Verdict | None) -> str:
    """Return when and where an image was verified."""
    if known is None or known.evidence is None:
        return ""
    host, when = known.evidence.host, known.evidence.finished
    return f": these tests passed on this image at {when}, Linux {host.kernel}, engine {host.engine}; --again runs them again"


def _verify(cell: Cell, target: Target, python: Path, options: VerifyOptions) -> Verdict:
    """Run the tests of one target and read what they wrote."""
    folder = evidence.folder(options.results, cell.name, _folder_name(target), options.scope)
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    arguments = _arguments(cell, target, folder, options)
    status = process.follow(python, "-m", "pytest", *arguments, cwd=ROOT, env=docker_config.environment(), on_line=progress.say)
    return Verdict(target=target, status=status, evidence=_evidence(folder), seconds=time.monotonic() - started)


def _folder_name(target: Target) -> str:
    return target.flavour if target.flavour and "--image" in target.where else "host"


def _arguments(cell: Cell, target: Target, folder: Path, options: VerifyOptions) -> tuple[str, ...]:
    flavour = ("--flavour", target.flavour) if target.flavour else ()
    claim = ("--cell", cell.id, *flavour, "--gpu", options.gpu, "--scope", options.scope)
    reports = ("--results", str(folder), f"--junitxml={folder}/junit.xml", f"--html={folder}/report.html", "--self-contained-html")
    processes = f"--numprocesses={_processes(target, options)}"
    return ("-p", PLUGIN, *required.PLACES, *target.where, *claim, *reports, "-q", "--durations=10", processes, *WORKERS, *options.rest)


def _processes(target: Target, options: VerifyOptions) -> int:
    """Return how many modules run at a time: where programs are emulated, tests compute rather than wait."""
    if target.subject and target.subject.is_emulated:
        return min(4, target.subject.host.cpus)
    return 4 if _count(target, options) > MANY_TESTS else 2


def _count(target: Target, options: VerifyOptions) -> float:
    """Return how many tests a target must pass; of a machine it is not known before they begin."""
    if target.subject is None:
        return math.inf
    return sum(sum(wanted.cases.values()) for wanted in scope.lists(target.subject, options.scope).values())


def _evidence(folder: Path) -> Evidence | None:
    try:
        return evidence.read(folder / evidence.NAME)
    except EvidenceError:
        return None


def table(verdicts: Sequence[Verdict]) -> Table:
    """Return the closing table."""
    view = progress.table("image", "digest", "tests", "failed", "missing", "seconds", "", "OS packages")
    for verdict in verdicts:
        record = verdict.evidence
        counts = (record.counts.passed + record.counts.failed, record.counts.failed, record.counts.missing) if record else ("", "", "")
        digest = record.image.digest[7:19] if record and record.image else ""
        view.add_row(verdict.target.name, digest, *map(str, counts), f"{verdict.seconds:.0f}", _word(verdict), record.state if record else "")
    return view


def _word(verdict: Verdict) -> str:
    if verdict.status != PASSED or verdict.evidence is None:
        return "failed"
    if verdict.evidence.image is None:
        return "passed"  # a machine: there is no image that this would prove anything of
    word = "verified" if verdict.evidence.passed else "passed (quick)" if verdict.evidence.holds else "incomplete"
    return f"{word} {verdict.evidence.finished[:16].replace('T', ' ')}" if verdict.is_known else word
