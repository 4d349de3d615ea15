"""The images of cells in a repository: which were pushed, which are gone, and which may move."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torchstrata.errors import AbsentError, ImageIndexError, ReleaseError, UntrustedError
from torchstrata.image import image_index, oci, runtime
from torchstrata.locks import os_locks
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.registry import platform_indexes, pool
from torchstrata.registry.client import Manifest
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.registry import Registry
from torchstrata.release import channels
from torchstrata.release.guard import Guard
from torchstrata.text import printable


@dataclass(frozen=True, kw_only=True)
class CellImages:
    """The images of a matrix in one repository of a registry."""

    matrix: Matrix
    registry: Registry
    repository: str
    guard: Guard

    def digest(self, tag: str) -> str | None:
        """Return what a tag or digest names in the registry, ``None`` if there is none."""
        head = self.registry.find(self.repository, tag)
        return head.digest if head else None

    def lacking(self, cell: Cell, digest: str) -> tuple[str, ...]:
        """Return the platforms of a cell without an image under a digest in the registry; all if the digest is gone."""
        head = self.registry.find(self.repository, digest)
        if head is None or len(cell.platforms) == 1:
            return () if head else cell.platforms
        if head.media_type == oci.INDEX:
            children = self.registry.manifest(self.repository, digest).document().children
            listed = {child.platform.name: child.digest for child in children if child.platform}
        else:
            listed = {image_index.of_config(self.registry.image_config(self.repository, digest)): digest}
        present = {platform for platform, child in listed.items() if self.registry.find(self.repository, child)}
        return tuple(platform for platform in cell.platforms if platform not in present)

    def pushed_tags(self, cell: Cell, until: PushNumber | None = None) -> Mapping[str, str]:
        """Return the dated tag of each image of a cell as it was pushed last, or up to a push."""
        return channels.pushed(self.matrix, cell, self._tags, until)

    def pushed(self, cell: Cell, until: PushNumber | None = None) -> Mapping[str, str]:
        """Return the digest of each image of a cell as it was pushed last, or up to a push."""
        digests = {image: self.digest(tag) for image, tag in self.pushed_tags(cell, until).items()}
        return {image: digest for image, digest in digests.items() if digest}

    def pushed_for(self, cell: Cell) -> Mapping[str, Mapping[str, str]]:
        """Return the digest of each image of a cell as pushed last, by platform and image; for an index, of its images.

        :raises ImageIndexError: what was pushed last has not exactly the platforms of the cell.
        """
        if len(cell.platforms) == 1:
            return {cell.platforms[0]: self.pushed(cell)}
        digests: dict[str, dict[str, str]] = {platform: {} for platform in cell.platforms}
        for image, digest in self.pushed(cell).items():
            for platform, child in self._children(cell, image, digest).items():
                digests[platform][image] = child.digest
        return digests

    @functools.cached_property
    def _tags(self) -> tuple[str, ...]:
        return self.registry.tags(self.repository)

    def check(self, cell: Cell, images: Mapping[str, str]) -> None:
        """Refuse images that are gone, not as locked, or not verified and signed.

        :raises ReleaseError: one is gone, or says that it has drifted from its lock.
        :raises UntrustedError: one is not as it must be.
        """
        for image, digest in images.items():
            self._check_identity(cell, image, digest)
        self.check_verified(images.values())

    def check_verified(self, digests: Iterable[str]) -> None:
        """Refuse images that are not verified and signed.

        :raises UntrustedError: one is not.
        """
        with pool.threads("verify") as threads:
            list(threads.map(functools.partial(self.guard.verified, self.registry, self.repository), digests))

    def _check_identity(self, cell: Cell, image: str, digest: str) -> None:
        """Refuse an image, or any image of an index, that is gone, another one by its labels, or not as locked.

        :raises ImageIndexError: the index has not exactly the platforms of the cell.
        """
        if len(cell.platforms) == 1:
            self._check_image(cell, image, digest)
            return
        for platform, child in self._children(cell, image, digest).items():
            self._check_image(cell, image, child.digest, platform)

    def _children(self, cell: Cell, image: str, digest: str) -> Mapping[str, Manifest]:
        """Return the images of an index by platform.

        :raises ReleaseError: the index is gone.
        :raises ImageIndexError: it is none, or has not exactly the platforms of the cell.
        """
        name = f"{image}, {digest[:19]},"
        try:
            index = self.registry.manifest(self.repository, digest)
        except AbsentError as error:
            raise ReleaseError(f"{image} is gone: the registry has no {digest}", fix=f"push it again: inv push {cell.names[0]}") from error
        if index.media_type != oci.INDEX:
            raise ImageIndexError(f"{name} is one image alone, and {cell.id} has {', '.join(cell.platforms)}", fix=f"join them: inv join {cell.names[0]}")
        image_index.require(image_index.read(index.body, name).digests, cell.platforms, name)
        return platform_indexes.images(self.registry, self.repository, index, name)

    def _check_image(self, cell: Cell, image: str, digest: str, platform: str = "") -> None:
        """Refuse an image that is gone, is another one by its own labels, or is not as locked.

        :param platform: of an index's image, for messages.
        """
        name, again = f"{image} for {platform}" if platform else image, f"push it again: inv push {cell.names[0]}"
        try:
            config = self._config(digest)
        except AbsentError as error:
            raise ReleaseError(f"{name} is gone: the registry has no {digest}", fix=again) from error
        except UntrustedError as error:
            raise UntrustedError(f"{name}, {digest}, is no image: {error.what}", fix=again) from error
        flavour = image if image in self.matrix.flavours else self.matrix.all_in_one
        actual = {"cell": config.labels.get("torchstrata.cell"), "flavour": config.labels.get("torchstrata.flavour"), "user": config.user}
        expected = {"cell": cell.id, "flavour": flavour, "user": runtime.DEV if image in self.matrix.flavours else runtime.ROOT}
        if actual != expected:
            raise ReleaseError(f"{name} is {digest}, which is another image: {printable(str(actual))}", fix=f"push the cell again: inv push {cell.names[0]}")
        if drift := config.labels.get(runtime.DRIFT):
            raise ReleaseError(f"the OS packages of {name} are not as locked: {os_locks.in_short(os_locks.from_words(drift))}", fix=runtime.REBUILD)

    def _config(self, digest: str) -> oci.ImageConfig:
        """Return what an image says of itself.

        :raises AbsentError: it is gone.
        :raises UntrustedError: it is none, or has no labels.
        """
        document = self.registry.manifest(self.repository, digest).document(UntrustedError)
        content = self.registry.content(self.repository, document.config.digest) if document.config else b"{}"
        config = oci.read(content, oci.ImageConfig, "its config", error=UntrustedError)
        if config.config is None or config.config.labels is None:
            raise UntrustedError("its config has no labels", fix="push it again")
        return config
