"""Compile a function with torch.compile on a device, ``compiled.py DEVICE``, with an empty cache, and compare it with itself
in double precision: torch's own vector functions may be of low accuracy when first used on a busy CPU (probes/smoke.py). Headers
are not compiled ahead, as they are for who compiles many functions and in the doctor's own test: that takes as long again.

Prints the largest difference of the results, how many graphs were compiled, how often Python had to help out, and the kinds of
files that the compilers made.
"""

import collections
import json
import os
import pathlib
import sys
import tempfile

import torch
import torch._inductor.config as inductor


def function(values, weights):
    """Return something that is worth fusing."""
    return (torch.softmax(values @ weights, dim=-1) * torch.sin(values).square()).sum(dim=0)


def main():
    """Print the comparison."""
    if hasattr(inductor, "cpp_cache_precompile_headers"):
        inductor.cpp_cache_precompile_headers = False
    torch.manual_seed(0)
    values, weights = (torch.randn(rows, 32, device=sys.argv[1]) for rows in (64, 32))
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"}
        difference = torch.compile(function, fullgraph=True)(values, weights) - function(values.double(), weights.double())
        made = collections.Counter(path.suffix for path in pathlib.Path(cache).rglob("*") if path.is_file())
    # Only torch.compile's first use brings the module that counts.
    from torch._dynamo.utils import counters  # noqa: PLC0415

    document = {"difference": difference.abs().max().item(), "graphs": counters["stats"]["unique_graphs"], "breaks": len(counters["graph_break"]), "made": made}
    json.dump(document, sys.stdout)


main()
