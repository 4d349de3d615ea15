"""Train on all GPUs of a machine: DistributedDataParallel with NCCL, or with gloo on CPUs.

    python ddp_train.py [--epochs 5] [--processes N] [--recompute] [--fresh]

Each epoch is saved to ``checkpoints/ddp.pt``; a second start goes on where the first one stopped. The task is made up: tell noisy waves of four
frequencies apart. DDP is faster on one machine, too: ``DataParallel`` copies the model to every GPU at every step, DDP once.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

CHECKPOINT = pathlib.Path(os.environ.get("WORKSPACE", "/workspace")) / "checkpoints" / "ddp.pt"
CLASSES, LENGTH, SAMPLES = 4, 128, 2048


class Network(nn.Module):
    """A small network in two halves; ``recompute`` trades time for memory in the first (gradient checkpointing)."""

    def __init__(self, *, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.first = nn.Sequential(nn.Conv1d(1, 32, 9, padding=4), nn.GELU(), nn.Conv1d(32, 32, 9, padding=4), nn.GELU())
        self.second = nn.Sequential(nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(256, CLASSES))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Return a score for each class."""
        features = checkpoint(self.first, waves, use_reentrant=False) if self.recompute else self.first(waves)
        return self.second(features)


def waves() -> TensorDataset:
    """Return the data set, the same in every process: waves and the classes of their frequencies."""
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=random)
    times = torch.linspace(0, 1, LENGTH)
    phases = torch.rand(SAMPLES, 1, generator=random)
    clean = torch.sin(2 * torch.pi * ((labels[:, None] + 2) * 2 * times + phases))
    return TensorDataset((clean + 0.3 * torch.randn(SAMPLES, LENGTH, generator=random))[:, None], labels)


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Load what an earlier run has saved; return the number of epochs that it has trained."""
    if not CHECKPOINT.exists():
        return 0
    saved = torch.load(CHECKPOINT, map_location=device, weights_only=True)
    model.module.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["epochs"]


def save(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Save model and optimizer; a crash in the middle leaves the last good file."""
    CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    unfinished = CHECKPOINT.with_suffix(".tmp")
    torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs}, unfinished)
    unfinished.replace(CHECKPOINT)


def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, total: torch.Tensor) -> None:
    """Train one epoch, in mixed precision where there is a GPU.

    :param total: becomes the sums of loss, right answers and samples over all processes.
    """
    total.zero_()
    for batch in loader:
        inputs, labels = (part.to(total.device, non_blocking=True) for part in batch)
        with torch.autocast(total.device.type, enabled=total.is_cuda):
            scores = model(inputs)
            loss = nn.functional.cross_entropy(scores, labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total += torch.stack([loss.detach() * len(labels), (scores.argmax(1) == labels).sum(), torch.tensor(len(labels), device=total.device)])
    dist.all_reduce(total)


def train(rank: int, options: argparse.Namespace, total: torch.Tensor) -> None:
    """Train what is left of the epochs as one process of the group; ``total`` is room for the sums of an epoch."""
    torch.manual_seed(rank)
    model = DistributedDataParallel(Network(recompute=options.recompute).to(total.device), device_ids=[rank] if total.is_cuda else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(enabled=total.is_cuda)
    data = waves()
    sampler = DistributedSampler(data, options.processes, rank)
    loader = DataLoader(data, batch_size=64, sampler=sampler, pin_memory=total.is_cuda)
    done = resume(model, optimizer, total.device)
    if rank == 0:
        where, state = "GPU, NCCL" if total.is_cuda else "CPU, gloo", f"resuming after epoch {done}" if done else "starting"
        print(f"{options.processes} processes on {where}; {state}", flush=True)
    for epoch in range(done, options.epochs):
        sampler.set_epoch(epoch)
        train_epoch(model, loader, optimizer, scaler, total)
        if rank == 0:
            loss, right, samples = total.tolist()
            save(model, optimizer, epoch + 1)
            print(f"epoch {epoch + 1}: loss {loss / samples:.3f}, accuracy {right / samples:.1%}", flush=True)


def worker(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """Join the group as process ``rank``, train, and leave it.

    :param meeting: path of a file by which the processes find each other.
    """
    with_gpu = torch.cuda.is_available()
    if with_gpu:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if with_gpu else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    # Before torch 2.8, a gloo group waits forever for its own thread if it ends while that thread drops the last reference to a tensor
    # (pytorch#154976). So the tensor that is reduced lives longer than the group, and the model, which holds the group, shorter.
    total = torch.zeros(3, device=f"cuda:{rank}" if with_gpu else "cpu")
    train(rank, options, total)
    dist.destroy_process_group()
    # The group's threads outlive it, since the model's own references form a circle. One that gives up a tensor while Python is being taken
    # down aborts the process, although all is done (pytorch#190489). So Python is not taken down.
    os._exit(0)


def main() -> int:
    """Start one process per GPU, two without any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=torch.cuda.device_count() or 2)
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    parser.add_argument("--fresh", action="store_true", help="do not resume")
    options = parser.parse_args()
    if options.fresh:
        CHECKPOINT.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        mp.spawn(worker, args=(options, f"{directory}/meeting"), nprocs=options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
