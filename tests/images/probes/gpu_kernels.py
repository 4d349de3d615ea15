"""Compute on a device, ``gpu_kernels.py DEVICE``, and compare with float64 on the CPU; on a GPU also graphs and memory.

Prints relative errors (Frobenius norm) of ``matmul`` by type and of a ``convolution`` and its gradients; for a GPU the result of
a ``graph`` that was recorded once and replayed on other data, and the bytes that are left in use after everything is deleted.
"""

import gc
import json
import sys

import torch

SIZE = 512


def error(found, reference):
    """Return how far a result is from the reference, relative to it."""
    reference = reference.double()
    return ((found.detach().cpu().double() - reference).norm() / reference.norm()).item()


def matmul(device, dtype, *, tf32=False):
    """Return the error of a product of two matrices."""
    torch.manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    found = left.to(device) @ right.to(device)
    torch.backends.cuda.matmul.allow_tf32 = False
    return error(found, left.double() @ right.double())


def convolution(device):
    """Return the errors of a convolution and of its gradients; on a GPU it is cuDNN's."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    pictures, weights = torch.randn(4, 8, 32, 32), torch.randn(16, 8, 3, 3)
    results = []
    for place, dtype in ((device, torch.float32), ("cpu", torch.float64)):
        data, kernel = (each.to(place, dtype, copy=True).requires_grad_() for each in (pictures, weights))
        out = torch.nn.functional.conv2d(data, kernel, padding=1)
        out.square().sum().backward()
        results.append((out.detach(), data.grad, kernel.grad))
    return [error(found, reference) for found, reference in zip(*results, strict=True)]


def graph(device):
    """Return how far a recorded graph, replayed on new data, is from computing that at once."""
    held = torch.zeros(64, 64, device=device)
    weights = torch.randn(64, 64, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.relu(held @ weights)
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        result = torch.relu(held @ weights)
    held.copy_(torch.randn(64, 64, device=device))
    recorded.replay()
    torch.cuda.synchronize()
    return error(result, torch.relu(held @ weights).cpu())


def memory(device):
    """Return bytes in use and reserved: before, while a large tensor lives, and after it is gone."""
    read = (torch.cuda.memory_allocated, torch.cuda.memory_reserved)
    gc.collect()
    torch.cuda.empty_cache()
    before = [each() for each in read]
    large = torch.ones(1 << 26, device=device)
    during = [each() for each in read]
    del large
    torch.cuda.empty_cache()
    return {"before": before, "during": during, "after": [each() for each in read], "large": 4 << 26}


def main():
    """Print all results."""
    device = sys.argv[1]
    products = {str(dtype).removeprefix("torch."): matmul(device, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    document = {"matmul": products | {"tf32": matmul(device, torch.float32, tf32=True)}, "convolution": convolution(device)}
    if device == "cuda":
        document |= {"graph": graph(device), "memory": memory(device), "cudnn": torch.backends.cudnn.is_acceptable(torch.ones(1, device=device))}
    json.dump(document, sys.stdout)


main()
