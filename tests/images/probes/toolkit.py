"""Build what a CUDA toolkit is asked for, without a GPU, and print what came of it.

``libraries``: for each library of torch's CUDA wheels, by the name after ``-l``, the linker's word, empty if it is found;
``headers``: the compiler's word on each header that one of those libraries, or the driver, is used with;
``driver``: what a program needs and says that was linked with the driver's libraries, which are not here;
``cmake``: the words of CMake where it does not find those and the others;
``native``: status and words of ``nvcc -arch=native`` without a GPU, and with a driver that tells one of 8.0.
"""

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOME = os.environ["CUDA_HOME"]
INSIDE = re.compile(r"libcudnn_|libnvrtc-builtins|libnvrtc\.alt|libnvshmem|nvshmem_|libnvperf|libpcsampling|libcheckpoint|libnvvm")
"""Libraries that others load; and NVSHMEM, which no toolkit has."""

HEADERS = """cublas_v2.h cuda.h cuda_profiler_api.h cuda_runtime.h cudaProfiler.h cudnn.h cufft.h cufftw.h cupti.h curand.h cusolverDn.h
cusolverMg.h cusparse.h nccl.h nvml.h nvrtc.h nvblas.h"""
OF_LIBRARIES = {"cufile": "cufile.h", "cusparseLt": "cusparseLt.h"}
"""Headers that only some torches bring, by library."""

ASIDE = {"cusparseLt.h": "/opt/cuda/cusparselt/include"}
"""Where the wheel that torch 2.6 pins has a header, instead of below ``nvidia``: people name it (docs/working.md)."""

DRIVER = """#include <cuda.h>
#include <nvml.h>
#include <stdio.h>
int main(void) { printf("%d %d", cuInit(0), nvmlInit()); }
"""
GPU = """int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 0; return 0; }
int cuGetErrorName(int code, const char **name) { *name = "none"; return 0; }
"""
KERNEL = "__global__ void twice(float *values) { values[threadIdx.x] *= 2; }\n"
CMAKE = """cmake_minimum_required(VERSION 3.18)
project(probe LANGUAGES CXX)
find_package(CUDAToolkit REQUIRED)
foreach(name cuda_driver nvml cudart cudart_static cublas cufft cufftw curand cusolver cusparse nvrtc cupti)
  if(NOT TARGET CUDA::${name})
    message(SEND_ERROR "no CUDA::${name}")
  endif()
endforeach()
"""


def run(*words, **variables):
    """Return the status of a program, and its words."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | variables)
    return done.returncode, (done.stdout + done.stderr).strip()


def compiled(folder, name, text, *options):
    """Return the compiler's words on a source in C, empty if there are none."""
    source = folder / f"{name}.cpp"
    source.write_text(text)
    status, words = run("g++", f"-I{HOME}/include", f"-L{HOME}/lib64", "-o", str(folder / name), str(source), *options)
    return words or ("" if status == 0 else f"status {status}")


def libraries():
    """Return the names of libraries of torch's CUDA wheels that people link with."""
    names = {path.name.partition(".so")[0] for path in Path("/opt/cuda/lib").iterdir() if not INSIDE.match(path.name)}
    return sorted(name.removeprefix("lib") for name in names)


def driver(folder):
    """Return what a program of the driver's libraries needs, and what it says with those that it was linked with."""
    if words := compiled(folder, "driver", DRIVER, "-lcuda", "-lnvidia-ml"):
        return words
    _, needed = run("readelf", "-dW", str(folder / "driver"))
    for name in ("libcuda.so", "libnvidia-ml.so"):
        (folder / f"{name}.1").symlink_to(f"{HOME}/lib64/stubs/{name}")
    _, said = run(str(folder / "driver"), LD_LIBRARY_PATH=str(folder))
    return {"needs": sorted(re.findall(r"\[(lib(?:cuda|nvidia-ml)\.[^]]+)\]", needed)), "says": said}


def native(folder):
    """Return what nvcc makes for the GPU that is here, where there is none and where there is one."""
    (folder / "kernel.cu").write_text(KERNEL)
    (folder / "gpu.c").write_text(GPU)
    (folder / "gpu").mkdir()
    run("gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "gpu/libcuda.so.1"), str(folder / "gpu.c"))
    cubin = folder / "kernel.cubin"
    words = ("nvcc", "-arch=native", "-cubin", "-o", str(cubin), str(folder / "kernel.cu"))
    nowhere = run(*words, CUDA_VISIBLE_DEVICES="")
    here = run(*words, LD_LIBRARY_PATH=f"{folder / 'gpu'}:{os.environ['LD_LIBRARY_PATH']}")
    (flags,) = struct.unpack_from("<I", cubin.read_bytes(), 48) if here[0] == 0 else (0,)
    return {"nowhere": nowhere, "here": here, "code": [flags & 0xFF, flags >> 8 & 0xFF]}


def header(folder, name):
    """Return the compiler's words on a program that includes a header."""
    aside = [f"-I{ASIDE[name]}"] if Path(ASIDE.get(name, "/none")).is_dir() else []
    return compiled(folder, f"h_{name}", f"#include <cuda_runtime.h>\n#include <{name}>\nint main() {{}}", *aside)


def main():
    """Print all results."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder, names = Path(name), libraries()
        headers = HEADERS.split() + [header for library, header in OF_LIBRARIES.items() if library in names]
        linked = pool.map(lambda one: compiled(folder, f"l_{one}", "int main() {}", f"-l{one}"), names)
        read = pool.map(lambda one: header(folder, one), headers)
        (folder / "CMakeLists.txt").write_text(CMAKE)
        document = {"libraries": dict(zip(names, linked, strict=True)), "headers": dict(zip(headers, read, strict=True))}
        document |= {"driver": driver(folder), "native": native(folder)}
        document["cmake"] = run("cmake", "-S", name, "-B", str(folder / "build"))
    json.dump(document, sys.stdout)


main()
