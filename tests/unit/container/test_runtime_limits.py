"""CPU and memory limits from both versions of cgroups, on trees of files like the kernel's."""

from __future__ import annotations

import os

import pytest
from container import limits

GIB = 1 << 30


def write(root, files):
    """Write a tree of small files and return its root."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def membership(tmp_path, text="0::/"):
    """Return a file like /proc/self/cgroup."""
    (tmp_path / "membership").write_text(f"{text}\n")
    return tmp_path / "membership"


def of_v1(quota):
    """Return the files in which version 1 has a quota."""
    return {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "200000 100000"}, "0::/", 2.0),
        ({"cpu.max": "50000 100000"}, "0::/", 0.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu.max": "150000"}, "0::/", 1.5),
        (of_v1("300000"), "4:cpu:/", 3.0),
        (of_v1("-1"), "4:cpu:/", None),
        ({"docker/a/cpu.max": "100000 100000", "docker/a/cgroup.procs": "1"}, "0::/docker/a", 1.0),
        ({}, "0::/", None),
    ],
)
def test_cpus(tmp_path, files, own, expected):
    """Quota and period are in one file or, of version 1, in two; without a namespace they are below the host's root."""
    assert limits.cpus(write(tmp_path, files), membership(tmp_path, own)) == expected


def test_usable_cpus(tmp_path):
    """A fraction counts as a whole CPU, and no more are used than the scheduler grants."""
    granted = len(os.sched_getaffinity(0))
    assert limits.usable_cpus(write(tmp_path, {"cpu.max": "10000 100000"}), membership(tmp_path)) == 1
    assert limits.usable_cpus(write(tmp_path, {"cpu.max": "99000000 100000"}), membership(tmp_path)) == granted


def test_threads(tmp_path):
    """Thread variables are set only where there is a limit, and never over those given."""
    root, own = write(tmp_path, {"cpu.max": "100000 100000"}), membership(tmp_path)
    assert limits.thread_environment({}, root, own) == {"OMP_NUM_THREADS": "1", "PYTHON_CPU_COUNT": "1"}
    assert limits.thread_environment({"OMP_NUM_THREADS": "7"}, root, own) == {"PYTHON_CPU_COUNT": "1"}
    assert limits.thread_environment({}, write(tmp_path, {"cpu.max": "max 100000"}), own) == {}


OF_V2 = {"memory.max": str(2 * GIB), "memory.peak": str(GIB), "memory.events": "oom 4\noom_kill 3\noom_group_kill 0"}
OF_V1 = {
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "memory/memory.max_usage_in_bytes": "5",
    "memory/memory.oom_control": "under_oom 0\noom_kill 2",
}


@pytest.mark.parametrize(
    ("files", "found"),
    [(OF_V2, limits.Memory(2 * GIB, GIB, 3)), (OF_V1, limits.Memory(None, 5, 2)), ({}, limits.Memory(None, None, 0))],
    ids=["v2", "v1", "none"],
)
def test_memory(tmp_path, files, found):
    """Version 1 writes no limit as a huge number; where nothing is mounted there is none, and nothing was killed."""
    assert limits.memory(write(tmp_path, files), membership(tmp_path)) == found


@pytest.mark.parametrize(("size", "words"), [(None, "an unknown size"), (512 << 20, "512 MiB"), (3 * GIB // 2, "1.5 GiB")])
def test_in_words(size, words):
    """Sizes are written as a person reads them."""
    assert limits.in_words(size) == words
