"""Tell what torch sees of the GPUs, and what NVIDIA's own tool says of them."""

import json
import subprocess
import sys

import torch

QUERY = ("name", "driver_version", "compute_cap", "memory.total")


def of_driver():
    """Return what ``nvidia-smi`` says, one row for each GPU."""
    done = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True)
    return [dict(zip(QUERY, line.split(", "), strict=True)) for line in done.stdout.splitlines()]


def main():
    """Print both views."""
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    document = {
        "available": torch.cuda.is_available(),
        "devices": [{"name": each.name, "capability": [each.major, each.minor], "memory": each.total_memory} for each in devices],
        "architectures": torch.cuda.get_arch_list(),
        "driver": of_driver(),
    }
    json.dump(document, sys.stdout)


main()
