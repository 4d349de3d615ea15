"""What the allocator keeps."""

from __future__ import annotations

import subprocess
import sys

CHURN = """
import sys, threading
from pathlib import Path
from torchstrata import memory

if sys.argv[1] == "bounded" and not memory.bound():
    sys.exit("this C library takes no settings")

def churn():
    for size in range(1, 12):
        kept = [bytearray(size << 17) for _ in range(4)]
        del kept

threads = [threading.Thread(target=churn) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")))
"""


def resident(how):
    """Return the kilobytes that a process keeps after many threads have let their buffers go."""
    return int(subprocess.run([sys.executable, "-c", CHURN, how], capture_output=True, text=True, check=True).stdout)


def test_large_buffers_are_given_back():
    """Once bounded, a process does not keep what two dozen threads have freed."""
    assert resident("bounded") < resident("free")
