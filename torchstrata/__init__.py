"""PyTorch + CUDA images composed from a matrix: wheels become layers, the OS is a part, payload first."""

__version__ = "0.1.0"
