"""CPU and memory limits of the container, from cgroup v2 or v1 (kernel documentation: cgroup-v2.rst, cgroup-v1/memory.rst)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

CGROUP: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")

UNLIMITED: Final = 1 << 60
"""cgroup v1 writes no limit as a number near 2**63."""

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT")
"""Obeyed by OpenMP, MKL, OpenBLAS, numexpr and torch; by ``os.cpu_count()`` from Python 3.13 on."""


class Memory(NamedTuple):
    """Memory of the cgroup in bytes (None: no limit, not known) and how often the kernel killed for it."""

    limit: int | None
    peak: int | None
    kills: int


def cpus(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """Return how many CPUs the container may use at most, or None if only their number limits it."""
    unified = _unified(root, membership) / "cpu.max"
    if unified.exists():
        quota, period, *_ = [*_text(unified).split(), "100000", "100000"]
        return None if not quota.isdigit() else int(quota) / int(period)
    quota_us, period_us = _number(root / "cpu/cpu.cfs_quota_us"), _number(root / "cpu/cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def usable_cpus(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return how many threads can run at once: the limit rounded up, at most what the scheduler grants, at least 1."""
    granted = len(os.sched_getaffinity(0))
    limit = cpus(root, membership)
    return max(1, granted if limit is None else min(granted, math.ceil(limit)))


def thread_environment(environment: Mapping[str, str], root: Path = CGROUP, membership: Path = MEMBERSHIP) -> dict[str, str]:
    """Return variables that make libraries start as many threads as can run; those given already stay."""
    if cpus(root, membership) is None:
        return {}
    count = str(usable_cpus(root, membership))
    return {name: count for name in THREAD_VARIABLES if name not in environment}


def memory(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> Memory:
    """Return limit, peak and kills of the container's cgroup."""
    unified = _unified(root, membership)
    if (unified / "memory.events").exists():
        return Memory(_limit(unified / "memory.max"), _number(unified / "memory.peak"), _field(unified / "memory.events", "oom_kill"))
    version_1 = root / "memory"
    kills = _field(version_1 / "memory.oom_control", "oom_kill")
    return Memory(_limit(version_1 / "memory.limit_in_bytes"), _number(version_1 / "memory.max_usage_in_bytes"), kills)


def in_words(size: int | None) -> str:
    """Return a number of bytes as a person reads it."""
    if size is None:
        return "an unknown size"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _unified(root: Path, membership: Path) -> Path:
    """Return the directory of our cgroup v2: the root in a cgroup namespace, else below it."""
    own = next((line[3:] for line in _text(membership).splitlines() if line.startswith("0::")), "/")
    below = root / own.strip("/")
    return below if own != "/" and (below / "cgroup.procs").exists() else root


def _limit(path: Path) -> int | None:
    """Return a limit in bytes; None where there is none."""
    limit = _number(path)
    return None if limit is None or limit >= UNLIMITED else limit


def _field(path: Path, name: str) -> int:
    """Return the number behind a name in a file of lines ``NAME NUMBER``; 0 where it is not there."""
    lines = (line.split() for line in _text(path).splitlines())
    return next((int(words[1]) for words in lines if len(words) == 2 and words[0] == name and words[1].isdigit()), 0)  # noqa: PLR2004


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
