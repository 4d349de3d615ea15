"""Join processes in a group and use it: ``collectives.py BACKEND SIZE``, as ``gloo 2``, or ``nccl`` with a GPU for each process.

Prints for each rank what it got of all_reduce, broadcast and all_gather, its device, its losses of a few steps of distributed
training on data of its own, and a checksum of the parameters afterwards.
"""

import json
import multiprocessing
import os
import sys
import tempfile

import torch
import torch.distributed

STEPS = 3


def collectives(rank, size, device):
    """Return what the ranks, known to each, become together."""
    mine = torch.tensor([float(rank + 1)], device=device)
    total, first = mine.clone(), mine.clone()
    gathered = [torch.zeros_like(mine) for _ in range(size)]
    torch.distributed.all_reduce(total)
    torch.distributed.broadcast(first, src=0)
    torch.distributed.all_gather(gathered, mine)
    return {"all_reduce": total.item(), "broadcast": first.item(), "all_gather": [each.item() for each in gathered]}


def train(rank, device):
    """Return the losses of a few steps, and the parameters at the end."""
    # Other parameters and other data in each rank: that all end up with the same is DistributedDataParallel's work.
    torch.manual_seed(rank)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)).to(device)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.05)
    inputs = torch.randn(64, 16, device=device)
    target = inputs.sum(dim=1, keepdim=True)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(parallel(inputs), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "parameters": [value.item() for parameter in model.parameters() for value in parameter.double().flatten()]}


def member(rank, size, backend, meeting, results):
    """Be one process of the group."""
    device = f"cuda:{rank}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(backend, init_method=f"file://{meeting}/meeting", rank=rank, world_size=size)
    result = {"rank": rank, "device": device} | collectives(rank, size, device) | train(rank, device)
    torch.distributed.destroy_process_group()
    results.put(result)


def main():
    """Print one document for all ranks."""
    backend, size = sys.argv[1], int(sys.argv[2])
    # Gloo prints on standard output.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Nothing has used threads or a GPU yet in this process, so children may take over its torch.
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting:
        processes = [context.Process(target=member, args=(rank, size, backend, meeting, results)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    failed = [rank for rank, process in enumerate(processes) if process.exitcode]
    if failed:
        sys.exit(f"ranks {failed} failed")
    json.dump(sorted((results.get() for _ in processes), key=lambda result: result["rank"]), out)
    out.close()


main()
