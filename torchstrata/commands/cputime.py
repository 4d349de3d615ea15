"""CPU time of the whole machine, containers and engine included: what a part of a run costs, wherever it runs."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
IDLE: Final = (3, 4)
"""Fields of a line of :data:`STAT` in which no program of this machine works: idle, and waiting for a disk."""
COUNTED: Final = 7
"""Fields that count: later ones are time that another machine took, or that of guests, which ``user`` has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionCost:
    """What one session has cost.

    :param core_seconds: CPU time of the whole machine meanwhile; ``None`` where the system does not tell.
    :param seconds: that it took.
    """

    name: str
    core_seconds: float | None
    seconds: float
    failed: bool


def busy(stat: Path = STAT) -> float | None:
    """Return the seconds that all cores worked since the machine started, ``None`` where the system does not tell."""
    try:
        line = stat.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None  # not Linux
    fields = [int(word) for word in line.split()[1 : COUNTED + 1]]
    return sum(ticks for field, ticks in enumerate(fields) if field not in IDLE) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures parts that follow each other, each from the end of the one before, the first from the beginning."""

    def __init__(self) -> None:
        self.parts: list[SessionCost] = []
        self._busy, self._time = busy(), time.monotonic()

    def lap(self, name: str, *, failed: bool) -> SessionCost:
        """End a part and return what it has cost."""
        now, seconds = busy(), time.monotonic()
        cost = None if now is None or self._busy is None else round(now - self._busy, 1)
        self.parts.append(SessionCost(name=name, core_seconds=cost, seconds=round(seconds - self._time, 1), failed=failed))
        self._busy, self._time = now, seconds
        return self.parts[-1]


def total(parts: Sequence[SessionCost]) -> float | None:
    """Return the core-seconds of all parts together, ``None`` where the system does not tell."""
    seconds = [part.core_seconds for part in parts if part.core_seconds is not None]
    return round(sum(seconds), 1) if seconds else None


def lines(parts: Sequence[SessionCost]) -> list[str]:
    """Return a table as lines of text: a row for each part, and their sum."""
    rows = [("part", "core-seconds", "seconds"), *((part.name, _shown(part.core_seconds), f"{part.seconds:.0f}") for part in parts)]
    rows.append(("together", _shown(total(parts)), f"{sum(part.seconds for part in parts):.0f}"))
    width = max(len(name) for name, _, _ in rows)
    return [f"{name:{width}}  {cores:>12}  {seconds:>7}" for name, cores, seconds in rows]


def record(path: Path, tier: str, parts: Sequence[SessionCost]) -> None:
    """Write what a tier has cost into the file of all tiers, in the place of what it cost before."""
    tiers = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"}
    rows = {part.name: {"core_seconds": part.core_seconds, "seconds": part.seconds, "failed": part.failed} for part in parts}
    tiers[tier] = about | {"core_seconds": total(parts), "seconds": round(sum(part.seconds for part in parts), 1), "parts": rows}
    path.write_text(json.dumps(tiers, indent=2) + "\n", encoding="utf-8")


def _shown(core_seconds: float | None) -> str:
    return "unknown" if core_seconds is None else f"{core_seconds:.0f}"
