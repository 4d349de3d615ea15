"""Parts: what is made from one set of inputs, and used again by every image that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torchstrata.store.digest import Digest
from torchstrata.store.layer import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What was made from one set of inputs.

    :param layers: bottom to top.
    :param extras: name and ``sha256:...`` of further blobs that belong to it.
    :param notes: facts for people and records.
    """

    layers: tuple[Layer, ...]
    extras: Mapping[str, Digest] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> frozenset[str]:
        """All blobs that it needs."""
        return frozenset({layer.digest for layer in self.layers} | set(self.extras.values()))


def part_title(part: Part) -> str:
    """Return one line that says what a part is."""
    titles = [layer.title for layer in part.layers]
    return part.notes.get("title") or ", ".join(titles[:1]) + (f" and {len(titles) - 1} more" if titles[1:] else "")
