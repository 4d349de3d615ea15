"""Files beside images in a directory, so that people without this program and a network can read and verify them.

Documents and signatures are the blobs that are attached to an image, under names that people understand. Locks follow
from its record: the wheels as pip takes them, the OS packages as apt does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from torchstrata.attestations import record
from torchstrata.attestations.record import Record
from torchstrata.attestations.signing import BUNDLE
from torchstrata.image.oci import Descriptor, ManifestOrIndex
from torchstrata.locks.lockfile import Pin
from torchstrata.registry.dated_tag import is_dated
from torchstrata.registry.directory import Directory
from torchstrata.registry.registry import TITLE, fallback_tag
from torchstrata.registry.replica import Copy

HERE: Final = Path(__file__).parent / "offline"
FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
"""Titles that become names of files; what has another one is in the layout alone."""

SIGNATURE: Final = "dev.cosignproject.cosign/signature"


def completer(key: bytes | None) -> Callable[[Directory, Copy], None]:
    """Return what completes a directory.

    :param key: public key by which the images are signed, in PEM.
    """

    def complete(directory: Directory, copy: Copy) -> None:
        for digest in _told(copy):
            for title in _titles(directory, copy, digest):
                for path, content in _beside(directory, copy, digest, title):
                    directory.write(directory.root / path, content)
        for name, mode in (("verify", 0o755), ("verify.py", 0o644)):
            directory.write(directory.root / name, (HERE / name).read_bytes(), mode)
        if key:
            directory.write(directory.root / "cosign.pub", key)

    return complete


def _told(copy: Copy) -> tuple[str, ...]:
    """Return what has files of its own: the images that were asked for, and those that an index among them lists."""
    listed = chain.from_iterable(copy.manifests[digest].document().children for digest in copy.images)
    return tuple(dict.fromkeys((*copy.images, *(child.digest for child in listed))))


def name(copy: Copy, digest: str) -> str:
    """Return what the files of an image are called: by its dated tag, else by its digest, since other tags move."""
    return next(filter(is_dated, copy.names(digest)), digest.replace(":", "-"))


def _titles(directory: Directory, copy: Copy, digest: str) -> list[str]:
    """Return the names of an image's files, now and in earlier copies, whose files must not stay as they were."""
    before = (digest.replace(":", "-"), *(tag for tag, named in directory.tags.items() if named == digest))
    return [title for title in dict.fromkeys((name(copy, digest), *before)) if title == name(copy, digest) or (directory.root / "documents" / title).is_dir()]


def _beside(directory: Directory, copy: Copy, digest: str, title: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of an image."""
    files = dict(_attached(directory, copy, digest))
    signed = dict(_signed(directory, copy, digest))
    yield from ((f"documents/{title}/{file}", content) for file, content in files.items() if not file.endswith(".sigstore.json"))
    bundles = {file: content for file, content in files.items() if file.endswith(".sigstore.json")}
    if signed or bundles:
        yield f"signatures/{title}/manifest.json", copy.manifests[digest].body
    yield from ((f"signatures/{title}/{file}", content) for file, content in (*bundles.items(), *signed.items()))
    if "record.json" in files:
        image_record = record.decode(files["record.json"])
        yield f"locks/{title}.lock", _wheels(image_record)
        yield f"locks/{title}.packages", _packages(image_record)


def _attached(directory: Directory, copy: Copy, digest: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files that are attached to an image, by name; of several with one name each has a number."""
    count: dict[str, int] = {}
    for document in _referring(directory, copy, digest):
        for layer in document.layers or ():
            file = layer.annotation(TITLE).rpartition("/")[2]
            if FILE.fullmatch(file):
                count[file] = count.get(file, 0) + 1
                stem, dot, rest = file.partition(".")
                numbered = file if count[file] == 1 else f"{stem}-{count[file]}{dot}{rest}"
                yield _bundle_name(numbered, layer), directory.content(layer.digest)


def _bundle_name(file: str, layer: Descriptor) -> str:
    """Return the name of a file, by which bundles can be told from documents."""
    is_bundle = layer.media_type == BUNDLE
    return f"{file}.sigstore.json" if is_bundle and not file.endswith(".sigstore.json") else file


def _referring(directory: Directory, copy: Copy, digest: str) -> Iterator[ManifestOrIndex]:
    """Yield what refers to an image, in the order of the index: first the rest of earlier copies, then this copy's."""
    before = [directory.manifest(referrer.digest) for referrer in directory.referrers(digest) if referrer.digest not in copy.manifests]
    for manifest in (*before, *copy.manifests.values()):
        document = manifest.document()
        if document.subject and document.subject.digest == digest:
            yield document


def _signed(directory: Directory, copy: Copy, digest: str) -> Iterator[tuple[str, bytes]]:
    """Yield cosign's signatures of an image, each with what is signed."""
    tag = copy.tags.get(f"{fallback_tag(digest)}.sig")
    for number, layer in enumerate((copy.manifests[tag].document().layers if tag else None) or (), 1):
        if signature := layer.annotation(SIGNATURE):
            yield f"image-{number}.payload", directory.content(layer.digest)
            yield f"image-{number}.sig", signature.encode()


def _wheels(image: Record) -> bytes:
    """Return the wheels of an image, as ``pip install --require-hashes -r`` takes them."""
    pins = [Pin(name=wheel.name, version=wheel.version, filename=wheel.filename, sha256=wheel.sha256, size=wheel.size) for wheel in image.wheels]
    head = [f"# {image.name} {image.digest}", f"# lock: {image.inputs.lock}", f"# no newer than: {image.inputs.lock_seen}"]
    return "".join(f"{line}\n" for line in (*head, *(pin.line for pin in pins))).encode()


def _packages(image: Record) -> bytes:
    """Return the OS packages of an image, as ``apt-get install`` takes them."""
    head = [
        f"# {image.name} {image.digest}",
        f"# {image.os.distribution} {image.os.release}; lock: {image.inputs.os_lock} of {image.inputs.os_lock_date}",
    ]
    return "".join(f"{line}\n" for line in (*head, *(f"{package.name}:{package.architecture}={package.version}" for package in image.packages))).encode()
