"""Build an extension of torch and use it: ``extension.py module``, ``extension.py operator``, ``extension.py cuda ARCHITECTURE``,
such as ``9.0``, or ``extension.py kernel``, which leaves it to torch what is built for.

Prints what it computes. The first is in Python's style (pybind11), with all of torch's headers; the second brings an operator; so
do the others, whose kernel nvcc compiled, and they tell the version of the CUDA runtime that they found, and whether there is device
code in them. The file that nvcc compiles has torch's headers in the third; in the last it has none, which takes half the time.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils import cpp_extension

MODULE = """#include <torch/extension.h>
torch::Tensor triple(const torch::Tensor& values) { return values * 3; }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("triple", &triple); }
"""
OPERATOR = """#include <torch/library.h>
at::Tensor triple(const at::Tensor& values) { return values.mul(3); }
TORCH_LIBRARY(probe, library) { library.def("triple", triple); }
"""
CUDA_OPERATOR = """#include <torch/library.h>
at::Tensor triple_on_gpu(const at::Tensor& values);
int64_t runtime();
at::Tensor triple(const at::Tensor& values) { return values.is_cuda() ? triple_on_gpu(values) : values.mul(3); }
TORCH_LIBRARY(probe, library) {
    library.def("triple", triple);
    library.def("runtime", runtime);
}
"""
ON_GPU = """
at::Tensor triple_on_gpu(const at::Tensor& values) {
    auto out = values.clone();
    launch(out.data_ptr<float>(), out.numel());
    return out;
}
"""
KERNEL = """#include <cstdint>
#include <cuda_runtime.h>
__global__ void kernel(float* values, int64_t count) {
    int64_t place = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
    if (place < count) values[place] *= 3;
}
void launch(float* values, int64_t count) { kernel<<<(count + 255) / 256, 256>>>(values, count); }
int64_t runtime() {
    int version = 0;
    return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : -1;
}
"""
CUDA = {
    "cuda": {"operator.cpp": CUDA_OPERATOR, "kernel.cu": f"#include <ATen/core/Tensor.h>\n{KERNEL}{ON_GPU}"},
    "kernel": {"operator.cpp": f"{CUDA_OPERATOR}void launch(float* values, int64_t count);{ON_GPU}", "kernel.cu": KERNEL},
}
"""Sources of the extensions with a kernel."""


def build(folder, sources, **options):
    """Build the sources without optimisation, which would only take time, and load the result."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    paths = [str(folder / name) for name in sources]
    return cpp_extension.load(name="probe_extension", sources=paths, build_directory=str(folder), extra_cflags=["-O0"], **options)


def module(folder):
    """Return what the module computes."""
    return {"triple": build(folder, {"module.cpp": MODULE}).triple(torch.arange(3.0)).tolist()}


def operator(folder):
    """Return what the operator computes."""
    build(folder, {"operator.cpp": OPERATOR}, is_python_module=False)
    return {"triple": torch.ops.probe.triple(torch.arange(3.0)).tolist()}


def cuda(folder):
    """Return what an extension with a kernel computes and tells; on a GPU, if there is one, what its kernel computes."""
    if sys.argv[2:]:
        os.environ["TORCH_CUDA_ARCH_LIST"] = sys.argv[2]
    build(folder, CUDA[sys.argv[1]], is_python_module=False)
    sections = subprocess.run(["readelf", "-SW", folder / "probe_extension.so"], capture_output=True, text=True, check=True).stdout
    on_gpu = {"on_gpu": torch.ops.probe.triple(torch.arange(3.0, device="cuda")).tolist()} if torch.cuda.is_available() else {}
    triple = torch.ops.probe.triple(torch.arange(3.0)).tolist()
    return {"triple": triple, "runtime": torch.ops.probe.runtime(), "device_code": ".nv_fatbin" in sections} | on_gpu


def main():
    """Print the result."""
    with tempfile.TemporaryDirectory() as name:
        json.dump({"module": module, "operator": operator}.get(sys.argv[1], cuda)(Path(name)), sys.stdout)


main()
