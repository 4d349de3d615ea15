"""The two stages of an answer, each in processes of its own: reading pictures, and the network.

An error in a batch is Mosec's answer to all of it. So pictures are read one by one, before a batch is made: one that is none harms no other.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from typing import Any

import numpy as np
from mosec import DecodingError, Worker

from serving import settings

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, which nearly all pretrained networks expect."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
"""What strangers may send: Pillow reads more, and hands some of it to other programs."""

MARGIN = 8
"""Pixels that the shorter side is scaled to beyond what the network sees, as torchvision does for its newer weights."""


class Reader(Worker):
    """Makes arrays of pictures: H x W x 3 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = settings.read(os.environ).size

    def deserialize(self, data: bytes) -> bytes:
        """Return the body of a request as it is: a picture."""
        return data

    def forward(self, data: Any) -> Any:
        """Return the middle of a picture, scaled.

        :raises DecodingError: the body is no picture; the client gets status 400.
        """
        from PIL import Image  # noqa: PLC0415  # the network's process has no use for it

        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                return np.asarray(_middle(picture.convert("RGB"), self.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            what = f"not a picture that can be read: send one of {', '.join(FORMATS)}"
            raise DecodingError(what) from error


class Classifier(Worker):
    """Answers with the best classes of each picture."""

    def __init__(self) -> None:
        super().__init__()
        import torch  # noqa: PLC0415  # the other processes need none of it

        from serving import model  # noqa: PLC0415

        warnings.filterwarnings("ignore", message="IPC data")  # Mosec's, of every batch above a megabyte
        self.torch = torch
        self.wanted = settings.read(os.environ)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            loaded = model.load(self.wanted)
        except Exception as error:  # noqa: BLE001  # of the author of the network as well
            name = self.wanted.model or "the default network"
            sys.exit(f"{name} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if loaded.notice:
            sys.stderr.write(f"{loaded.notice}\n")
        self.labels, self.network = loaded.labels, loaded.network.to(self.device)
        self._scores([np.zeros((self.wanted.size, self.wanted.size, 3), np.uint8)])

    def forward(self, data: Any) -> Any:
        """Return an answer for each picture; one picture comes, and one answer goes, where Mosec makes no batches."""
        pictures = data if self.max_batch_size > 1 else [data]
        answers = [self._answer(*row) for row in self._scores(pictures)]
        return answers if self.max_batch_size > 1 else answers[0]

    def serialize(self, data: Any) -> bytes:
        """Return an answer as JSON."""
        return json.dumps(data).encode()

    def _scores(self, pictures: list[Any]) -> list[tuple[list[float], list[int]]]:
        """Return probabilities and numbers of the best classes of each picture; in mixed precision on a GPU."""
        torch = self.torch
        with torch.inference_mode(), torch.autocast(self.device, enabled=self.device == "cuda"):
            values = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
            mean, std = (torch.tensor(channels, device=self.device).view(3, 1, 1) for channels in (MEAN, STD))
            scores = self.network((values - mean) / std).float().softmax(1)
        best = scores.topk(min(self.wanted.top, scores.shape[1]))
        return list(zip(best.values.tolist(), best.indices.tolist(), strict=True))

    def _answer(self, probabilities: list[float], numbers: list[int]) -> dict[str, Any]:
        pairs = zip(numbers, probabilities, strict=True)
        return {"classes": [{"index": number, "label": self._label(number), "probability": value} for number, value in pairs]}

    def _label(self, number: int) -> str:
        return self.labels[number] if number < len(self.labels) else str(number)


def _middle(picture: Any, size: int) -> Any:
    """Return the square in the middle of a picture whose shorter side was scaled."""
    scale = (size + MARGIN) / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    scaled = picture.resize((width, height), 2)  # bilinear
    left, top = (width - size) // 2, (height - size) // 2
    return scaled.crop((left, top, left + size, top + size))
