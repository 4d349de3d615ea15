"""Use nvcc as people do: ``nvcc.py ARCHITECTURE...``, each such as ``sm_90``.

Prints nvcc's ``release``; for each architecture the one that the machine code is for, or nvcc's word on why there is none; and
what a program that nvcc compiled and linked says: the version of its CUDA runtime.
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

KERNEL = "__global__ void twice(float *values) { values[threadIdx.x] *= 2; }\n"
PROGRAM = f"""#include <cstdio>
{KERNEL}
int main() {{
    int version = 0;
    if (cudaRuntimeGetVersion(&version) != cudaSuccess) return 1;
    twice<<<1, 1>>>(nullptr);
    printf("%d", version);
}}
"""
EM_CUDA = 190


def nvcc(*arguments):
    """Return the status of nvcc, and its words."""
    done = subprocess.run(["nvcc", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def target(cubin):
    """Return the architectures that the header may name: CUDA 13 has moved the number by a byte."""
    (machine,) = struct.unpack_from("<H", cubin, 18)
    (flags,) = struct.unpack_from("<I", cubin, 48)
    return [f"sm_{number & 0xFF}" for number in (flags, flags >> 8)] if machine == EM_CUDA else []


def compile_for(architecture, folder):
    """Return whether there is machine code for the architecture, or nvcc's word."""
    out = folder / f"{architecture}.cubin"
    status, words = nvcc("-cubin", f"-arch={architecture}", "-o", str(out), str(folder / "kernel.cu"))
    if status:
        return words
    return "" if architecture in target(out.read_bytes()) else f"the code is for {target(out.read_bytes())}"


def main():
    """Print all results."""
    release = re.search(r"release ([\d.]+)", nvcc("--version")[1])
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        (folder / "kernel.cu").write_text(KERNEL)
        (folder / "program.cu").write_text(PROGRAM)
        words = dict(zip(sys.argv[1:], pool.map(lambda architecture: compile_for(architecture, folder), sys.argv[1:]), strict=True))
        status, problem = nvcc("-o", str(folder / "program"), str(folder / "program.cu"))
        said = problem if status else subprocess.run([folder / "program"], capture_output=True, text=True, check=False).stdout
    json.dump({"release": release and release[1], "words": words, "program": said}, sys.stdout)


main()
