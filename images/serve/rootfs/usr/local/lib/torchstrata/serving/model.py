"""The network that the settings name, with its weights and the names of its classes."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from serving import settings
from serving.settings import Wanted

NO_WEIGHTS = "answers are random: {why}; mount a file of weights and set SERVE_WEIGHTS to it"


class Model(NamedTuple):
    """What answers.

    :param labels: names of its classes, in their order; those of the last ones may be missing.
    :param notice: what the person who runs it must know; empty if nothing.
    """

    network: nn.Module
    labels: tuple[str, ...]
    notice: str


def load(wanted: Wanted) -> Model:
    """Return the network in evaluation mode, with its weights and labels.

    Weights come from the file that was given, else from torchvision for a network of its own, where they can be downloaded or lie in torch.hub's cache.

    :raises ImportError: its module cannot be loaded.
    :raises AttributeError: it has no such function.
    :raises RuntimeError: the weights are another network's.
    :raises OSError: a file cannot be read.
    """
    name = wanted.model or (settings.OF_TORCHVISION if importlib.util.find_spec("torchvision") else settings.OWN)
    network: nn.Module = imported(name)()
    published = _published(name)
    notice = _fill(network, wanted, published)
    labels = Path(wanted.labels).read_text(encoding="utf-8").splitlines() if wanted.labels else published.meta["categories"] if published else ()
    return Model(network.eval(), tuple(labels), notice)


def imported(name: str) -> Any:
    """Return the object that ``module:name`` names.

    :raises ImportError: its module cannot be loaded.
    :raises AttributeError: that has no such name.
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _published(name: str) -> Any:
    """Return what torchvision says of the weights of a network of its own; ``None`` for others."""
    module, _, function = name.partition(":")
    if module != "torchvision.models":
        return None
    from torchvision.models import get_model_weights  # noqa: PLC0415  # only here, and not in every image

    return get_model_weights(function).DEFAULT


def _fill(network: nn.Module, wanted: Wanted, published: Any) -> str:
    """Give the network its weights; return why it has none, empty if it has."""
    if wanted.weights:
        stored = torch.load(wanted.weights, map_location="cpu", weights_only=True)
        network.load_state_dict(stored.get("model", stored))
        return ""
    if published is None:
        return NO_WEIGHTS.format(why="SERVE_WEIGHTS names no file")
    try:
        network.load_state_dict(published.get_state_dict(progress=False))
    except OSError as error:  # of urllib as well
        return NO_WEIGHTS.format(why=f"torchvision's weights cannot be downloaded ({error})")
    return ""
