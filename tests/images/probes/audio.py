"""Use torchaudio: the spectrogram of a pure tone. Prints the frequency where it is loudest, in Hz, and the width of its bins."""

import json
import math
import sys

import torch
import torchaudio

RATE, TONE, BINS = 16_000, 1_000, 512


def main():
    """Print where the tone is found."""
    wave = torch.sin(2 * math.pi * TONE * torch.arange(RATE) / RATE)
    spectrum = torchaudio.transforms.Spectrogram(n_fft=BINS)(wave).mean(dim=-1)
    halved = torchaudio.functional.resample(wave, RATE, RATE // 2)
    json.dump({"tone": TONE, "loudest": spectrum.argmax().item() * RATE / BINS, "bin": RATE / BINS, "halved": len(halved) * 2 / len(wave)}, sys.stdout)


main()
