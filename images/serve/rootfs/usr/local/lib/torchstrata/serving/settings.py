"""What the variables ``SERVE_...`` ask of the server; with Python's library alone, since the start of a container checks them, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

OF_TORCHVISION: Final = "torchvision.models:resnet50"
OWN: Final = "serving.resnet:resnet50"
"""The same network, for images without torchvision."""

OBJECT: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Wanted(NamedTuple):
    """What is served, and how.

    :param model: ``module:function``, which returns a network; empty where the default is meant.
    :param worker: ``module:class``, a Mosec worker of somebody's own in place of the network.
    :param weights: file of the network's parameters; empty where none was given.
    :param labels: file of the names of classes, one a line; empty where none was given.
    :param size: pixels of a side of what the network sees.
    :param batch: pictures that may go through the network at a time.
    :param wait: milliseconds for which the first picture of a batch waits for others.
    :param workers: processes that have the network.
    :param decoders: processes that read pictures.
    :param top: number of classes in an answer.
    """

    model: str
    worker: str
    weights: str
    labels: str
    size: int
    batch: int
    wait: int
    workers: int
    decoders: int
    top: int


class WantedError(ValueError):
    """A variable has a value that it cannot have.

    :param what: what is wrong.
    :param fix: what to do.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what} - {fix}")
        self.what, self.fix = what, fix


NUMBERS: Final = {
    "SERVE_SIZE": (224, 16, 4096),
    "SERVE_BATCH": (8, 1, 1024),
    "SERVE_WAIT": (5, 0, 1000),
    "SERVE_WORKERS": (1, 1, 64),
    "SERVE_DECODERS": (1, 1, 64),
    "SERVE_TOP": (5, 1, 1000),
}
"""Default, lowest and highest value."""


def read(given: Mapping[str, str]) -> Wanted:
    """Return what the variables ask for.

    :raises WantedError: one has a value that it cannot have.
    """
    number = {name: _number(name, given.get(name, "")) for name in NUMBERS}
    return Wanted(
        model=_object("SERVE_MODEL", given.get("SERVE_MODEL", "")),
        worker=_object("SERVE_WORKER", given.get("SERVE_WORKER", "")),
        weights=given.get("SERVE_WEIGHTS", ""),
        labels=given.get("SERVE_LABELS", ""),
        size=number["SERVE_SIZE"],
        batch=number["SERVE_BATCH"],
        wait=number["SERVE_WAIT"],
        workers=number["SERVE_WORKERS"],
        decoders=number["SERVE_DECODERS"],
        top=number["SERVE_TOP"],
    )


def check_files(wanted: Wanted) -> None:
    """Open the files of weights and labels that were given.

    :raises WantedError: one cannot be read.
    """
    for name, place in (("SERVE_WEIGHTS", wanted.weights), ("SERVE_LABELS", wanted.labels)):
        try:
            if place:
                Path(place).open("rb").close()
        except OSError as error:
            raise WantedError(f"{name}={place} cannot be read: {error.strerror}", "mount the file there, such as -v ./models:/models:ro") from error


def _object(name: str, value: str) -> str:
    """Return ``module:name`` as it is; empty where none is given.

    :raises WantedError: it has another form.
    """
    if value and not OBJECT.fullmatch(value):
        raise WantedError(f"{name}={value[:60]!r} names no object", "write module:name, such as torchvision.models:resnet50")
    return value


def _number(name: str, value: str) -> int:
    """Return a number of :data:`NUMBERS`, its default where none is given.

    :raises WantedError: it is none, or out of bounds.
    """
    default, lowest, highest = NUMBERS[name]
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(highest)) and lowest <= int(value) <= highest):
        raise WantedError(f"{name}={value[:60]!r} is no number from {lowest} to {highest}", f"leave it out for {default}")
    return int(value)
