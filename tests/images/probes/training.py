"""Train in mixed precision, ``training.py DEVICE DTYPE``, and beside it in full precision, from the same start.

Prints both series of losses, the type that a layer computed in, the type of its parameters, and whether every gradient was
finite.
"""

import json
import sys

import torch

STEPS = 5


def network():
    """Return a small network with a convolution; always the same."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 16 * 16, 10))


def scaler_for(device, dtype):
    """Return what keeps small gradients of float16 alive; it does nothing for other types."""
    enabled = dtype is torch.float16
    return torch.amp.GradScaler(device, enabled=enabled) if hasattr(torch.amp, "GradScaler") else torch.cuda.amp.GradScaler(enabled=enabled)


def train(device, dtype):
    """Return the losses, the type of the last layer's output, and whether all gradients were finite."""
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = scaler_for(device, dtype)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 3, 16, 16, generator=generator).to(device)
    classes = torch.randint(10, (16,), generator=generator).to(device)
    losses, finite = [], True
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            scores = model(images)
            loss = torch.nn.functional.cross_entropy(scores, classes)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        finite = finite and all(bool(torch.isfinite(each.grad).all()) for each in model.parameters())
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return {"losses": losses, "computed": str(scores.dtype), "parameters": str(model[0].weight.dtype), "finite": finite}


def main():
    """Print both runs."""
    device, dtype = sys.argv[1], getattr(torch, sys.argv[2])
    json.dump({"mixed": train(device, dtype), "full": train(device, torch.float32)}, sys.stdout)


main()
