"""CPU time of the machine: what counts, and parts of a run."""

from __future__ import annotations

import json
import os

from torchstrata.commands import cputime
from torchstrata.commands.cputime import Meter, SessionCost

STAT = "cpu  100 20 30 4000 500 6 7 80 90 10\ncpu0 1 2 3 4\n"
"""User, nice, system, idle, iowait, irq, softirq, steal, guest, guest nice."""


def test_what_programs_took_counts(tmp_path):
    """Idle time, waits for disks, other machines' time and that of guests, which is in ``user``, do not."""
    (tmp_path / "stat").write_text(STAT)
    assert cputime.busy(tmp_path / "stat") == (100 + 20 + 30 + 6 + 7) / os.sysconf("SC_CLK_TCK")


def test_a_system_that_does_not_tell(tmp_path):
    """Outside Linux there is no such file."""
    assert cputime.busy(tmp_path / "none") is None


def test_a_part_costs_what_it_computes():
    """The work of this process is part of the machine's."""
    meter, before = Meter(), os.times()
    while os.times().user - before.user < 0.3:
        sum(range(10_000))
    part = meter.lap("computing", failed=False)
    assert part.core_seconds is not None
    assert part.core_seconds >= 0.25
    assert meter.parts == [part]


def test_parts_as_a_table():
    """A row for each, and their sum."""
    parts = [SessionCost(name="lint", core_seconds=20.4, seconds=15.0, failed=False), SessionCost(name="unit", core_seconds=60.1, seconds=41.0, failed=True)]
    assert [line.split() for line in cputime.lines(parts)] == [
        ["part", "core-seconds", "seconds"],
        ["lint", "20", "15"],
        ["unit", "60", "41"],
        ["together", "80", "56"],
    ]


def test_costs_are_kept_by_tier(tmp_path):
    """A tier's figures replace those that it had, and leave the others alone."""
    path = tmp_path / "tests.json"
    for tier, cost in (("tests", 900.0), ("soak", 9000.0), ("tests", 800.0)):
        cputime.record(path, tier, [SessionCost(name="lint", core_seconds=cost, seconds=15.0, failed=False)])
    kept = json.loads(path.read_text())
    assert {tier: each["core_seconds"] for tier, each in kept.items()} == {"tests": 800.0, "soak": 9000.0}
    assert kept["tests"]["parts"] == {"lint": {"core_seconds": 800.0, "seconds": 15.0, "failed": False}}


def test_a_sum_of_what_nobody_knows():
    """It is unknown, not nothing."""
    parts = [SessionCost(name="lint", core_seconds=None, seconds=15.0, failed=False)]
    assert cputime.total(parts) is None
    assert cputime.lines(parts)[-1].split() == ["together", "unknown", "15"]
