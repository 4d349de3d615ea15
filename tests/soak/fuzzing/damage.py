"""Changes to inputs, as faults and people make them."""

from __future__ import annotations

import random
from typing import Final

LONGEST: Final = 1 << 16

ODD: Final = (b"\0", b"\xff" * 4, b"..", b"/", b"%(a)s", b"\x1b[2J", "\u202e".encode(), b"\r\n", b'"', b"PK\x01\x02", b"9" * 30, b"-1")
"""What readers stumble over."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to four changes: bits flipped, parts lost, doubled or overwritten, odd ones put in."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(found) + 1)
        end = min(len(found), start + rng.choice((0, 1, 2, 4, 16, 256)))
        match rng.randrange(5):
            case 0 if found:
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:end] = rng.randbytes(end - start)
            case _:
                found[start:start] = rng.choice(ODD)
    return bytes(found[:LONGEST])
