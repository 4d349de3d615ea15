"""The bytecode stratum: the ``.pyc`` files of a payload, compiled by the interpreter that will run them."""

from __future__ import annotations

import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import IO, Final

from torchstrata import process
from torchstrata.store import store, tarball
from torchstrata.store.codec import Codec, decompressor
from torchstrata.store.layer import EPOCH, Layer
from torchstrata.store.part import Part
from torchstrata.store.store import Store
from torchstrata.store.tarball import LayerWriter

FORMAT: Final = 1
"""Raise when the bytes of a bytecode stratum change for the same inputs."""

PROGRAM: Final = resources.files("torchstrata.layers").joinpath("compile_in_container.py")


def identity(payload: Iterable[str], interpreter: str, codec: Codec) -> str:
    """Return the identity of the bytecode of ``payload``.

    :param payload: identities of the strata that hold the sources.
    :param interpreter: full version of the interpreter, such as ``3.13.5``.
    """
    program = PROGRAM.read_text(encoding="utf-8")
    return store.identity(kind="bytecode", bytecode=FORMAT, payload=list(payload), interpreter=interpreter, program=program, codec=codec.identity)


def make(layers: Iterable[Layer], image: str, into: Store, codec: Codec, title: str) -> Part:
    """Compile every ``.py`` file of ``layers`` and return the part that holds the results.

    :param image: an image in the engine that has the interpreter; :mod:`torchstrata.building.maker` loads it.
    :raises Failed: the container failed.
    """
    with tempfile.TemporaryFile(dir=into.scratch()) as sources:
        _collect(layers, into, sources)
        sources.seek(0)
        container = into.leave("container", f"torchstrata-{uuid.uuid4().hex}")
        try:
            with process.piped(*_command(image, container.name), stdin=sources) as compiled, into.layer(title, codec) as writer:
                _write(compiled, writer)
        except BaseException:
            container.remove()  # the engine keeps it running though its client has ended
            raise
    return Part(layers=(writer.layer,))


def _write(compiled: IO[bytes], writer: LayerWriter) -> None:
    with tarball.reading(compiled) as archive:
        for member in archive:
            writer.file(member.name, mode=0o664, size=member.size, stream=tarball.content(archive, member))


def _command(image: str, name: str) -> tuple[str, ...]:
    program = PROGRAM.read_text(encoding="utf-8")
    options = ("--rm", "--name", name, "--interactive", "--network", "none", "--entrypoint", "python3")
    return ("docker", "run", *options, image, "-I", "-c", program)


def _collect(layers: Iterable[Layer], into: Store, out: IO[bytes]) -> None:
    """Write an archive of the Python sources in ``layers``, in their order."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for layer in layers:
            for member, content in _sources(layer, into):
                plain = tarfile.TarInfo(member.name)
                plain.size, plain.mtime = member.size, EPOCH
                archive.addfile(plain, content)


def _sources(layer: Layer, into: Store) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    path = into.open_blob(layer.digest, layer.size)
    with path.open("rb") as blob, tarball.reading(decompressor(blob, layer.media_type)) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".py"):
                yield member, tarball.content(archive, member)
