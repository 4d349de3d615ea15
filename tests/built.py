"""Images that were built for real and what they must be, and what there is to know of content stores that suffered."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import docker

from torchstrata import decoding
from torchstrata.building.plan import ImagePlan, OsPart, Planner
from torchstrata.host import leavings
from torchstrata.host.leavings import Leaving
from torchstrata.locks import wheel_locks
from torchstrata.locks.lockfile import Lock
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.store.codec import Codec
from torchstrata.store.digest import digest_of
from torchstrata.store.store import Store

MATRIX: Final = matrix.load()

CPU: Final = "2.13-cpu"
CUDA: Final = "2.8-cu121"
BUILDS: Final[Mapping[str, tuple[str, ...]]] = {CPU: tuple(MATRIX.flavours), CUDA: ("base",)}
"""What is built for real: flavours by cell."""

DISK: Final = 2_000_000_000
"""Bytes of the disk that gets full: enough for the base of the CPU cell, once."""

FILL_STEP: Final = 50_000_000


def cell_of(short: str) -> Cell:
    """Return the cell that a short id names."""
    return matrix.select(MATRIX, short)[0]


@dataclasses.dataclass(frozen=True)
class Built:
    """An image that was built for real, and what it must be."""

    client: docker.DockerClient
    cell: Cell
    flavour: str

    @property
    def tag(self) -> str:
        """The name that users type."""
        return f"{MATRIX.name}:{self.cell.short}-{self.flavour}"

    @property
    def lock(self) -> Lock:
        """The lock that it was built from."""
        return wheel_locks.read(self.cell, self.flavour)

    @property
    def versions(self) -> dict[str, str]:
        """Version by package, as locked."""
        return {pin.name: pin.version for pin in self.lock.pins}

    @property
    def plan(self) -> ImagePlan:
        """The plan of the image, with the parts that it was made from."""
        return Planner(matrix=MATRIX, store=Store.open(), codec=Codec()).plan([self.cell], [self.flavour]).images[-1]

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """What ``docker inspect`` shows."""
        found: dict[str, Any] = self.client.images.get(self.tag).attrs
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its config."""
        return dict(entry.split("=", 1) for entry in self.attributes["Config"]["Env"])

    def run(self, *command: str, **options: Any) -> str:
        """Run a command in a container without a network, and return what it prints on standard output."""
        options = {"network_mode": "none", "remove": True} | options
        return str(self.client.containers.run(self.tag, list(command), **options).decode())


@dataclasses.dataclass
class Disk:
    """A small file system of its own that can be filled."""

    path: Path

    @property
    def store(self) -> Path:
        """Where a content store on it lies."""
        return self.path / "store"

    @property
    def free(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.path).free

    def fill(self, *, leave: int) -> None:
        """Use up all space but ``leave`` bytes, though somebody else writes at the same time."""
        with (self.path / "filler").open("wb") as file:
            while self.free > leave:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), min(FILL_STEP, self.free - leave))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def relieve(self) -> None:
        """Give the space back."""
        (self.path / "filler").unlink()


def lend_os(image: Built, root: Path) -> None:
    """Bring the OS parts of an image into another store, so that a build there begins with the payload."""
    mine, other = Store.open(), Store.open(root)
    for item in image.plan.items:
        if isinstance(item.source, OsPart) and item.part:
            for layer in item.part.layers:
                other.keep_listing(layer.diff_id, mine.listing(layer.diff_id))
            for digest in item.part.digests:
                other.add_blob(mine.open_blob(digest), digest)
            other.remember(item.identity, item.part)


def unfinished(store: Path) -> list[Path]:
    """Return the files that builds have begun and not ended in a store; a run's list of what it had in the engine is none."""
    found = []
    with contextlib.suppress(FileNotFoundError):  # a directory that goes away while it is walked
        found = [path for path in (store / "tmp").rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != leavings.LIST]
    return found


def lists(store: Path) -> list[list[Leaving]]:
    """Return what each run has listed of which there is a directory: the last one's stays until the next."""
    files = [path.read_bytes().splitlines() for path in (store / "tmp").glob(f"*/{leavings.LIST}")]
    return [[decoding.decode(line, Leaving) for line in lines] for lines in files]


def is_in_engine(leaving: Leaving) -> bool:
    """Say whether the engine has what a run has listed."""
    return subprocess.run(["docker", leaving.kind, "inspect", leaving.name], capture_output=True, check=False).returncode == 0


def is_converting(store: Path, before: Collection[Path]) -> bool:
    """Tell whether a process that has no directory in ``before`` is writing a layer: some MB of it are there, and it has no name yet."""
    new = [path for path in unfinished(store) if path.parent.parent == store / "tmp" and path.parent not in before]
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_size > 5_000_000 for path in new)
    return False


def damage(root: Path) -> list[str]:
    """Return the names of blobs in a store whose bytes are not what their names say, and of parts that lack something."""
    store = Store.open(root)
    blobs = [path.name for path in (root / "blobs" / "sha256").glob("*") if digest_of(path) != f"sha256:{path.name}"]
    return blobs + [path.name for path in (root / "parts").glob("*.json") if store.find(path.stem) is None]


def index(directory: Path) -> dict[str, list[dict[str, dict[str, str]]]]:
    """Return the index of an image layout."""
    found: dict[str, list[dict[str, dict[str, str]]]] = json.loads((directory / "index.json").read_bytes())
    return found
