"""Find scratches on metal surfaces, pixel by pixel, and follow one through a film: from no data to masks, boxes, scores and a video.

    python segment_defects.py [--epochs 8] [--size 96] [--pictures 160]

The pictures are drawn here. A small U-Net learns masks from pictures that albumentations turns and lights anew in each epoch; torchmetrics
scores pixels, pycocotools the scratches that were found, as COCO scores masks; supervision draws them and follows one through a film, which
PyAV writes. Model, picture and film go to the workspace. In images with torchvision, segmentation_models_pytorch has larger networks with the
same interface, such as smp.Unet("resnet34").
"""

import argparse
import contextlib
import io
import os
import time
import warnings
from pathlib import Path

import albumentations as A  # noqa: N812  # as everybody calls it
import av
import cv2
import numpy as np
import supervision as sv
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import BinaryJaccardIndex

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORKSPACE = Path(os.environ.get("WORKSPACE", "/workspace"))
WORKERS = max(1, len(os.sched_getaffinity(0)) // 2)
SURE = 0.5
"""Probability above which a pixel counts as scratched."""


def draw(rng: np.random.Generator, size: int, start: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of brushed metal with a scratch, and the scratch's mask.

    :param start: where the scratch begins, in pixels; anywhere in the middle where none is given.
    """
    rows = rng.normal(150, 12, (size, 1, 1)).repeat(size, axis=1) + rng.normal(0, 6, (size, size, 1))
    picture = np.clip(rows, 0, 255).astype(np.uint8).repeat(3, axis=2)
    mask = np.zeros((size, size), np.uint8)
    begin = rng.uniform(0.2, 0.5, 2) * size if start is None else start
    points = (begin + np.cumsum(np.abs(rng.normal(0, size / 8, (3, 2))), axis=0)).astype(np.int32).reshape(1, -1, 2)
    cv2.polylines(mask, points, isClosed=False, color=1, thickness=max(2, size // 32))
    picture[mask == 1] = (235, 235, 240)
    return cv2.GaussianBlur(picture, (3, 3), 0), mask


class Surfaces(Dataset):
    """Pictures and masks, changed anew whenever they are asked for."""

    def __init__(self, count: int, size: int, seed: int, *, training: bool) -> None:
        rng = np.random.default_rng(seed)
        self.pairs = [draw(rng, size) for _ in range(count)]
        changes = [A.HorizontalFlip(), A.VerticalFlip(), A.RandomBrightnessContrast(), A.GaussNoise()] if training else []
        self.change = A.Compose([*changes, A.Normalize(), A.ToTensorV2()], seed=seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture, mask = self.pairs[number]
        changed = self.change(image=picture, mask=mask)
        return changed["image"], changed["mask"].float()


class UNet(nn.Module):
    """Two steps down and two up; each step up also sees what the step down beside it has made."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _pair(3, width), _pair(width, 2 * width), _pair(2 * width, 4 * width)
        self.up2, self.up1 = _pair(6 * width, 2 * width), _pair(3 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, 1, 1)
        self.grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return N x H x W scores of N x 3 x H x W pictures."""
        first = self.down1(pictures)
        second = self.down2(self.pool(first))
        values = self.grow(self.bottom(self.pool(second)))
        values = self.grow(self.up2(torch.cat([values, second], 1)))
        return self.head(self.up1(torch.cat([values, first], 1)))[:, 0]


def _pair(channels: int, out: int) -> nn.Sequential:
    first = nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    second = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    return nn.Sequential(*first, *second)


def train(network: nn.Module, data: Dataset, epochs: int) -> None:
    """Train the network; print one line for each epoch."""
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * len(loader))
    weight = torch.tensor(5.0, device=DEVICE)  # few pixels are scratched
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        for pictures, masks in loader:
            scores = network(pictures.to(DEVICE))
            loss = nn.functional.binary_cross_entropy_with_logits(scores, masks.to(DEVICE), pos_weight=weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{epochs}: loss {sum(losses) / len(losses):.3f} ({time.perf_counter() - start:.1f} s)", flush=True)


def predict(network: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Return N x H x W probabilities that a pixel is scratched."""
    network.eval()
    with torch.inference_mode():
        return network(pictures.to(DEVICE)).sigmoid().cpu()


def overlap(probabilities: torch.Tensor, masks: torch.Tensor) -> float:
    """Return intersection over union of the pixels."""
    metric = BinaryJaccardIndex()
    return float(metric(probabilities, masks.int()))


def precision(probabilities: torch.Tensor, masks: torch.Tensor) -> float:
    """Return COCO's average precision of masks at an overlap of one half."""
    sizes = {"width": masks.shape[2], "height": masks.shape[1]}
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number, **sizes} for number in range(len(masks))],
        "categories": [{"id": 1, "name": "scratch"}],
        "annotations": [
            {
                "id": number + 1,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "area": float(mask.sum()),
                "segmentation": _encoded(mask),
                "bbox": [0, 0, 1, 1],
            }
            for number, mask in enumerate(masks)
        ],
    }
    results = [
        {"image_id": number, "category_id": 1, "segmentation": _encoded(picture > SURE), "score": float(picture.max())}
        for number, picture in enumerate(probabilities)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(results), "segm")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(scored.stats[1])


def _encoded(mask: torch.Tensor) -> dict[str, object]:
    return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def film(network: nn.Module, size: int, place: Path, frames: int = 12) -> set[int]:
    """Let a scratched sheet move past, write the film to ``place``, and return the numbers that the tracker gave to what it saw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracker moves to a package of its own (docs/flavours.md of torchstrata)
        tracker = sv.ByteTrack(frame_rate=10)
    change, seen = A.Compose([A.Normalize(), A.ToTensorV2()]), set()
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 2 * (2 * size // 2)
        stream.pix_fmt = "yuv420p"
        for frame in range(frames):
            picture, _ = draw(np.random.default_rng(5), size, start=np.array([0.2 * size + frame, 0.3 * size]))
            mask = (predict(network, change(image=picture)["image"][None])[0] > SURE).numpy()
            boxes = sv.Detections(xyxy=sv.mask_to_xyxy(mask[None]), mask=mask[None], confidence=np.ones(1), class_id=np.zeros(1, int))
            tracked = tracker.update_with_detections(boxes if mask.any() else sv.Detections.empty())
            seen |= set(map(int, tracked.tracker_id))
            shown = sv.BoxAnnotator(thickness=1).annotate(sv.MaskAnnotator().annotate(picture.copy(), tracked), tracked)
            larger = cv2.resize(shown, (stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(larger, format="rgb24")))
        container.mux(stream.encode())
    return seen


def main() -> None:
    """Train, score, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side, a multiple of 4")
    parser.add_argument("--pictures", type=int, default=160)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = UNet().to(DEVICE)
    train(network, Surfaces(options.pictures, options.size, seed=1, training=True), options.epochs)
    test = Surfaces(32, options.size, seed=2, training=False)
    pictures, masks = (torch.stack(values) for values in zip(*test, strict=True))
    probabilities = predict(network, pictures)
    print(f"overlap of pixels {overlap(probabilities, masks):.1%}, average precision of masks at 50 % {precision(probabilities, masks):.1%}")
    for name in ("checkpoints", "plots"):
        (WORKSPACE / name).mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), WORKSPACE / "checkpoints" / "scratches.pt")
    numbers = film(network, options.size, WORKSPACE / "plots" / "scratches.mp4")
    print(f"one scratch passed by, and was known as {len(numbers)}: {WORKSPACE / 'plots' / 'scratches.mp4'}")


if __name__ == "__main__":
    main()
