"""Use torchvision on a device, ``vision.py DEVICE``: operators against results worked out by hand, transforms, two networks.

Prints for each what came out; the networks' weights are random but always the same, and with them the sizes of their answers.
"""

import json
import sys

import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2


def nms(device):
    """Return which boxes remain: the second lies over the first and scores less, the third is elsewhere."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]], device=device)
    return torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), iou_threshold=0.5).tolist()


def roi_align(device):
    """Return the means of a slope that rises by one with each column, over quarters of its middle."""
    slope = torch.arange(16.0, device=device).expand(1, 1, 16, 16)
    boxes = torch.tensor([[0.0, 4, 4, 12, 12]], device=device)
    return torchvision.ops.roi_align(slope, boxes, output_size=2, sampling_ratio=2, aligned=True).flatten().tolist()


def transforms():
    """Return shape, and range of values, of a picture after the usual transforms."""
    picture = Image.new("RGB", (320, 240), (255, 0, 0))
    usual = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.RandomHorizontalFlip(p=1.0)])
    tensor = usual(picture)
    return {"shape": list(tensor.shape), "red": tensor[0].mean().item(), "rest": tensor[1:].abs().max().item()}


def network(name, device):
    """Return shape and finiteness of a network's answer, and how far the first of two pictures is from what it is alone."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval().to(device)
    pictures = torch.randn(2, 3, 96, 96, device=device)
    with torch.inference_mode():
        together = model(pictures)
        alone = model(pictures[:1])
    return {
        "shape": list(together.shape),
        "finite": bool(torch.isfinite(together).all()),
        "apart": ((together[:1] - alone).norm() / alone.norm()).item(),
    }


def main():
    """Print all results."""
    device = sys.argv[1]
    document = {"nms": nms(device), "roi_align": roi_align(device), "transforms": transforms()}
    json.dump(document | {name: network(name, device) for name in ("resnet50", "efficientnet_b3")}, sys.stdout)


main()
