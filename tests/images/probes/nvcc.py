"""Use nvcc as people do: ``nvcc.py ARCHITECTURE...``, each such as ``sm_90``.

Prints nvcc's ``release``; for each architecture the one that the machine code is for, or nvcc's word on why there is none; and
what programs that nvcc compiled and linked in some ways say: the version of their CUDA runtime, and whether that is a shared library.
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
PARALLEL = """#include <cstdio>
__global__ void child(int *value) { atomicAdd(value, 1); }
__global__ void parent(int *value) { child<<<1, 1>>>(value); }
int main() {
    int version = 0;
    if (cudaRuntimeGetVersion(&version) != cudaSuccess) return 1;
    parent<<<1, 1>>>(nullptr);
    printf("%d", version);
}
"""
"""Dynamic parallelism: a kernel that starts a kernel."""

PROGRAMS = {"shared": (PROGRAM, "-cudart", "shared"), "static": (PROGRAM, "-cudart", "static"), "parallel": (PARALLEL, "-rdc=true")}
"""Source and options of programs; the last has nvcc's default, which is the static runtime."""

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


def program(kind, architecture, folder):
    """Return what a program says, and whether it needs a shared runtime; or why there is none."""
    text, *options = PROGRAMS[kind]
    source, target = folder / f"{kind}.cu", folder / kind
    source.write_text(text)
    status, problem = nvcc(f"-arch={architecture}", *options, "-o", str(target), str(source))
    if status:
        return problem
    needed = subprocess.run(["readelf", "-dW", target], capture_output=True, text=True, check=True).stdout
    said = subprocess.run([target], capture_output=True, text=True, check=False).stdout
    return {"said": said, "runtime_is_shared": "libcudart.so" in needed}


def main():
    """Print all results."""
    release = re.search(r"release ([\d.]+)", nvcc("--version")[1])
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        (folder / "kernel.cu").write_text(KERNEL)
        words = dict(zip(sys.argv[1:], pool.map(lambda architecture: compile_for(architecture, folder), sys.argv[1:]), strict=True))
        known = [architecture for architecture, word in words.items() if not word]
        programs = dict(zip(PROGRAMS, pool.map(lambda kind: program(kind, known[-1], folder), PROGRAMS), strict=True))
    json.dump({"release": release and release[1], "words": words, "programs": programs}, sys.stdout)


main()
