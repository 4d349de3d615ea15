"""Does NCCL work here? One process for each GPU, one all-reduce; a single GPU is enough."""

import os
import sys
import tempfile

import torch
import torch.distributed
import torch.multiprocessing


def member(rank: int, size: int, meeting: str) -> None:
    """Add up the ranks of all processes on the GPUs and check the sum, as process ``rank`` of ``size``.

    :param meeting: path of a file by which the processes find each other; it does not exist yet.
    """
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", init_method=f"file://{meeting}", rank=rank, world_size=size)
    total = torch.tensor([float(rank)], device="cuda")
    torch.distributed.all_reduce(total)
    torch.cuda.synchronize()
    torch.distributed.destroy_process_group()
    assert total.item() == size * (size - 1) / 2, f"rank {rank} got {total.item()}"


def main() -> int:
    """Print one line and return 0, also where there is no GPU.

    :raises ProcessRaisedException: a process has failed, or got a wrong sum.
    """
    size = torch.cuda.device_count()
    if not size:
        print("left out: no GPU")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        torch.multiprocessing.spawn(member, args=(size, os.path.join(directory, "meeting")), nprocs=size)  # noqa: PTH118
    print(f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}: all-reduce over {size} GPU{'s' if size > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
