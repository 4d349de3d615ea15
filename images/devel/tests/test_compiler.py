"""``devel`` builds what its users build: CUDA code for every GPU generation that nvcc knows, and extensions of torch."""

from __future__ import annotations

import pytest

HERE = "devel"


def sm(architectures):
    """Return compute capabilities as nvcc names them."""
    return [f"sm_{name.replace('.', '')}" for name in architectures]


@pytest.fixture(scope="module")
def nvcc(probe, expected):
    """What nvcc makes for every GPU generation that torch has code for."""
    return probe("nvcc", *sm(expected.facts.architectures))


@pytest.mark.cuda
def test_release(nvcc, expected):
    """Nvcc is the one that facts and label name, of the major version that torch's extensions need."""
    assert nvcc["release"] == expected.facts.nvcc.cuda == expected.labels["torchstrata.nvcc"]
    assert nvcc["release"].split(".")[0] == expected.facts.cuda_version.split(".")[0]


@pytest.mark.cuda
def test_machine_code(nvcc, expected):
    """There is machine code for each generation of the cell, and the ones that nvcc does not know are those on the label."""
    failed = {name: words for name, words in nvcc["words"].items() if words}
    gap = expected.labels.get("torchstrata.architectures.nvcc-lacks", "").split()
    assert gap == sm(expected.facts.missing_architectures)
    assert sorted(failed) == sorted(gap), failed
    assert len(failed) < len(nvcc["words"])


@pytest.mark.cuda
@pytest.mark.parametrize(("kind", "linked", "compiler"), [("shared", True, False), ("static", False, True), ("parallel", False, True)])
def test_program(nvcc, expected, kind, linked, compiler):
    """A program that nvcc linked runs: with torch's own CUDA runtime, with the compiler's in it, or with kernels that start kernels."""
    version = expected.facts.nvcc.cuda if compiler else expected.facts.cuda_version
    major, minor = version.split(".")
    assert nvcc["programs"][kind] == {"said": f"{major}{int(minor):02}0", "runtime_is_shared": linked}


@pytest.fixture(scope="module")
def cuda_extension(probe, expected):
    """What a CUDA extension tells that was built for the newest GPU that nvcc knows, or, above, without any setting.

    Nvcc compiles torch's headers where the compiler comes in; on its layers g++ alone does, in the same extension.
    """
    known = [name for name in expected.facts.architectures if name not in expected.facts.missing_architectures]
    return probe("extension", *(("cuda", known[-1]) if expected.flavour == HERE else ("kernel",)))


@pytest.fixture(scope="module")
def host_extension(probe, expected, request):
    """What a C++ extension tells: in Python's style, with all of torch's headers, where the compiler comes in; on its layers, as an
    operator, which takes a third of the time, and is part of the CUDA extension where there is one.
    """
    if expected.flavour != HERE and "cuda" in expected.applies:
        return request.getfixturevalue("cuda_extension")
    return probe("extension", "module" if expected.flavour == HERE else "operator")


@pytest.mark.costly
def test_host_extension(host_extension):
    """A C++ extension of torch builds, is loaded and computes."""
    assert host_extension["triple"] == [0, 3, 6]


@pytest.mark.cuda
def test_cuda_extension(cuda_extension, expected):
    """A CUDA extension of torch builds; its operator works, on the runtime of torch."""
    major, minor = expected.facts.cuda_version.split(".")
    assert cuda_extension["triple"] == cuda_extension.get("on_gpu", [0, 3, 6]) == [0, 3, 6]
    assert cuda_extension["runtime"] == int(f"{major}{int(minor):02}0")
    assert cuda_extension["device_code"]
