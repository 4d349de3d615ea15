"""An image from which containers can be made: what it says of itself, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from torchstrata.containers import description as descriptions
from torchstrata.containers.description import ContainerDescription, Endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImage:
    """An image.

    :param reference: with its digest; its ID where the digest is not known.
    :param identity: its ID in this engine; the digest of its manifest where it lies in a registry.
    :param name: the name by which it was asked for, ``[HOST/]REPOSITORY:TAG``.
    :param title: what it is, in one line.
    :param endpoints: its services.
    :param cuda: whether its torch can use GPUs.
    """

    reference: str
    identity: str
    name: str
    title: str
    endpoints: tuple[Endpoint, ...]
    cuda: bool
    platform: str

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
        :param digest: of its manifest; ``None`` in an engine's classic store, where the ID alone names the image.
        """
        return cls(
            reference=f"{name}@{digest}" if digest else identity,
            identity=identity,
            name=name,
            title=descriptions.plain(labels.get("org.opencontainers.image.description") or name),
            endpoints=endpoints,
            cuda="torchstrata.cuda" in labels,
            platform=platform,
        )

    def describe(self, **more: Any) -> ContainerDescription:
        """Return the usual container of it.

        :param more: fields of the description that differ from the usual.
        """
        tag = self.name.rpartition(":")[2]
        usual = descriptions.of_image(
            self.reference,
            tag=tag,
            title=self.title,
            endpoints=self.endpoints,
            cuda=self.cuda,
        )
        return replace(usual, platform=self.platform, **more)
