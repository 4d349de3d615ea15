"""Whether threads that decode for the first time, all together, survive it: the crash of promotions, as often as it can be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torchstrata.matrix.matrix import ROOT

CHILDREN = """
import os, random, sys, threading, time
from tests import released
from torchstrata import decoding
from torchstrata.verification.evidence import Evidence

document, rounds = released.result("sha256:" + "0" * 64), int(sys.argv[1])
sys.setswitchinterval(float(sys.argv[2]))

def thread():
    together.wait()
    time.sleep(random.uniform(0, 0.005))
    decoding.decode(document, Evidence)

ended = []
for _ in range(rounds):
    child = os.fork()
    if not child:
        together = threading.Barrier(5)
        threads = [threading.Thread(target=thread) for _ in range(5)]
        [each.start() for each in threads]
        [each.join() for each in threads]
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sum(map(bool, ended)))
"""
"""Starts processes, in which nothing was decoded yet, one after the other; prints how many did not end well."""


@pytest.mark.parametrize("interval", [5e-3, 1e-5])
def test_the_first_result_of_tests_is_read_by_five_threads(request, interval):
    """As when a cell is promoted: its images are checked in as many threads."""
    rounds = 30 * request.config.option.rounds
    ended = subprocess.run([sys.executable, "-c", CHILDREN, f"{rounds}", f"{interval}"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "0\n", f"of {rounds} processes died: {ended.stdout}"
