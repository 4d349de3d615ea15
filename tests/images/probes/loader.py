"""Load batches of some sizes in worker processes, ``loader.py WORKERS MEGABYTES...``: they come through shared memory.

Prints for each size how many batches came, the sum of the numbers in them, and the size of shared memory in bytes; or ``error``.
"""

import json
import multiprocessing.queues
import os
import sys

import torch
import torch.utils.data

BATCHES = 6
PATIENCE = 300
"""Seconds until a batch counts as never coming."""


class Blocks(torch.utils.data.Dataset):
    """Tensors of a size in bytes; each is filled with its number."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return BATCHES

    def __getitem__(self, number):
        return torch.full((self.size,), number, dtype=torch.uint8)


def speak_up(_):
    """Let a worker end that cannot share its batch: it would only print that, and be waited for."""
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(lambda error, _: os._exit(1))


def load(size, workers):
    """Return how many batches came, and the sum of the numbers that they are filled with."""
    options = {"num_workers": workers, "multiprocessing_context": "fork", "timeout": PATIENCE, "worker_init_fn": speak_up}
    loader = torch.utils.data.DataLoader(Blocks(size), batch_size=None, **options)
    numbers = []
    for batch in loader:
        assert bool((batch == batch[0]).all()), "a batch is not what its worker made"
        numbers.append(int(batch[0]))
    return {"batches": len(numbers), "sum": sum(numbers)}


def outcome(size, workers):
    """Return what came, or why nothing did."""
    space = os.statvfs("/dev/shm")
    try:
        result = load(size, workers)
    except (RuntimeError, OSError, EOFError) as error:  # the last one from a worker that dies while it hands over a batch
        result = {"error": f"{type(error).__name__}: {error}"}
    return result | {"shared": space.f_blocks * space.f_frsize}


def main():
    """Print what became of each size."""
    torch.set_num_threads(1)
    workers, *sizes = map(int, sys.argv[1:])
    json.dump([outcome(size * 1_000_000, workers) for size in sizes], sys.stdout)


main()
