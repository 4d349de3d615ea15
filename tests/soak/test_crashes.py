"""Promotions, rollbacks and pushes beside a machine that is busy twice over, again and again: none dies of a signal.

Every other run takes turns among its threads as often as Python can, so that what goes wrong only where a thread is
interrupted at the wrong moment goes wrong soon.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests import programs, registries
from tests.registries import Authority
from tests.signed import SigningTeam, push
from torchstrata.attestations import signing
from torchstrata.attestations.remote import VARIABLE
from torchstrata.matrix.matrix import ROOT

INTERVALS: Final = (5e-3, 1e-5)
"""Seconds after which a thread is asked to let another one run: Python's own, and hardly any."""

PREPARE: Final = "import faulthandler, sys; faulthandler.enable(); sys.setswitchinterval({interval}); "
INVOKE: Final = "sys.argv[0] = 'inv'; from invoke.main import program; program.run()"
PUSH: Final = "import runpy; sys.path.insert(0, '.'); runpy.run_module('tests.soak.push', run_name='__main__')"

CHANNEL: Final = ("2.13-cpu", "--channel", "nightly")


@dataclass
class Stress:
    """Runs verbs for a team, each in a process of its own.

    :param work: a directory for pushes.
    :param count: how many it has run.
    """

    team: SigningTeam
    work: Path
    count: int = 0

    def inv(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the ledger."""
        keys = {signing.KEY: str(self.team.key), signing.PUBLIC_KEY: str(self.team.key.with_suffix(".pub"))}
        return self._run(INVOKE, *words, "--ledger", f"{self.team.ledger}#ledger", "--yes", **keys)

    def promote(self) -> subprocess.CompletedProcess[str]:
        """Take what was pushed last into the channel."""
        return self.inv("release.promote", *CHANNEL, "--no-soak", "again")

    def rollback(self) -> subprocess.CompletedProcess[str]:
        """Let the channel go back, so that there is something to promote."""
        return self.inv("release.rollback", *CHANNEL, "--why", "again")

    def push(self) -> subprocess.CompletedProcess[str]:
        """Push images, and find their parts."""
        return self._run(PUSH, self.team.host, str(self.work / f"{self.count}"), f"{self.count}")

    def _run(self, code: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        self.count += 1
        script = PREPARE.format(interval=INTERVALS[self.count % 2]) + code
        env = {**os.environ, VARIABLE: f"{self.team.host}/team", **more}
        return subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep every core busy twice over, below what is tested, until the block ends."""
    burning = [subprocess.Popen(["nice", "-n", "5", sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=["http", "https"])
def stress(request, tmp_path_factory) -> Iterator[Stress]:
    """Give a team with a registry, with TLS or without, whose channel has moved twice."""
    with programs.alone(tmp_path_factory, "") as patch:
        work = tmp_path_factory.mktemp(request.param)
        for name in ("authority", "registry", "pushed"):
            (work / name).mkdir()
        authority = Authority.make(work / "authority") if request.param == "https" else None
        if authority:
            patch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        with registries.registry(work / "registry", authority=authority) as served:
            ready = Stress(SigningTeam.at(served.host, work), work / "pushed")
            for mark in (1, 2):
                push(ready.team, mark)
                _well(ready.promote())
            yield ready


def _well(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, f"status {ended.returncode}\n{ended.stderr}\n{ended.stdout}"


VERBS: Final[dict[str, tuple[Callable[[Stress], subprocess.CompletedProcess[str]], ...]]] = {
    "rollback and promote": (Stress.rollback, Stress.promote),
    "push": (Stress.push,),
}


@pytest.mark.parametrize("verbs", VERBS)
def test_no_run_dies(stress, request, verbs):
    """All of them end well; the traceback of all threads of one that dies is shown."""
    rounds, seconds = request.config.option.rounds, request.config.option.seconds
    before, end = stress.count, time.monotonic() + (seconds or float("inf"))
    with busy():
        for verb in VERBS[verbs] * rounds:
            if time.monotonic() < end:
                _well(verb(stress))
    print(f"{stress.count - before} of {rounds * len(VERBS[verbs])} runs: {verbs}, {stress.team.host}")
    assert stress.count > before
