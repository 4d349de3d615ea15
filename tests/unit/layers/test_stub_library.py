"""Libraries to link with where there is no driver: which names they have, and that the loader takes them; ``tests/images/devel`` links with them."""

from __future__ import annotations

import ctypes
import struct

import pytest

from torchstrata.layers import stub_library

CUDA = b"""\
#define __CUDA_API_PTSZ(api) api ## _ptsz
#define __CUDA_API_PTDS(api) api ## _ptds
#define cuMemAlloc cuMemAlloc_v2
#define cuMemcpy __CUDA_API_PTDS(cuMemcpy)
    #define cuStreamQuery                       __CUDA_API_PTSZ(cuStreamQuery)
#define CUDA_VERSION 12040
CUresult CUDAAPI cuInit(unsigned int Flags);
__CUDA_DEPRECATED CUresult CUDAAPI cuLaunch(CUfunction f);
CUresult CUDAAPI
cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev);
"""


def test_names_of_the_driver_api():
    """Functions that are declared, deprecated ones too, what macros make of names, and the forms for streams per thread."""
    names = ["cuCtxCreate_v2", "cuInit", "cuLaunch", "cuMemAlloc", "cuMemAlloc_v2", "cuMemcpy", "cuMemcpy_ptds", "cuStreamQuery", "cuStreamQuery_ptsz"]
    assert stub_library.of_cuda([CUDA]) == tuple(names)


def test_names_of_nvml():
    """The same for the management library, whose macros lead to newer versions of functions."""
    text = b"#define nvmlInit nvmlInit_v2\n#define NVML_API_VERSION 12\nnvmlReturn_t DECLDIR nvmlShutdown(void);\n"
    assert stub_library.of_nvml([text]) == ("nvmlInit_v2", "nvmlShutdown")


@pytest.mark.parametrize("name", ["cuInit", "cuInit2", "cuInit_v2", "cuInitialise"])
def test_other_platforms(name):
    """On arm64 the file is for its machine, segments begin on pages of 64 KiB, and the function, whose instructions have four bytes, returns the status."""
    content = stub_library.library("libthing.so.1", [name, "cuLaunch"], 34, "linux/arm64")
    assert struct.unpack_from("<H", content, 18) == (183,)
    kind, _, offset, address, *_, align = struct.unpack_from("<IIQQQQQQ", content, 64 + 56)
    assert (kind, offset % 0x10000, address % 0x10000, align) == (1, 0, 0, 0x10000)
    assert content.index(bytes.fromhex("40048052c0035fd6")) % 4 == 0  # mov w0, #34; ret


@pytest.mark.parametrize("count", [1, 2, 700])
def test_the_loader_takes_it(tmp_path, count):
    """Each function returns the status, whatever it is called with; the library has the name that it was given."""
    names = [f"cuFunction{number}" for number in range(count)]
    path = tmp_path / "libthing.so"
    path.write_bytes(stub_library.library("libthing.so.1", names, 34))
    loaded = ctypes.CDLL(str(path))
    assert {loaded[name](1, 2) for name in names} == {34}
    with pytest.raises(AttributeError):
        loaded["cuFunctionOfAnother"]
