"""Checks at every start, in hundredths of a second: driver, GPU generation, shared memory, pinned memory, library path."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from container import facts, notices, settings
from container.problems import Problem

SHM: Final = Path("/dev/shm")  # noqa: S108  # the kernel's name for shared memory
SMALL_SHM: Final = 64 << 20
"""The engine's default, too small for DataLoader workers and NCCL."""

SMALL_MEMLOCK: Final = 64 << 20
INFINIBAND: Final = Path("/dev/infiniband")
OWN_LIBRARIES: Final = ("/opt/cuda/lib",)
SHADOWING: Final = ("libcudnn", "libnccl")

PATIENCE: Final = 0.06
"""Seconds to wait for the GPUs; after that the check goes on beside the start and reports when it knows."""


def run(environment: Mapping[str, str]) -> bool:
    """Print what will not work; return False only where ``TORCHSTRATA_REQUIRE_GPU=1`` and there is no GPU that fits."""
    required = settings.flag("TORCHSTRATA_REQUIRE_GPU", environment.get("TORCHSTRATA_REQUIRE_GPU", ""))
    with_gpu, fits = _gpu(environment, required=required)
    problems = [shared_memory(), pinned_memory() if with_gpu or INFINIBAND.exists() else None]
    problems += shadowed(environment.get("LD_LIBRARY_PATH", ""))
    for problem in filter(None, problems):
        notices.warn(problem.what, problem.fix)
    if required and not fits:
        notices.warn("TORCHSTRATA_REQUIRE_GPU=1 and no GPU that fits this image: the container ends here")
    return fits or not required


def shared_memory(path: Path = SHM) -> Problem | None:
    """Complain about a ``/dev/shm`` that breaks DataLoader workers and NCCL with a bus error."""
    try:
        status = os.statvfs(path)
    except OSError:
        return Problem("there is no /dev/shm: DataLoader workers and NCCL will fail", "add --shm-size=8g or --ipc=host")
    size = status.f_frsize * status.f_blocks
    if size > SMALL_SHM:
        return None
    return Problem(f"{SHM} has {size >> 20} MB: DataLoader workers and NCCL may die with a bus error", "add --shm-size=8g or --ipc=host")


def pinned_memory() -> Problem | None:
    """Complain about a limit on locked memory that RDMA and pinned buffers run into."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or limit > SMALL_MEMLOCK:
        return None
    return Problem(f"only {limit >> 10} kB of memory may be locked: NCCL over InfiniBand will fail", "add --ulimit memlock=-1")


def shadowed(library_path: str, own: tuple[str, ...] = OWN_LIBRARIES) -> list[Problem]:
    """Complain about directories on the library path with a cuDNN or NCCL that is not the one torch was tested with."""
    problems = []
    for directory in dict.fromkeys(filter(None, library_path.split(":"))):
        names = [] if directory in own else _libraries(Path(directory))
        if names:
            fix = "take it off LD_LIBRARY_PATH"
            problems.append(Problem(f"{directory} on LD_LIBRARY_PATH has {', '.join(names)}, which can shadow the one of torch", fix))
    return problems


def _libraries(directory: Path) -> list[str]:
    """Return the first of a directory's libraries that would be loaded instead of torch's: enough for a line."""
    try:
        return sorted(entry.name for entry in directory.iterdir() if entry.name.startswith(SHADOWING) and ".so" in entry.name)[:3]
    except OSError:
        return []


def _gpu(environment: Mapping[str, str], *, required: bool) -> tuple[bool, bool]:
    """Return whether there is a GPU, and whether it fits as far as is known by now."""
    image = facts.read()
    if image is None or not image.cuda:
        return False, False
    from container import gpu  # noqa: PLC0415  # ctypes costs 10 ms, and most of the machines that run CPU images have no GPU

    if not gpu.present():
        notices.inform(f"no GPU is visible: torch will use the CPU ({image.cell} is for CUDA {'.'.join(map(str, image.cuda))}; --gpus all passes GPUs in)")
        return False, False
    if gpu.lost():
        notices.warn("the GPU may not be opened (as after systemctl daemon-reload on the host)", "start the container anew")
    return True, _driver_fits(image) and _generation_fits(environment, required=required)


def _driver_fits(image: facts.Facts) -> bool:
    """Return whether the driver is new enough; print why it is not."""
    from container import gpu  # noqa: PLC0415  # see _gpu

    try:
        supported = gpu.driver()
    except gpu.CudaError as error:
        notices.warn(str(error), "torchstrata-doctor says more")
        return False
    if supported is None:
        notices.warn("a GPU is here but no driver library", "let the engine pass it in: NVIDIA_DRIVER_CAPABILITIES=compute,utility and the NVIDIA toolkit")
        return False
    problem = gpu.judge_driver(supported, image)
    if problem:
        notices.warn(problem.what, problem.fix)
    return problem is None


def _generation_fits(environment: Mapping[str, str], *, required: bool) -> bool:
    """Start the check of the GPUs and return whether they fit as far as is known after a moment, or at its end where a GPU is required."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).parents[1]), "generation"]
    checking = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=2)
    try:
        return checking.wait(None if required else PATIENCE) == 0
    except subprocess.TimeoutExpired:
        return True
