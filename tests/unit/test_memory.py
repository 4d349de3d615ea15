"""What the allocator keeps."""

from __future__ import annotations

import re
import subprocess
import sys

from torchstrata import memory

CHURN = """
import ctypes, sys, threading
from torchstrata import memory

if not memory.bound():
    sys.exit("this C library takes no settings")
kept = [bytearray(memory.LARGE) for _ in range(3)]
together = threading.Barrier(12)

def churn():
    small = bytearray(memory.LARGE // 2)
    together.wait()

threads = [threading.Thread(target=churn) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library = ctypes.CDLL(None)
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


def test_large_buffers_are_given_back():
    """Many threads share few arenas, and large buffers are mapped one by one, so that each goes back when it is freed (malloc_info(3))."""
    told = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True).stdout
    assert 1 <= told.count("<heap nr=") <= memory.ARENAS
    (mapped,) = re.findall(r'<total type="mmap" count="(\d+)"', told)
    assert int(mapped) >= 3
