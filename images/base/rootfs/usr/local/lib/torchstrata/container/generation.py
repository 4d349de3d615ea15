"""Whether this image has code for the GPUs. A process of its own: starting up the driver can take a second."""

from __future__ import annotations

from container import facts, gpu, notices


def main(arguments: list[str]) -> int:
    """Print what does not fit; return 1 then, else 0."""
    del arguments
    image = facts.read()
    if image is None or not image.architectures:
        return 0
    try:
        devices, supported = gpu.capabilities(), gpu.driver()
    except gpu.CudaError as error:
        notices.warn(f"the GPU does not answer: {error}", "torchstrata-doctor says more")
        return 1
    problem = gpu.judge_generations(devices, image, supported)
    if problem:
        notices.warn(problem.what, problem.fix)
    return 1 if problem else 0
