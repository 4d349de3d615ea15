"""``inv join``: the images that were pushed for each platform of a row become one index per tag."""

from __future__ import annotations

from torchstrata import progress
from torchstrata.attestations import remote
from torchstrata.attestations.signing import Signer
from torchstrata.commands import signatures
from torchstrata.commands.release_options import JoinOptions
from torchstrata.errors import RegistryError
from torchstrata.image import source
from torchstrata.image.image_index import ImageIndex
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell, Matrix
from torchstrata.process import LineSink
from torchstrata.registry.dated_tag import PushNumber
from torchstrata.registry.platform_indexes import Joiner
from torchstrata.registry.registry import Registry
from torchstrata.release import channels


def join(options: JoinOptions) -> None:
    """Join what was pushed of cells, all images of a cell or none; cells of one platform need no index, and are named.

    :raises ImageIndexError: a platform was not pushed, or from another commit than the checkout's; no tag moves.
    """
    table, until = matrix.load(), PushNumber.of(options.build, RegistryError) if options.build else None
    where = remote.required(options.registry, table.registry)
    with Registry(where.host, scheme=where.scheme) as registry:
        joiner = joiner_of(registry, where.repository(table.name))
        for cell in matrix.select(table, *options.cells):
            if len(cell.platforms) == 1:
                progress.say(f"{cell.id}: one platform, {cell.platforms[0]}, whose images need no index")
                continue
            indexes = {image: joiner.find(cell, image, _revisions(table, cell, image), until) for image in channels.images(table, cell)}
            for image, index in indexes.items():
                put(joiner, cell, image, index, names=options.names, say=progress.say)


def _revisions(table: Matrix, cell: Cell, image: str) -> dict[str, str]:
    """Return what an image must have been made from for each platform: the checkout, as images themselves say it."""
    lineage = table.with_parents(image if image in table.flavours else table.all_in_one)
    return {platform: source.revision(cell.on(platform), lineage, ROOT) for platform in cell.platforms}


def joiner_of(registry: Registry, repository: str) -> Joiner:
    """Return what makes indexes there, signed if there is somebody to sign."""
    signer = Signer.present()
    return Joiner(registry=registry, repository=repository, attach=signatures.IndexAttacher(signer=signer) if signer else progress.ignore)


def put(joiner: Joiner, cell: Cell, image: str, index: ImageIndex, *, names: bool, say: LineSink) -> None:  # noqa: PLR0913  # of one index
    """Put an index under its dated tag, and if that was asked for, under its names in an engine; say so."""
    dated = joiner.tag(cell, image, index)
    tags = (dated, *(_names(cell, image) if names else ()))
    joiner.put(index, *tags)
    say(f"{joiner.registry.host}/{joiner.repository}:{' '.join(tags)} {index.digest} for {', '.join(index.digests)}")


def _names(cell: Cell, image: str) -> tuple[str, ...]:
    return (image,) if image == cell.all_in_one else (f"{cell.names[0]}-{image}",)
