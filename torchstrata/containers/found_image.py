"""An image from which containers can be made: what it says of itself, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from torchstrata.containers.description import ContainerDescription, Endpoint, of_image


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    """An image.

    :param identity: its ID in this engine; the digest of its manifest where it lies in a registry.
    :param name: the name by which it was asked for, ``[HOST/]REPOSITORY:TAG``.
    :param usual: the usual container of it.
    """

    identity: str
    name: str
    usual: ContainerDescription

    @classmethod
    def of(  # noqa: PLR0913  # what is known of an image
        cls,
        name: str,
        identity: str,
        labels: Mapping[str, str],
        endpoints: tuple[Endpoint, ...],
        platform: str,
        *,
        digest: str | None,
    ) -> Self:
        """Return what an image says of itself.

        :param name: ``[HOST/]REPOSITORY:TAG``.
        :param labels: of its config (image specification, Image Configuration).
        :param endpoints: its services.
        :param digest: of its manifest; ``None`` in an engine's classic store, where the ID alone names the image.
        """
        reference, tag = f"{name}@{digest}" if digest else identity, name.rpartition(":")[2]
        title = labels.get("org.opencontainers.image.description") or name
        usual = of_image(reference, tag=tag, title=title, endpoints=endpoints, cuda="torchstrata.cuda" in labels)
        return cls(identity=identity, name=name, usual=replace(usual, platform=platform))

    def describe(self, **more: Any) -> ContainerDescription:
        """Return a container of it.

        :param more: fields of the description that differ from the usual.
        """
        return replace(self.usual, **more)
