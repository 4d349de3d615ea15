"""Save a tone by torchaudio in each format and load it again. Prints for each the rate, the shape, and the largest difference."""

import json
import math
import sys
import tempfile
from pathlib import Path

import torch
import torchaudio

RATE, TONE, FORMATS = 16_000, 440, ("wav", "flac")


def around(wave, path):
    """Save and load a wave; return what came back."""
    torchaudio.save(str(path), wave, RATE)
    loaded, rate = torchaudio.load(str(path))
    return {"rate": rate, "shape": list(loaded.shape), "difference": (loaded - wave).abs().max().item()}


def main():
    """Print what came back of each format."""
    wave = 0.5 * torch.sin(2 * math.pi * TONE * torch.arange(RATE) / RATE)[None]
    with tempfile.TemporaryDirectory() as folder:
        json.dump({name: around(wave, Path(folder, f"tone.{name}")) for name in FORMATS}, sys.stdout)


main()
