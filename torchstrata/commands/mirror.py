"""The verb behind ``inv mirror``: which images go where, and what became of them."""

from __future__ import annotations

import contextlib
import os.path
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from torchstrata import files, progress
from torchstrata.attestations import handover, remote, signing
from torchstrata.commands.release_options import MirrorOptions
from torchstrata.errors import IntegrityError, MatrixError, MirrorError
from torchstrata.host import home
from torchstrata.image import image_index, oci
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import ROOT, Cell, Matrix
from torchstrata.registry import pool, replica
from torchstrata.registry.dated_tag import PushNumber, is_dated
from torchstrata.registry.directory import Directory
from torchstrata.registry.reference import TAG, Place
from torchstrata.registry.registry import Registry
from torchstrata.registry.replica import Copy, RegistrySide
from torchstrata.registry.upload import Sent
from torchstrata.release import channels
from torchstrata.release.ledger import Ledger
from torchstrata.release.ledger_branch import Branch
from torchstrata.store.digest import DIGEST

Side = RegistrySide | Directory


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Images to copy.

    :param tags: digest by tag.
    """

    images: tuple[str, ...]
    tags: Mapping[str, str]


def mirror(options: MirrorOptions) -> None:
    """Copy the images that were asked for: cells (ids or globs), a tag or a digest.

    :raises MirrorError: they are not there, or not all images of a cell are.
    """
    table = matrix.load()
    with contextlib.ExitStack() as stack:
        reporter = stack.enter_context(progress.reporter())
        trust = stack.enter_context(signing.trusted(options.key))
        _check_origin(options.origin)
        origin = stack.enter_context(opened(options.origin or str(remote.required(options.registry, table.registry)), table.name, None))
        target = stack.enter_context(opened(options.to, table.name, _key(trust.key if trust else None)))
        choice = choose(table, origin, options.images, options)
        copy = replica.gather(origin, choice.images, choice.tags)
        with reporter.step("copy", f"{len(copy.images)} images to {target}", sum(copy.blobs.values())) as step:
            sent = replica.copy(origin, target, copy, step.advance)
        for line in summary(copy, sent, str(target)):
            reporter.say(line)


def summary(copy: Copy, sent: Sequence[Sent], target: str) -> Iterator[str]:
    """Yield what was copied, for people."""
    for digest in copy.images:
        yield f"{target}: {' '.join(copy.names(digest)) or '(no tag)'} {digest}"
    new = sum(blob.size for blob in sent if blob.way != "present")
    present = sum(blob.size for blob in sent if blob.way == "present")
    others = len(copy.manifests) - len(copy.images)
    yield f"{len(copy.images)} images, {others} manifests that belong to them; {progress.size(new)} copied, {progress.size(present)} were there"


def is_directory(text: str) -> bool:
    """Return whether a word means a directory: one that exists, or what is no host with a dot or a port."""
    first = text.rpartition("://")[2].partition("/")[0]
    if "://" in text:
        return False
    is_there = os.path.isdir(text)  # noqa: PTH112  # unlike Path's it is false also where a name is too long
    return text.startswith((".", "/", "~")) or is_there or not (first == "localhost" or "." in first or ":" in first)


@contextlib.contextmanager
def opened(text: str, name: str, key: bytes | None) -> Iterator[Side]:
    """Yield the directory, or the repository of images in the registry, that ``text`` names."""
    if is_directory(text):
        yield Directory(root=home.expanded(text, MirrorError), complete=handover.completer(key))
        return
    place = Place.parse(text)
    with Registry(place.host, scheme=place.scheme) as registry:
        yield RegistrySide(registry=registry, repository=place.repository(name))


def _check_origin(origin: str | None) -> None:
    """Refuse to copy from a directory that is not there; it would be one without images.

    :raises MirrorError: it is not.
    """
    if origin and is_directory(origin) and not os.path.isdir(home.expanded(origin, MirrorError)):  # noqa: PTH112  # as above
        raise MirrorError(f"there is no directory {origin}", fix="let --from name one that inv mirror --to has written, or a registry: HOST[:PORT]/PATH")


def _key(key: str | None) -> bytes | None:
    """Return a public key that is a file; those elsewhere people must get from there.

    :raises MirrorError: there is no such file.
    """
    try:
        return files.read(home.expanded(key, MirrorError), signing.KEY_LIMIT) if key and "://" not in key else None
    except files.UnreadableError as error:
        raise MirrorError(f"no public key: {error.what}", fix="name the file of one: --key cosign.pub") from error


# Which images


def choose(table: Matrix, origin: Side, word: str, options: MirrorOptions) -> Choice:
    """Return the images that a word names.

    :raises MirrorError: there are none.
    """
    is_name = DIGEST.fullmatch(word) or TAG.fullmatch(word)
    if is_name and (digest := origin.find(word)):
        return Choice(images=(digest,), tags={} if DIGEST.fullmatch(word) else {word: digest})
    try:
        cells = matrix.select(table, *word.split(","))
    except MatrixError as error:
        raise MirrorError(f"{origin} has no image {word!r}, and it is no cell: {error.what}", fix=error.fix) from error
    if isinstance(origin, Directory):
        return _in_directory(origin, cells)
    ledger = Ledger() if options.build else Branch.parse(options.ledger, ROOT).read().ledger
    return _in_registry(table, origin, cells, lambda cell: _images(table, origin, cell, ledger, options), ledger)


def _in_directory(origin: Directory, cells: Sequence[Cell]) -> Choice:
    """Return the images of cells by what they say themselves."""
    wanted = {cell.id for cell in cells}
    tags = {tag: digest for tag, digest in origin.tags.items() if not replica.OWNED.fullmatch(tag) and _cell_of(origin, digest) in wanted}
    if not tags:
        raise MirrorError(f"{origin} has no image of {', '.join(sorted(wanted))[:100]}", fix="see index.json for what there is")
    children = chain.from_iterable(origin.manifest(digest).document(IntegrityError).children for digest in tags.values())
    listed = {child.digest for child in children}
    return Choice(images=tuple(digest for digest in dict.fromkeys(tags.values()) if digest not in listed), tags=tags)


def _cell_of(origin: Directory, digest: str) -> str | None:
    """Return the cell that an image says it is of, or that the first image of an index does."""
    document = origin.manifest(digest).document(IntegrityError)
    first = document.children[0].digest if document.children else digest
    descriptor = origin.manifest(first).document(IntegrityError).config
    if descriptor is None:
        return None
    config = oci.read(origin.content(descriptor.digest), oci.ImageConfig, f"config of {digest[:19]}", error=IntegrityError)
    return config.labels.get("torchstrata.cell")


def _in_registry(table: Matrix, origin: RegistrySide, cells: Sequence[Cell], of: Callable[[Cell], Mapping[str, str]], ledger: Ledger) -> Choice:
    """Return the images of cells, with their dated tags, and those that the ledger gives them."""
    held = {cell: images for cell in cells if (images := of(cell))}
    if not held:
        raise MirrorError(
            f"{origin} has no images of {', '.join(cell.id for cell in cells)[:100]} there", fix="see inv release.log, and name --channel or --build"
        )
    for cell, images in held.items():
        if lacking := [image for image in channels.images(table, cell) if image not in images]:
            raise MirrorError(f"{cell.id}: {', '.join(lacking)} is not there, and all images of a cell go together", fix=f"push it: inv push {cell.names[0]}")
    digests = tuple(dict.fromkeys(chain.from_iterable(images.values() for images in held.values())))
    moving = {tag: digest for tag, digest in ledger.state.tags.items() if digest in digests}
    dated = _dated(origin, held, {*digests, *chain.from_iterable(_children(origin, cell, images.values()) for cell, images in held.items())})
    return Choice(images=digests, tags={**moving, **dated})


def _children(origin: RegistrySide, cell: Cell, digests: Iterable[str]) -> Iterable[str]:
    """Return the images that the indexes of a cell list; a cell of one platform has no index."""
    return chain.from_iterable(_listed(origin, cell, digest) for digest in digests) if len(cell.platforms) > 1 else ()


def _listed(origin: RegistrySide, cell: Cell, digest: str) -> tuple[str, ...]:
    """Return the images of an index, which go with it; none of an image from before its row had several platforms.

    :raises ImageIndexError: it has not exactly the platforms of the cell.
    """
    manifest = origin.manifest(digest)
    if manifest.media_type != oci.INDEX:
        return ()
    index = image_index.read(manifest.body, f"{cell.id}, {digest[:19]},")
    image_index.require(index.digests, cell.platforms, index.name)
    return tuple(index.digests.values())


def _images(table: Matrix, origin: RegistrySide, cell: Cell, ledger: Ledger, options: MirrorOptions) -> Mapping[str, str]:
    """Return the digest by image of a cell: in the channel that was asked for, else in the last one; or as pushed."""
    if options.build:
        until = PushNumber.of(options.build, MirrorError)
        tags = channels.pushed(table, cell, origin.registry.tags(origin.repository), until)
        digests = {image: origin.find(tag) for image, tag in tags.items()}
        return {image: digest for image, digest in digests.items() if digest}
    channel = table.channel(options.channel) if options.channel else list(table.channels.values())[-1]
    return ledger.state.images(channel.name, cell.id)


def _dated(origin: RegistrySide, cells: Mapping[Cell, object], digests: Collection[str]) -> Mapping[str, str]:
    """Return the dated tags of images."""
    middles = tuple(f"-{cell.cuda}-{cell.os.id}-" for cell in cells)
    tags = [tag for tag in origin.registry.tags(origin.repository) if is_dated(tag) and any(middle in tag for middle in middles)]
    return {tag: digest for tag, digest in pool.answers(origin.find, tags).items() if digest and digest in digests}
