"""``devel`` builds what a CUDA toolkit builds, on machines without a GPU too, as CI and ``docker build`` are."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.cuda

STUBS = {"needs": ["libcuda.so.1", "libnvidia-ml.so.1"], "says": "34 12"}
"""CUDA_ERROR_STUB_LIBRARY, NVML_ERROR_LIBRARY_NOT_FOUND."""

PYTHON = "/opt/venv/bin/python"
ASK = "import os; print(os.environ.get('TORCH_CUDA_ARCH_LIST'))"


@pytest.fixture(scope="module")
def toolkit(probe):
    """What building without a GPU gave."""
    return probe("toolkit")


def test_each_library_is_found_by_its_name(toolkit):
    """What torch's CUDA wheels bring to link with is found by ``-l``."""
    assert {"cublas", "cudart", "cudnn", "cufft", "cufftw", "cusolverMg", "nccl", "nvblas"} <= toolkit["libraries"].keys()
    assert not {name: words for name, words in toolkit["libraries"].items() if words}


def test_each_header_compiles(toolkit):
    """The headers of those libraries, of the driver, of its management and of the profiler compile."""
    assert not {name: words for name, words in toolkit["headers"].items() if words}


def test_programs_of_the_driver_api_are_linked_without_a_driver(toolkit):
    """``-lcuda`` and ``-lnvidia-ml`` need no driver; the program asks for the machine's own, and with the stubs it gets their error."""
    assert toolkit["driver"] == STUBS


def test_cmake_finds_the_toolkit(toolkit):
    """``find_package(CUDAToolkit)`` has the targets that projects link with."""
    status, words = toolkit["cmake"]
    assert status == 0, words


def test_native_code_is_for_the_gpu_that_is_here(toolkit):
    """``nvcc -arch=native`` compiles for the GPU that the driver tells."""
    status, words = toolkit["native"]["here"]
    assert status == 0, words
    assert 80 in toolkit["native"]["code"]


def test_native_code_without_a_gpu(toolkit, expected):
    """Without one it is an error, or at least, where the compiler is NVIDIA's wheel as it is, nvcc warns."""
    status, words = toolkit["native"]["nowhere"]
    assert (status != 0) is bool(expected.facts.nvcc.toolchain), words
    assert "Cannot find valid GPU for '-arch=native'" in words


def asked(cell_facts):
    """Return what extensions are built for where no GPU is visible."""
    missing = cell_facts.missing_architectures
    return ";".join(name for name in cell_facts.architectures if name not in missing) + ("+PTX" if missing else "")


def test_python_of_docker_exec_knows_what_to_build_for(host, expected):
    """Without a GPU it is what torch and nvcc know."""
    assert host.check_output(f'CUDA_VISIBLE_DEVICES= {PYTHON} -c "{ASK}"') == asked(expected.facts)


def test_what_the_user_says_is_built(host):
    """A list that is given stays."""
    assert host.check_output(f'CUDA_VISIBLE_DEVICES= TORCH_CUDA_ARCH_LIST=8.9 {PYTHON} -c "{ASK}"') == "8.9"


def test_python_without_the_entrypoint_knows_what_to_build_for(start, expected):
    """``docker build`` and ``--entrypoint`` run no start of ours."""
    box = start("-c", ASK, entrypoint=[PYTHON], network_mode="none")
    assert box.ended() == 0
    assert box.log.strip() == asked(expected.facts)
