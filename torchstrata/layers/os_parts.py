"""OS parts: the layers that ``images/<flavour>/Dockerfile`` adds on an OS. They know nothing of torch or CUDA.

Here is what a part is: its identity, what it notes, and what it fits on. :mod:`.os_bake` makes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from torchstrata.errors import StoreError
from torchstrata.image import layout, loadable
from torchstrata.image.compose import Image, Runtime, Section, compose
from torchstrata.image.loadable import Loadable
from torchstrata.layers import contexts, os_image
from torchstrata.locks import os_locks
from torchstrata.locks.os_locks import OsLock, PackageMove
from torchstrata.matrix.matrix import ROOT, OperatingSystem
from torchstrata.store import store
from torchstrata.store.codec import Codec
from torchstrata.store.layer import Layer
from torchstrata.store.part import Part
from torchstrata.store.store import Store

REPOSITORY: Final = "torchstrata-os"
"""Name, in the engine, of images that hold OS parts alone."""

FORMAT: Final = 3
"""Raise it when the bytes of an OS part change for the same inputs."""

PACKAGES: Final = "packages"
"""Extra blob of a part: versions by package name, as JSON, of all packages up to its flavour."""

DRIFT: Final = "drift"
"""Note of a part whose packages are not all as locked: how they differ, in words."""

OVER: Final = "over"
"""Note of such a part, and of one over such a part: diff ID of the layer that it was made over; it fits no other."""

Parts = Mapping[tuple[str, str], Part]
"""By names of the OS and of the flavour."""


def identity(system: OperatingSystem, lineage: Sequence[str], codec: Codec, root: Path = ROOT) -> str:
    """Return the identity of the OS part of the last flavour of ``lineage`` (parents first).

    :raises LockError: the OS is not locked.
    """
    return identity_by(system, lineage, os_locks.read(system, root), codec, root)


def drift(part: Part) -> tuple[PackageMove, ...]:
    """Return where the packages of a part, up to its flavour, are not as locked."""
    return os_locks.from_words(part.notes.get(DRIFT, ""))


def fits(part: Part, below: Part | None, *, locked: bool) -> bool:
    """Return whether a part can be used over the one below it.

    :param below: ``None`` for the part of the first flavour.
    :param locked: only what is as locked.
    """
    if locked and DRIFT in part.notes:
        return False
    if below is None:
        return True
    if OVER in part.notes:
        return part.notes[OVER] == _top_layer(below)
    return DRIFT not in below.notes or DRIFT in part.notes  # which earlier versions have made, without that note


def image(system: OperatingSystem, lineage: Sequence[str], from_: Store, codec: Codec, root: Path = ROOT) -> Loadable:
    """Return an image of the OS parts of ``lineage`` alone: Python, apt and compilers, to load into an engine and run.

    Its one tag, ``torchstrata-os:<identity>``, is what to run; an engine that has it is not sent anything.

    :raises StoreError: the store lacks a part; bake first.
    """
    parts = [from_.find(identity(system, lineage[: count + 1], codec, root)) for count in range(len(lineage))]
    if None in parts:
        raise StoreError(f"OS parts of {system.name} are not in the store", fix="build them first: nox -s build-<cell>")
    plain = plain_image(system, itertools.chain.from_iterable(part.layers for part in parts if part))
    tag = f"{REPOSITORY}:{identity(system, lineage, codec, root)[:12]}"
    return loadable.of(plain, (tag,), system.platform)


def identity_by(system: OperatingSystem, lineage: Sequence[str], lock: OsLock, codec: Codec, root: Path) -> str:
    """Return the identity of the OS part of the last flavour of ``lineage`` whose packages ``lock`` pins."""
    return store.identity(
        kind="os part",
        os_part=FORMAT,
        platform=system.platform,
        image=os_image.reference(system, lock) or os_image.identity(system, lock, contexts.apt_config(root), codec),
        compilers=system.compilers,
        **({"lacks": system.lacks} if system.lacks else {}),
        files=[contexts.tree(root, name) for name in (contexts.APT, *lineage)],
        lock=lock.digest(lineage),
        codec=codec.identity,
    )


def build_context(system: OperatingSystem, layers: Sequence[Layer], from_: Store, directory: Path) -> str:
    """Write an OCI layout of ``layers`` of the store into ``directory``; return it as a build context of BuildKit."""
    plain = plain_image(system, layers)
    layout.write(directory, [loadable.of(plain, (f"{REPOSITORY}:{system.name}",), system.platform)], from_, share=True)
    return f"oci-layout://{directory}@{plain.digest}"


def plain_image(system: OperatingSystem, layers: Iterable[Layer]) -> Image:
    """Return a plain image of ``layers``: no user, no environment."""
    runtime = Runtime(env={}, labels={}, user="", entrypoint=(), command=("/bin/bash",), workdir="/", ports=(), created="1980-01-02T00:00:00Z")
    return compose(system.id, [Section(origin="os", label=system.id, layers=tuple(layers))], runtime, system.platform)


def _top_layer(part: Part) -> str:
    """Return the diff ID of the uppermost layer of a part and what it lies on; a part without layers notes it."""
    return part.layers[-1].diff_id if part.layers else part.notes[OVER]


def notes(title: str, moves: Sequence[PackageMove], layers: Sequence[Layer], below: Part | None) -> dict[str, str]:
    """Return what a part notes: where it is not as locked, and what it fits alone.

    :param layers: its own.
    """
    drifted = {DRIFT: os_locks.in_words(moves)} if moves else {}
    bound = below is not None and (moves or DRIFT in below.notes or not layers)
    return {"title": title, **drifted, **({OVER: _top_layer(below)} if below and bound else {})}


def top(parts: Mapping[str, Part]) -> Part:
    """Return the part of the last flavour."""
    return list(parts.values())[-1]
