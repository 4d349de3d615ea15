"""The layers of any image of an engine, looked at from outside: files that later layers hide count too.

Layers that the content store holds are read there. Others are read from ``docker save`` while it writes: nothing is
unpacked, no image is kept in memory. What was found is kept by the digest of the blob and of the code that looked,
since images share layers.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import docker
import docker.errors
import msgspec

from torchstrata import decoding, process
from torchstrata.errors import EngineError, IntegrityError, NoImageError
from torchstrata.progress import ignore
from torchstrata.store import codec as codecs
from torchstrata.store import tarball
from torchstrata.store.codec import Codec
from torchstrata.store.digest import file_name
from torchstrata.store.layer import Layer
from torchstrata.store.sink import HashingReader
from torchstrata.store.store import INSPECTIONS, Store
from torchstrata.verification import hygiene
from torchstrata.verification.hygiene import HEAD, SCANNED, Violation

RULES: Final = hashlib.sha256(Path(__file__).read_bytes() + Path(hygiene.__file__).read_bytes()).hexdigest()[:16]
"""The code that looks: what another one has found counts for nothing."""

OURS: Final = "torchstrata "
"""How the history calls the maker of our layers, whose comment is the layer's title."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobFacts:
    """What was seen in a blob, whatever images it belongs to.

    :param size: compressed bytes; of a blob that an engine keeps as a plain tar, what the default codec makes of it.
    """

    digest: str
    diff_id: str
    size: int
    findings: tuple[Violation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """A layer of an image.

    :param title: what the image's history says of it.
    """

    title: str
    seen: BlobFacts

    @property
    def weight(self) -> tuple[str, int]:
        """Its title and compressed bytes."""
        return self.title, self.seen.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """An image: its layers, bottom to top, and what its config breaks."""

    layers: tuple[Inspected, ...]
    config: tuple[Violation, ...]

    @property
    def size(self) -> int:
        """Compressed bytes of all layers."""
        return sum(layer.seen.size for layer in self.layers)

    def offences(self, rule: str) -> list[str]:
        """Return a line for everything that breaks ``rule`` and is not allowed, with layer and path."""
        places = [(f"layer {number} '{layer.title}'", layer.seen.findings) for number, layer in enumerate(self.layers)]
        return [*itertools.chain.from_iterable(_lines(rule, *place) for place in (*places, ("config", self.config)))]


def _lines(rule: str, where: str, findings: Iterable[Violation]) -> Iterator[str]:
    for offence in hygiene.offences(findings):
        if offence.rule == rule:
            yield f"{where}: {offence.path}: {offence.what}"


def inspect(reference: str, client: docker.DockerClient, store: Store) -> Inspection:
    """Look at the image that ``reference`` names in an engine.

    :raises NoImageError: the engine has no such image.
    :raises EngineError: what it gives is not the image that it describes.
    :raises Failed: ``docker save`` failed.
    """
    inspector = Inspector(store)
    attributes = _attributes(reference, client)
    history = cast("list[dict[str, Any]]", client.api.history(reference))  # type: ignore[no-untyped-call]
    diff_ids: list[str] = attributes["RootFS"]["Layers"]
    known = store.layers()
    if all(diff_id in known for diff_id in diff_ids):
        # All layers are ours; steps of others have set something in the config.
        titles = [step["Comment"] for step in reversed(history) if step["CreatedBy"].startswith(OURS)]
        stored = [inspector.stored(known[diff_id]) for diff_id in diff_ids]
        layers = tuple(Inspected(title=title, seen=facts) for title, facts in zip(titles, stored, strict=True))
    else:
        layers = inspector.saved(reference, diff_ids)
    return Inspection(layers=layers, config=tuple(configured(attributes["Config"], history)))


def _attributes(reference: str, client: docker.DockerClient) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", client.api.inspect_image(reference))  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound as error:
        raise NoImageError(f"the engine has no image {reference}", fix="build it with `nox -s build-CELL`, or pull or load it") from error


def configured(config: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> Iterator[Violation]:
    """Yield the secrets in an image's config and history."""
    for piece in ("Env", "Labels", "Cmd", "Entrypoint", "Healthcheck", "OnBuild"):
        yield from hygiene.configured(piece, json.dumps(config.get(piece)))
    for step in history:
        yield from hygiene.configured("history", f"{step.get('CreatedBy')} {step.get('Comment')}")


class Inspector:
    """Looks at blobs and remembers what it saw in ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def stored(self, layer: Layer) -> BlobFacts:
        """Return what is in a layer of the store."""
        if facts := self._recall(layer.digest):
            return facts
        with self._store.open_blob(layer.digest).open("rb") as blob:
            return self._remember(look(blob, layer.digest))

    def saved(self, reference: str, diff_ids: list[str]) -> tuple[Inspected, ...]:
        """Return the layers of an image as ``docker save`` gives them."""
        blobs: dict[str, BlobFacts] = {}
        documents: dict[str, Any] = {}
        with process.piped("docker", "save", "--", reference) as stream, tarball.reading(stream) as archive:
            for member in archive:
                if member.isreg() and member.size:
                    self._take(member, cast("io.BufferedReader", archive.extractfile(member)), blobs, documents)
        saved = documents["manifest.json"][0]
        facts = [blobs[name] for name in saved["Layers"]]
        if [blob.diff_id for blob in facts] != diff_ids:
            raise EngineError(f"docker save {reference} does not give the layers of its config", fix="load or pull the image again")
        titles = _titles(documents[saved["Config"]])
        return tuple(Inspected(title=title, seen=one) for title, one in zip(titles, facts, strict=True))

    def _take(self, member: tarfile.TarInfo, content: io.BufferedReader, blobs: dict[str, BlobFacts], documents: dict[str, Any]) -> None:
        """Read one file of an archive: a document or a layer."""
        if content.peek(1)[:1] in {b"{", b"["}:
            documents[member.name] = json.loads(content.read())
            return
        folder, _, name = member.name.rpartition("/")
        digest = f"sha256:{name}" if folder == "blobs/sha256" else None  # engines before Docker 25 do not name blobs by digest
        blobs[member.name] = (self._recall(digest) if digest else None) or self._remember(look(content, digest))

    def _recall(self, digest: str) -> BlobFacts | None:
        try:
            return decoding.decode(self._path(digest).read_bytes(), BlobFacts)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _remember(self, facts: BlobFacts) -> BlobFacts:
        self._store.write(self._path(facts.digest), msgspec.json.encode(facts))
        return facts

    def _path(self, digest: str) -> Path:
        return self._store.root / INSPECTIONS / RULES / file_name(digest)


def _titles(config: Mapping[str, Any]) -> list[str]:
    """Return what the history says of each layer."""
    steps = [step for step in config.get("history", ()) if not step.get("empty_layer")]
    return [step.get("comment", "") if step.get("created_by", "").startswith(OURS) else step.get("created_by", "") for step in steps]


def look(blob: io.BufferedReader, digest: str | None) -> BlobFacts:
    """Return what is in a layer, reading it once.

    :param digest: what the blob must have; None if its name does not tell.
    :raises IntegrityError: it has another.
    """
    kind = codecs.compression(blob.peek(4))
    compressed = HashingReader(blob)
    squeezed = _Squeezed()
    tar = HashingReader(codecs.decompressor(compressed, kind), squeezed.add if kind == "tar" else ignore)
    with tarball.reading(tar) as archive:
        judged = (hygiene.judge(member, functools.partial(_read, archive, member)) for member in archive)
        findings = sorted(itertools.chain.from_iterable(judged))
    tar.drain()
    compressed.drain()
    if digest not in {None, compressed.digest}:
        raise IntegrityError(f"a layer has digest {compressed.digest} instead of {digest}", fix="load or pull the image again")
    size = squeezed.total() if kind == "tar" else compressed.size
    return BlobFacts(digest=compressed.digest, diff_id=tar.digest, size=size, findings=tuple(findings))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a file, or its beginning if it is large."""
    return tarball.content(archive, member).read(HEAD if member.size > SCANNED else member.size)


class _Squeezed:
    """Counts what the default codec makes of a plain tar."""

    def __init__(self) -> None:
        self._compressor, self._size = Codec().compressor(), 0

    def add(self, data: bytes) -> None:
        """Compress some more."""
        self._size += sum(map(len, self._compressor.compress(data)))

    def total(self) -> int:
        """Return the compressed bytes of everything."""
        return self._size + sum(map(len, self._compressor.finish()))
