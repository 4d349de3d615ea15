"""Verification of images that were pushed: into the engine by digest, one flavour at a time, and out again.

What is tested is what the registry has, and a disk need hold only one flavour, and no content store.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import docker.errors
from docker import DockerClient

from torchstrata import platforms, process
from torchstrata.building import engine as engines
from torchstrata.errors import EngineError, ReleaseError
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.release.moves import Releases
from torchstrata.verification import suite as verification
from torchstrata.verification.request import VerifyOptions

KEPT: Final = "torchstrata-kept"
"""Keeps an image that had the name of one under test meanwhile."""


def verify(releases: Releases, cell: Cell, flavours: Sequence[str], attest: Callable[[str], None]) -> None:
    """Verify what was pushed last of a cell, for each of its platforms, and attach the results to it, signed.

    :param flavours: all if empty.
    :param attest: attaches the results to an image, ``HOST/REPOSITORY@DIGEST``.
    :raises ReleaseError: it was not pushed.
    :raises EngineError: the engine cannot pull it.
    :raises VerificationError: it failed; nothing is attached to that flavour, and no other one is tried.
    """
    client, repository = engines.connect().client, f"{releases.registry.host}/{releases.repository}"
    sweep(client)
    for platform, digests in releases.images.pushed_for(cell).items():
        for flavour in flavours or tuple(releases.matrix.flavours):
            names = local(releases.matrix, cell.on(platform), flavour)
            lacking = [image for image in names if image not in digests]
            if lacking:
                raise ReleaseError(f"{', '.join(lacking)} of {cell.id} is not in the registry", fix=f"push it first: inv push {cell.names[0]}")
            with _present(client, repository, {name: digests[image] for image, name in names.items()}, platform):
                verification.run(cell.on(platform), Path(sys.executable), VerifyOptions(flavour=(flavour,), platform=platform))
            for image in names:
                attest(f"{repository}@{digests[image]}")


def local(matrix: Matrix, cell: Cell, flavour: str) -> Mapping[str, str]:
    """Return the engine's name of each image that a flavour's tests are about, the all-in-one's with the last."""
    end = platforms.suffix(cell.platform)
    names = {flavour: f"{matrix.name}:{cell.names[0]}-{flavour}{end}"}
    if cell.named and flavour == matrix.all_in_one:
        names[cell.all_in_one] = f"{matrix.name}:{cell.all_in_one}{end}"
    return names


def sweep(client: DockerClient) -> None:
    """Give names back that verifications which were killed have left to images under test."""
    table = matrix.load()
    for name in engines.names(client):
        match = re.fullmatch(rf"{KEPT}-(\d+):(.+)", name)
        if match and process.is_over(f"{socket.gethostname()}:{match[1]}"):
            client.images.get(name).tag(f"{table.name}:{match[2]}")
            client.images.remove(name)


@contextlib.contextmanager
def _present(client: DockerClient, repository: str, digests: Mapping[str, str], platform: str | None = None) -> Iterator[None]:
    """Have images in the engine under their names; afterwards the names are what they were.

    :param platform: of the images; the engine's own if ``None``.

    :raises EngineError: one cannot be pulled.
    """
    with contextlib.ExitStack() as stack:
        for name, digest in digests.items():
            stack.enter_context(_kept(client, name))
            try:
                client.images.pull(repository, tag=digest, platform=platform).tag(name)
            except docker.errors.APIError as error:
                fix = "docker login, if it wants a password; the engine must reach the registry itself"
                raise EngineError(f"the engine cannot pull {repository}@{digest}: {error.explanation}", fix=fix) from error
            stack.callback(client.images.remove, f"{repository}@{digest}")
        yield


@contextlib.contextmanager
def _kept(client: DockerClient, name: str) -> Iterator[None]:
    """Let another image have a name meanwhile."""
    kept = f"{KEPT}-{os.getpid()}:{name.rpartition(':')[2]}"  # others may verify at the same time
    try:
        client.images.get(name).tag(kept)
    except docker.errors.ImageNotFound:
        try:
            yield
        finally:
            with contextlib.suppress(docker.errors.ImageNotFound):
                client.images.remove(name)
        return
    try:
        yield
    finally:
        client.images.get(kept).tag(name)
        client.images.remove(kept)
