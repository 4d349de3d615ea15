"""Classify four images with ResNet-50: the first thing to run in a new container.

    python resnet50_inference.py [--batch 4] [--image FILE ...]

Without images it uses random ones. The pretrained weights are downloaded where that is possible; where it is not, one line says so and the
network runs untrained: the same code, meaningless classes.
"""

import argparse
import sys
import time
import urllib.error

import torch
from PIL import Image

try:
    import torchvision
    from torchvision.models import ResNet50_Weights
except ModuleNotFoundError:
    sys.exit("this image has no torchvision: pip install torchvision, or use an image with CUDA")

WEIGHTS = "IMAGENET1K_V1"


def load(weights: str) -> torch.nn.Module:
    """Return ResNet-50, pretrained where its weights can be had."""
    try:
        return torchvision.models.resnet50(weights=weights).eval()
    except (urllib.error.URLError, OSError) as error:
        print(f"pretrained weights left out: they cannot be downloaded ({error})")
        return torchvision.models.resnet50(weights=None).eval()


def batch(files: list[str], size: int) -> torch.Tensor:
    """Return a batch of images as the network wants them: N x 3 x 224 x 224."""
    if not files:
        return torch.rand(size, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    transform = ResNet50_Weights[WEIGHTS].transforms()
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


def classify(model: torch.nn.Module, images: torch.Tensor, device: str) -> torch.Tensor:
    """Return N x 1000 class probabilities; in mixed precision on a GPU."""
    with torch.inference_mode(), torch.autocast(device, enabled=device == "cuda"):
        return model.to(device)(images.to(device, non_blocking=True)).float().softmax(dim=1).cpu()


def main() -> int:
    """Print the best class of each image, the time, and on a GPU the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="number of random images")
    parser.add_argument("--image", nargs="*", default=[], help="image files")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, images = load(WEIGHTS), batch(options.image, options.batch)
    start = time.perf_counter()
    probabilities = classify(model, images, device)
    print(f"{tuple(images.shape)} on {device} in {time.perf_counter() - start:.2f} s")
    names = ResNet50_Weights[WEIGHTS].meta["categories"]
    for number, row in enumerate(probabilities):
        best = int(row.argmax())
        print(f"image {number}: {names[best]} ({row[best]:.1%})")
    if device == "cuda":
        print(torch.cuda.memory_summary(abbreviated=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
