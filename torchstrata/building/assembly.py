"""Build the images of a plan: make its parts, compose, and load; loading begins while upper layers are being made."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torchstrata import platforms
from torchstrata.building.engine import Engine
from torchstrata.building.loading import Loading
from torchstrata.building.maker import Maker
from torchstrata.building.plan import ImagePlan, Item, OsPart, Plan
from torchstrata.image import compose, loadable, runtime, source
from torchstrata.image.compose import Image, Section
from torchstrata.image.loadable import Loadable
from torchstrata.layers import contexts, os_parts
from torchstrata.locks.os_locks import PackageMove
from torchstrata.matrix.matrix import ROOT, Matrix
from torchstrata.progress import Reporter
from torchstrata.store import store as stores
from torchstrata.store.codec import Codec
from torchstrata.store.layer import Entry, Layer, OpenBlob
from torchstrata.store.part import Part
from torchstrata.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Composed:
    """An image that was composed, and the names it gets.

    :param drift: where its OS packages are not as locked.
    """

    plan: ImagePlan
    image: Image
    tags: tuple[str, ...]
    drift: tuple[PackageMove, ...] = ()

    @property
    def loadable(self) -> Loadable:
        """The image as an engine takes it."""
        return loadable.of(self.image, self.tags, self.plan.cell.platform)


@dataclass(frozen=True, kw_only=True, slots=True)
class Builder:
    """What every build of a run shares.

    :param locked: refuse OS packages of other versions than the lock's.
    :param engine: where images are loaded; ``None`` to compose them only.
    :param open_blob: finds blobs to load; the store's if ``None``.
    """

    matrix: Matrix
    store: Store
    codec: Codec
    reporter: Reporter
    engine: Engine | None = None
    locked: bool = False
    open_blob: OpenBlob | None = None

    def build(self, plan: Plan) -> tuple[Composed, ...]:
        """Make what is missing, compose every image, and load them, cell by cell.

        :raises TorchstrataError: something failed; what was complete by then is in the store.
        """
        with Maker(plan, self.store, self.codec, self.reporter, locked=self.locked) as maker:
            cells = itertools.groupby(plan.images, key=lambda image: image.cell.name)
            composed = tuple(itertools.chain.from_iterable(self._cell(tuple(images), maker) for _, images in cells))
        self.store.touch(*(item.identity for item in plan.items()))
        return composed

    def _cell(self, images: Sequence[ImagePlan], maker: Maker) -> list[Composed]:
        """Build the images of one cell. What the first ones share is loaded while it is made, the rest at the end."""
        revisions = {image.flavour: source.revision(image.cell, image.lineage, ROOT) for image in images}
        with self._loading(images[0].cell.platform) as loading:
            parts: dict[str, Part] = {}
            for item in _spine(images):
                parts[item.identity] = maker.part(item.identity)
                if loading:
                    loading.add(*parts[item.identity].layers)
            items = itertools.chain.from_iterable(image.items for image in images)
            upper = dict.fromkeys(item.identity for item in items if item.identity not in parts)
            parts |= {identity: maker.part(identity) for identity in upper}
            assembled = (self.assemble(image, parts, revisions[image.flavour]) for image in images)
            composed = list(itertools.chain.from_iterable(assembled))
            if loading:
                loading.finish([image.loadable for image in composed])
        return composed

    def assemble(self, image: ImagePlan, parts: Mapping[str, Part], revision: str) -> Iterator[Composed]:
        """Compose an image from its parts, with its facts layer on top; a named cell's all-in-one also as ``v<torch>``.

        :raises ComposeError: the layers do not fit together.
        """
        drift = os_parts.drift(parts[image.top.identity]) if image.top else ()
        lineage = self.matrix.lineage(image.flavour)
        told = runtime.describe(image.cell, lineage, image.lock, revision, drift=drift)
        sections = [Section(origin=item.origin, label=item.title, layers=parts[item.identity].layers) for item in image.items]
        files = runtime.files(told, image.lock, runtime.alternatives(self.matrix, image.cell), lineage, drift)
        files |= runtime.python_start(image.cell, image.lineage)
        sections.append(Section(origin="facts", label="facts", layers=self._facts(files, runtime.directories(image.cell)).layers))
        self._check_replaced(image, parts)
        compose.check(image.name, itertools.chain.from_iterable(map(self._listed, sections)))
        platform = image.cell.platform
        name, end = self.matrix.name, platforms.suffix(platform)  # an engine may hold both
        tag = f"{name}:{image.cell.names[0]}-{image.flavour}{end}"
        yield Composed(plan=image, image=compose.compose(image.name, sections, told, platform), tags=(tag,), drift=drift)
        if image.cell.named and image.flavour == self.matrix.all_in_one:
            rooted = runtime.describe(image.cell, lineage, image.lock, revision, user=runtime.ROOT, drift=drift)
            named = (f"{name}:{image.cell.all_in_one}{end}",)
            yield Composed(plan=image, image=compose.compose(image.name, sections, rooted, platform), tags=named, drift=drift)

    def _listed(self, section: Section) -> Iterator[tuple[str, Layer, Sequence[Entry]]]:
        for layer in section.layers:
            yield section.origin, layer, self.store.listing(layer.diff_id)

    def _check_replaced(self, image: ImagePlan, parts: Mapping[str, Part]) -> None:
        """Refuse what a flavour's Dockerfile does to files that the ``rootfs`` of a parent brings.

        :raises ComposeError: it replaces or removes one.
        """
        owners: dict[str, str] = {}
        for item in image.items:
            if not isinstance(item.source, OsPart):
                continue
            for layer in parts[item.identity].layers if owners else ():
                compose.check_kept(image.name, layer, self.store.listing(layer.diff_id), owners)
            owners |= dict.fromkeys(contexts.brought(ROOT, item.source.lineage[-1]), item.source.lineage[-1])

    def _facts(self, files: Mapping[str, str], of_root: Sequence[str]) -> Part:
        """Return the facts layer: the only one that is an image's own.

        :param of_root: directories of layers below that become root's.
        """
        owned = {"of_root": list(of_root)} if of_root else {}
        identity = stores.identity(kind="facts", files=dict(files), codec=self.codec.identity, **owned)
        part = self.store.find(identity)
        if part is None:
            with self.store.layer("facts", self.codec) as writer:
                for path in of_root:
                    writer.directory_of_root(path)
                for path, text in sorted(files.items()):
                    writer.file(path, 0o644, len(text.encode()), io.BytesIO(text.encode()))
            part = Part(layers=(writer.layer,))
            self.store.remember(identity, part)
        return part

    @contextlib.contextmanager
    def _loading(self, platform: str) -> Iterator[Loading | None]:
        if self.engine is None:
            yield None
            return
        step = self.reporter.step("load", f"into the engine ({self.engine.store} image store)")
        with step as progress, Loading(self.engine, self.open_blob or self.store.open_blob, progress.advance, platform) as loading:
            yield loading


def _spine(images: Sequence[ImagePlan]) -> tuple[Item, ...]:
    """Return the longest run of items that begins with those of image after image."""
    spine: tuple[Item, ...] = ()
    for image in images:
        if image.items[: len(spine)] == spine:
            spine = image.items
    return spine
