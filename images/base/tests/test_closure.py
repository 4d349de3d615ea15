"""Does everything in the payload find what it needs? The real loader says so, for every shared object and program."""

from __future__ import annotations

import fnmatch
import re

DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}
"""Libraries of the driver: they come from the host, with its GPU."""

DRIVER_SYMBOL = re.compile(r"cu[A-Z]\w+|nvml\w+")

LEFT_OUT = (
    ("torchaudio/lib/*sox*.so", "libsox.so*", "torchaudio opens it only where libsox is installed, for its sox backend"),
    ("torio/lib/*ffmpeg*.so", "libav*.so.*", "torchaudio has a build for each FFmpeg and opens the one that fits, if any"),
    ("torchaudio/lib/*ffmpeg*.so", "libav*.so.*", "the same, before torchaudio moved it"),
    ("nvidia/*/nvshmem_bootstrap_*.so*", "lib[mops]*.so.*", "NVSHMEM's ways to start by MPI, PMIx and SHMEM: opened only where asked for"),
    ("nvidia/*/nvshmem_transport_*.so*", "lib*.so.*", "NVSHMEM's transports: each opens only where its network's libraries are"),
    ("triton/plugins/lib*.so*", "libtriton.so", "triton opens its plugins, on request, once libtriton itself is open"),
    ("imagecodecs.libs/liblzhamdll-*.so", "liblzham*comp-*.so", "these lie beside it, and imagecodecs' extension, which opens it, hands its path (RPATH) down"),
    ("torch/bin/test_*", "lib*.so", "upstream's own test programs, which its packaging leaves without a way to torch/lib"),
)
"""Path, what it does not find, and why that is no fault: reviewed, by name."""

AFTER_TORCH = (
    "torchvision/*.so",
    "torchaudio/lib/*.so",
    "torio/lib/*.so",
    "torchaudio/*.so",
    "torch/lib/libtorch_nvshmem.so",
    "torch/lib/libnvpl_lapack_core.so.0",
)
"""Objects of packages that import torch first, and so find its libraries open. libtorch_cuda opens libtorch_nvshmem, beside libc10_cuda;
on arm64 libtorch_cpu opens NVIDIA's LAPACK, beside the BLAS that this calls."""

WITHOUT_A_WAY = ("nvidia/cu13/lib/libcusolverMg.so.12", "nvidia/cu13/lib/libcufile_rdma.so.1")
"""Libraries that NVIDIA gave no RUNPATH in CUDA 13.0, to what lies beside them; torch opens neither. In 13.2 they have one."""

EXTENSION = re.compile(r"\.(cpython-\w+-(x86_64|aarch64)-linux-gnu|abi3)\.so$")
INSIDE_TORCH_AND_TRITON = ("torch/lib/libtorch_python.so", "triton/_C/lib*.so")
"""Python extensions by another name."""


def inner(path: str) -> str:
    """Return a path as seen from site-packages; CUDA's from its own directory."""
    return path.rpartition("/site-packages/")[2].removeprefix("/opt/cuda/")


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Say whether the path is one of those."""
    return any(fnmatch.fnmatchcase(inner(path), glob) for glob in globs)


def needs_driver(lacks: list[str]) -> bool:
    """Say whether only the driver is lacking."""
    kinds = [line.split(" ", 1) for line in lacks]
    return any(name in DRIVER for _, name in kinds) and all(
        name in DRIVER if kind == "missing" else kind == "symbol" and bool(DRIVER_SYMBOL.fullmatch(name)) for kind, name in kinds
    )


def left_out(path: str, words: dict) -> bool:
    """Say whether the list above explains what the loader does not find at the end."""
    lacking = re.match(r"(\S+): cannot open shared object file", words["torch"])
    names = [lacking[1]] if lacking else [line.removeprefix("missing ") for line in words["alone"] if line.startswith("missing ")]
    return any(matches(path, (glob,)) and names and all(fnmatch.fnmatchcase(name, needed) for name in names) for glob, needed, _ in LEFT_OUT)


def is_extension(path: str) -> bool:
    """Say whether Python imports it, so that it finds the interpreter's symbols."""
    return bool(EXTENSION.search(path)) or matches(path, INSIDE_TORCH_AND_TRITON)


def closes(path: str, words: dict) -> bool:
    """Say whether an object finds all in the place where it is opened."""
    if needs_driver(words["alone"]) or left_out(path, words):
        return True
    if words["python"] == "":
        # By itself it lacks only the interpreter, or what lies beside it and its package opens first.
        beside = all(not line.startswith("symbol") or "Py" in line for line in words["alone"])
        return is_extension(path) or beside or ".libs/" in path
    return words["torch"] == "" and matches(path, AFTER_TORCH)


def test_everything_was_looked_at(shared_objects, expected):
    """Every object was read, and the loader asked about every dynamic one of the payload, torch's among them."""
    assert shared_objects["unread"] == []
    assert shared_objects["examined"] > 50
    paths = {inner(each["path"]) for each in shared_objects["objects"]}
    assert "torch/lib/libtorch_cpu.so" in paths
    assert ("torch/lib/libtorch_cuda.so" in paths) == (expected.facts.cuda_version is not None)


def test_all_needs_are_met(shared_objects):
    """Every object resolves all libraries, symbol versions and symbols it needs, bound at once, where it is opened."""
    open_ends = {path: words["torch"] or words["python"] or words["alone"] for path, words in shared_objects["unresolved"].items() if not closes(path, words)}
    assert not open_ends, "\n".join(f"{path}: {words}" for path, words in sorted(open_ends.items()))


def test_nothing_is_led(shared_objects):
    """Torch and CUDA find each other by their own paths: only what imports torch first, and what upstream left without one, would lack
    anything without ``LD_LIBRARY_PATH``.
    """
    led = {path: lost for path, lost in shared_objects["led"].items() if not matches(path, (*AFTER_TORCH, *WITHOUT_A_WAY))}
    assert not led, "\n".join(f"{path}: {lost[:5]}" for path, lost in sorted(led.items()))


def test_no_version_is_lacking(shared_objects):
    """No object wants a symbol version that the image's libraries do not have, whatever else is excused."""
    lacking = {path: [line for line in words["alone"] if line.startswith(("version", "error"))] for path, words in shared_objects["unresolved"].items()}
    assert not {path: lines for path, lines in lacking.items() if lines}
