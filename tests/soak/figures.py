"""Figures of reliability: a table for people, and where they are kept by date, seed, revision and hardware."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torchstrata.matrix.matrix import ROOT

KEPT: Final = ROOT / "bench" / "results" / "reliability.json"


def hardware() -> str:
    """Return the processor, how many cores of it there are, and the kernel."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, Linux {platform.release()}"


def tell(what: str, seed: int, found: Mapping[str, int | float], *, keep: bool) -> None:
    """Print figures, and keep them if that was asked for."""
    print(f"\n{what}, seed {seed}, {hardware()}")
    print("\n".join(f"  {name:32} {value:g}" for name, value in found.items()))
    if keep:
        known = json.loads(KEPT.read_text()) if KEPT.exists() else []
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        day = dt.datetime.now(dt.UTC).date().isoformat()
        known.append({"what": what, "date": day, "seed": seed, "revision": revision, "hardware": hardware(), "figures": dict(found)})
        KEPT.write_text(json.dumps(known, indent=1) + "\n")
