"""CUDA's libraries: each opens, each is there once, and torch uses those and no others."""

from __future__ import annotations

import collections
import fnmatch
import re

import pytest

pytestmark = pytest.mark.cuda

CUDA = "/opt/cuda/"

OWN_COPIES = (
    ("*/triton/backends/nvidia/lib/cupti*/*", "triton's profiler opens its own CUPTI, by path; one more for Blackwell"),
    ("*/torchvision.libs/libcudart.*", "torchvision's wheel carries one under a name of its own, for its image decoder"),
    ("*/torchvision.libs/libnvjpeg.*", "the same; nothing else has nvJPEG"),
    ("*/libnvshmem_device.*", "NVSHMEM's own library for device code, in two forms"),
)
"""Copies inside other packages, each with its reason: reviewed, by name."""


@pytest.fixture(scope="module")
def libraries(probe):
    """What opening every CUDA library gave."""
    return probe("cuda_libraries")


def stem(name: str) -> str:
    """Return a library's name without its version, nor a mark that a wheel gave it: ``libcudart`` of ``libcudart.e8e8b82a.so.12``."""
    return re.sub(r"(\.[0-9a-f]{8})?\.so(\.[\d.]+)?$", "", re.sub(r"-[0-9a-f]{8}(?=\.so)", "", name))


def test_each_opens(libraries):
    """Each opens by its name in a fresh process, with lazy binding and bound at once."""
    failed = {name: words for name, words in libraries["opened"].items() if any(words.values())}
    assert libraries["opened"], "/opt/cuda/lib is empty"
    assert not failed


def test_versions_by_their_own_word(libraries, expected, locked_cuda):
    """The runtime and NCCL, asked without torch, tell the versions of the cell."""
    major, minor = expected.facts.cuda_version.split(".")
    assert libraries["versions"]["libcudart"] == f"{major}{int(minor):02}0"
    nccl = [int(part) for part in locked_cuda("nccl").split(".")]
    assert libraries["versions"]["libnccl"] == str(nccl[0] * 10_000 + nccl[1] * 100 + nccl[2])


def test_one_copy_of_each(shared_objects):
    """The file system has one file for each CUDA library, whatever its version, but for the reviewed copies."""
    names = {stem(each["soname"] or each["path"].rpartition("/")[2]) for each in shared_objects["objects"] if each["path"].startswith(CUDA)}
    files = collections.defaultdict(list)
    for each in shared_objects["objects"]:
        called = {stem(name) for name in (each["soname"], each["path"].rpartition("/")[2]) if name}
        if called & names and not any(fnmatch.fnmatchcase(each["path"], glob) for glob, _ in OWN_COPIES):
            files[min(called & names)].append(each["path"])
    assert not {name: paths for name, paths in files.items() if len(paths) > 1}


def test_one_copy_in_the_process(torch_facts, shared_objects):
    """A process that has imported torch has each CUDA library open once, and all of them from ``/opt/cuda``."""
    loaded = torch_facts["loaded"]
    names = {stem(each["path"].rpartition("/")[2]) for each in shared_objects["objects"] if each["path"].startswith(CUDA)}
    opened = collections.defaultdict(list)
    for path in loaded:
        if stem(path.rpartition("/")[2]) in names:
            opened[stem(path.rpartition("/")[2])].append(path)
    assert {"libcudart", "libcublas", "libcudnn", "libnccl"} <= opened.keys()
    assert not {name: paths for name, paths in opened.items() if len(paths) > 1 or not paths[0].startswith(CUDA)}
