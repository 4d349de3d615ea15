"""Turns what pytest reports into evidence, and holds it against the lists of required tests."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_metadata.plugin import metadata_key

from torchstrata.errors import EngineLostError
from torchstrata.image import source
from torchstrata.locks import os_locks
from torchstrata.matrix.matrix import ROOT
from torchstrata.verification import evidence, required, reuse, scope
from torchstrata.verification.evidence import Case, Counts, Evidence
from torchstrata.verification.subject import Subject


class Recorder:
    """What one run does, as the process sees it that reports.

    :param is_alive: tells whether the engine answers.
    """

    def __init__(self, config: pytest.Config, subject: Subject, is_alive: Callable[[], bool]) -> None:
        self.config, self.subject, self.expected, self.is_alive = config, subject, subject.expected, is_alive
        self.started, self.revision = _now(), source.state(ROOT)
        self.lists, self.tests_digest = scope.lists(subject, config.option.scope), reuse.tests_digest(self.expected)
        self.cases: dict[str, Case] = {}
        self.problems: tuple[str, ...] = ()
        config.stash[metadata_key] = self._metadata() | config.stash[metadata_key]

    def _metadata(self) -> dict[str, str]:
        """Return what the HTML report shows above the tests."""
        shown = {"Cell": self.expected.cell.id, "Flavour": self.expected.flavour, "Tiers": " ".join(self.lists)}
        shown |= {"OS packages": os_locks.state(self.expected.drift, len(self.expected.drift))}
        if self.subject.image:
            shown |= {"Image": self.subject.image.reference, "Digest": self.subject.image.digest}
        shown |= {"Kernel": self.subject.host.kernel, "Engine": self.subject.host.engine or "none", "CPUs": str(self.subject.host.cpus)}
        return shown | {"GPU": f"{self.subject.gpu.count} x {self.subject.gpu.name}, driver {self.subject.gpu.driver}" if self.subject.gpu else "none"}

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report) -> None:
        """Let the HTML report say what it is about."""
        report.title = f"{self.expected.cell.id} {self.expected.flavour}"

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of a test's phases; end the run when the engine has died."""
        known = self.cases.get(report.nodeid)
        outcome = _outcome(report)
        if known and known.outcome != "passed":
            outcome = known.outcome
        properties = dict(report.user_properties)
        self.cases[report.nodeid] = Case(
            id=report.nodeid,
            tier=properties["tier"],
            section=properties["section"],
            outcome=outcome,
            seconds=round(report.duration + (known.seconds if known else 0), 3),
        )
        if report.failed and not self.is_alive():
            pytest.exit("the engine has died", returncode=EngineLostError.code)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write what there is to write, and fail the run for what pytest does not mind."""
        tests = tuple(self.cases[name] for name in sorted(self.cases))
        if exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
            return
        self.problems = self._against(tests)
        if self.problems and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.config.option.results:
            evidence.write(self._evidence(tests), Path(self.config.option.results))

    def _against(self, tests: tuple[Case, ...]) -> tuple[str, ...]:
        """Return what stands against the image; a run of chosen tests says nothing about the others."""
        if self._is_restricted():
            return tuple(required.bad(tests))
        return tuple(line for tier, wanted in self.lists.items() for line in required.problems(wanted, [case for case in tests if case.tier == tier]))

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Name what stands against the image."""
        for line in self.problems:
            terminalreporter.write_line(line, red=True)
        for line in self._not_run():
            terminalreporter.write_line(line)

    def _not_run(self) -> tuple[str, ...]:
        """Name the tests that need more GPUs than there are, and in the full scope those that need a CPU of the image's platform."""
        gpus = self._left_out("gpu", "multigpu", "1 GPU") if self.subject.gpu and self.subject.gpu.count == 1 else ()
        emulated = self._left_out(next(iter(self.lists)), "native", "emulated") if self.subject.is_emulated and self._scope == "full" else ()
        return (*gpus, *emulated)

    def _left_out(self, tier: str, lacking: str, why: str) -> tuple[str, ...]:
        """Name the tests of a tier that only what is ``lacking`` keeps from applying."""
        everything = required.read(tier)
        here = scope.sections(self.subject, everything.sections)
        more = required.sections((*self.expected.lineage, "gpu"), self.subject.applies | {lacking, scope.COSTLY}, everything.sections) - here
        return tuple(f"not run: {why}: {name}" for name in required.names(everything.restrict(lambda key: key[0] in more)))

    @property
    def _scope(self) -> evidence.Scope:
        """Which tests ran."""
        wanted: scope.Scope = self.config.option.scope
        return "chosen" if self._is_restricted() else wanted

    def _is_restricted(self) -> bool:
        """Return whether some tests were left out on purpose."""
        option = self.config.option
        chosen = [Path(argument.partition("::")[0]).resolve() for argument in self.config.args]
        return bool(
            option.keyword
            or option.markexpr
            or option.deselect
            or getattr(option, "lf", False)
            or sorted(chosen) != sorted((ROOT / place).resolve() for place in required.PLACES)
            or "::" in "".join(self.config.args)
        )

    def _evidence(self, tests: tuple[Case, ...]) -> Evidence:
        is_complete = self.subject.image is not None and self._scope == "full"
        good = sum(case.outcome == "passed" for case in tests)
        absent = sum(required.missing(wanted, tests) for wanted in self.lists.values())
        return Evidence(
            format=evidence.FORMAT,
            image=self.subject.image,
            also=self.subject.also,
            drift=tuple(map(str, self.expected.drift)),
            cell=self.expected.cell.id,
            platform=self.expected.cell.platform,
            flavour=self.expected.flavour,
            tiers=tuple(self.lists),
            passed=is_complete and not self.problems and bool(tests),
            complete=is_complete,
            counts=Counts(required=sum(sum(wanted.cases.values()) for wanted in self.lists.values()), passed=good, failed=len(tests) - good, missing=absent),
            required={tier: wanted.digest for tier, wanted in self.lists.items()},
            problems=self.problems,
            not_run=self._not_run(),
            revision=self.revision,
            host=self.subject.host,
            gpu=self.subject.gpu,
            started=self.started,
            finished=_now(),
            tests=tests,
            scope=self._scope,
            tests_digest=self.tests_digest,
        )


def _outcome(report: pytest.TestReport) -> evidence.Outcome:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "skipped" if report.skipped else "passed"


def _now() -> str:
    return dt.datetime.fromtimestamp(time.time(), dt.UTC).isoformat(timespec="seconds")
