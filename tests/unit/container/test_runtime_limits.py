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


@pytest.mark.parametrize(("text", "expected"), [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", None), ("150000", 1.5)])
def test_cpus_of_v2(tmp_path, text, expected):
    """cpu.max is quota and period."""
    assert limits.cpus(write(tmp_path, {"cpu.max": text}), membership(tmp_path)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3.0), ("-1", None)])
def test_cpus_of_v1(tmp_path, quota, expected):
    """Version 1 has quota and period in two files; -1 is no limit."""
    assert limits.cpus(write(tmp_path, {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}), membership(tmp_path, "4:cpu:/")) == expected


def test_cgroup_of_the_host(tmp_path):
    """Without a cgroup namespace, the limits are those of our own directory below the host's root."""
    write(tmp_path, {"docker/a/cpu.max": "100000 100000", "docker/a/cgroup.procs": "1"})
    assert limits.cpus(tmp_path, membership(tmp_path, "0::/docker/a")) == 1.0


def test_no_cgroups(tmp_path):
    """Where nothing is mounted there is no limit and nothing was killed."""
    assert limits.cpus(tmp_path, membership(tmp_path)) is None
    assert limits.memory(tmp_path, membership(tmp_path)) == limits.Memory(None, None, 0)


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


def test_memory_of_v2(tmp_path):
    """Version 2 counts kills in memory.events."""
    files = {"memory.max": str(2 * GIB), "memory.peak": str(GIB), "memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 0"}
    assert limits.memory(write(tmp_path, files), membership(tmp_path)) == limits.Memory(2 * GIB, GIB, 3)


def test_memory_of_v1(tmp_path):
    """Version 1 counts kills in memory.oom_control, and writes no limit as a huge number."""
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.max_usage_in_bytes": "5",
        "memory/memory.oom_control": "under_oom 0\noom_kill 2",
    }
    assert limits.memory(write(tmp_path, files), membership(tmp_path)) == limits.Memory(None, 5, 2)


@pytest.mark.parametrize(("size", "words"), [(None, "an unknown size"), (512 << 20, "512 MiB"), (3 * GIB // 2, "1.5 GiB")])
def test_in_words(size, words):
    """Sizes are written as a person reads them."""
    assert limits.in_words(size) == words
