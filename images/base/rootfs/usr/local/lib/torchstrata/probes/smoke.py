"""Does torch work here? A matrix product, mixed precision and the compiler, each against a known result."""

import sys
import time

import torch

TOLERANCE = 1e-3
"""Largest difference that is still rounding, for values around 1."""


def matrix_product(device: str) -> None:
    """Multiply matrices of ones: every element is their size."""
    ones = torch.ones(256, 256, device=device)
    assert torch.equal(ones @ ones, torch.full_like(ones, 256.0)), "a matrix product is wrong"


def mixed_precision(device: str) -> None:
    """Take one training step under autocast."""
    model = torch.nn.Linear(64, 64).to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = model(torch.ones(8, 64, device=device)).square().mean()
    loss.backward()
    assert model.weight.grad is not None, "mixed precision gave no gradient"
    assert torch.isfinite(model.weight.grad).all(), "mixed precision gave an infinite gradient"


def compiler(device: str) -> None:
    """Compile a function and compare it with itself in double precision.

    Torch's first vector functions on a CPU may be of low accuracy: seen with 2.13.0 (MKL 2024.2) on a busy machine, 1.3e-5 in
    eager mode while the compiled function was right. A wrong compiler is further off than :data:`TOLERANCE`.
    """

    def plain(values: torch.Tensor) -> torch.Tensor:
        return torch.sin(values).square() + 2 * torch.cos(values)

    values = torch.linspace(0, 1, 4096, device=device)
    difference = (torch.compile(plain)(values).double() - plain(values.double())).abs().max().item()
    assert difference <= TOLERANCE, f"torch.compile gives other results: they differ by up to {difference:.2g}"


def main() -> int:
    """Print one line and return 0.

    :raises AssertionError: a result is wrong.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = []
    for test in (matrix_product, mixed_precision, compiler):
        start = time.monotonic()
        test(device)
        times.append(f"{test.__name__.replace('_', ' ')} {time.monotonic() - start:.1f} s")
    print(f"torch {torch.__version__} on {device}: {', '.join(times)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
