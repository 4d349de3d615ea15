"""Reading a container from outside, for comparison with an image.

Nothing is run in the container: its Python may be what is broken, it may have ended, and what it says of itself
proves nothing. The engine lists the paths in which its file system differs from its image (``docker diff``), and
gives the files (``docker cp``). What the image has at these paths a container of the image says, which has nothing of
the other one but its name: no network, no mount, and the Python that was released. The engine compares files by size
and time, so a change that keeps both is not seen (``same-image`` reads every byte). Mounts are not the container's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os.path
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import IO, Any, Final, cast

import docker.errors
import requests

from torchstrata import process
from torchstrata.building.engine import Engine
from torchstrata.drift import comparison, contents
from torchstrata.drift.comparison import Drift
from torchstrata.drift.contents import Contents, FileState, InstalledWheel
from torchstrata.errors import EngineError, ForeignContainerError, NoContainerError, NoImageError
from torchstrata.store.codec import Stream

PROGRAM: Final = resources.files("torchstrata.drift").joinpath("contents.py")
PYTHON: Final = "/usr/bin/python3"
SECONDS: Final = 600
"""More than a container takes that hashes a whole image on a slow disk."""

CELL: Final = "torchstrata.cell"
ADDED: Final = 1
DELETED: Final = 2
"""Kinds of a change in Docker's API; 0 is changed."""

INFO: Final = re.compile(r"(?P<info>/.+\.dist-info)(?:/METADATA)?")
FEW: Final = 24
"""Files that are asked for one by one; of more, the directory that holds them all is read to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedContainer:
    """A container and its image, as the engine knows them.

    :param image: ID of its image.
    :param named: the image as it was named when the container was made.
    :param digests: of the image, as ``REPOSITORY@sha256:...``.
    :param user: of the image, such as ``1000:0``.
    """

    id: str
    name: str
    image: str
    named: str
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    user: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drifted:
    """A container and what differs.

    :param against: the image that it was compared with.
    :param wheels: the container's.
    :param records: files of packages that are in the container alone, by path, with the package.
    :param made: paths that are in the container alone, directories among them.
    """

    container: InspectedContainer
    against: str
    drifts: tuple[Drift, ...]
    wheels: tuple[InstalledWheel, ...]
    records: Mapping[str, str]
    made: frozenset[str] = frozenset()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the engine refuses into an error of ours."""
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineError(f"the engine refused to look at a container: {error.explanation}", fix="see its log, and try again") from error
    except (requests.RequestException, docker.errors.DockerException) as error:
        raise EngineError("the engine does not answer any more", fix="start it and try again: nothing was changed") from error


@_refusals()
def drift(engine: Engine, name: str, against: str | None = None) -> Drifted:
    """Return how a container differs from its image, or from another one.

    :param name: name or ID of the container, running or not.
    :param against: reference of the other image.
    :raises NoContainerError, NoImageError: the engine has no such container; or its image is gone.
    :raises ForeignContainerError: it is none of ours.
    :raises EngineError: the engine does not answer, or refuses something.
    """
    subject = inspect(engine, name)
    changes = _changes(engine, subject)
    tracked = sorted(path for path in changes if comparison.is_tracked(path) or comparison.ENVIRONMENT.fullmatch(path))
    own = read_image(subject.image, tracked)
    other = own if against is None else read_image(_image(engine, against), tracked)
    here, brought = _Reader(engine, subject, changes).read(own, tracked)
    return Drifted(
        container=subject,
        against=against or subject.image,
        drifts=tuple(comparison.compare(other, here, brought)),
        wheels=here.wheels,
        records=brought,
        made=frozenset(path for path, kind in changes.items() if kind == ADDED),
    )


def inspect(engine: Engine, name: str) -> InspectedContainer:
    """Return a container of an image of ours.

    :raises NoContainerError, NoImageError, ForeignContainerError: see :func:`drift`.
    """
    try:
        attributes = engine.client.api.inspect_container(name)
    except (docker.errors.NotFound, docker.errors.NullResource) as error:
        raise NoContainerError(f"the engine has no container {name or repr(name)}", fix="docker ps --all shows those that there are") from error
    identity = _image(engine, attributes["Image"])
    image: dict[str, Any] = engine.client.api.inspect_image(identity)  # type: ignore[no-untyped-call]
    config = image.get("Config") or {}
    labels = config.get("Labels") or {}
    if CELL not in labels:
        raise ForeignContainerError(
            f"container {name} is of {attributes['Config']['Image']}, which is no image of ours", fix="name one whose image this program has made"
        )
    return InspectedContainer(
        id=attributes["Id"],
        name=str(attributes["Name"]).lstrip("/"),
        image=identity,
        named=str(attributes["Config"]["Image"]),
        digests=tuple(image.get("RepoDigests") or ()),
        labels=labels,
        user=str(config.get("User") or ""),
    )


def _image(engine: Engine, reference: str) -> str:
    """Return the ID of an image.

    :raises NoImageError: the engine does not have it.
    """
    identity = engine.image_id(reference)
    if identity is None:
        fix = "pull it again, by that digest" if "sha256:" in reference else "docker images shows those that there are; docker pull gets others"
        raise NoImageError(f"the engine has no image {reference}, with which to compare", fix=fix)
    return identity


def read_image(identity: str, paths: Sequence[str]) -> Contents:
    """Return what an image has, by its own Python.

    :raises Failed: the container in which that runs failed.
    """
    without = ("--rm", "--interactive", "--network=none", "--user=0:0", "--no-healthcheck", f"--entrypoint={PYTHON}")
    program = PROGRAM.read_text(encoding="utf-8")
    question = json.dumps(list(paths)).encode()
    return contents.decode(process.run("docker", "run", *without, "--", identity, "-I", "-S", "-c", program, stdin=question, seconds=SECONDS))


def _changes(engine: Engine, subject: InspectedContainer) -> dict[str, int]:
    """Return the kind of change by path."""
    listed: list[dict[str, Any]] = engine.client.api.diff(subject.id) or []
    return {str(change["Path"]): int(change["Kind"]) for change in listed}


class _Reader:
    """Reads what a container has where it differs from its image."""

    def __init__(self, engine: Engine, subject: InspectedContainer, changes: Mapping[str, int]) -> None:
        self._files = ContainerFiles(engine, subject.id)
        self._changes = changes

    def read(self, own: Contents, tracked: Sequence[str]) -> tuple[Contents, dict[str, str]]:
        """Return what the container has, and who brought the files that only it has.

        :param own: what its image has.
        :param tracked: paths whose state counts.
        """
        wheels, brought = self._wheels(own)
        packages = dict(own.packages)
        if contents.STATUS in self._changes:
            packages = contents.status(self._files.text(contents.STATUS) or "")
            brought |= self._lists(own.packages, packages)
        return Contents(wheels, packages, self._states(tracked, brought)), brought

    def _wheels(self, own: Contents) -> tuple[tuple[InstalledWheel, ...], dict[str, str]]:
        """Return the Python packages, and the files of those that the image has not."""
        touched = {match["info"] for path in self._changes if (match := INFO.fullmatch(path)) and not _is_within_environment(path, self._changes)}
        gone = {info for info in touched if DELETED in {self._changes.get(info), self._changes.get(f"{info}/METADATA")}}
        there = {wheel.info for wheel in own.wheels}
        fresh = {info for info in touched - gone if info not in there or f"{info}/METADATA" in self._changes}
        fresh_files = {info: self._files.below(info) for info in sorted(fresh)}
        read = {info: wheel for info, files in fresh_files.items() if (wheel := _wheel(info, files))}
        brought: dict[str, str] = {}
        for info, wheel in read.items():
            files = contents.recorded(_text(fresh_files[info], "RECORD"), wheel.place, self._links(wheel.place))
            brought |= dict.fromkeys(files, f"wheel {wheel.name}")
        brought = self._directories(brought) | brought
        unchanged = [wheel for wheel in own.wheels if wheel.info not in gone | fresh]
        return tuple(sorted([*unchanged, *read.values()])), brought

    def _links(self, place: str) -> list[str]:
        """Return which directories of a place are links of the image; pip's own directory of such a name is a change."""
        return [top for top in contents.SHARED if place.startswith(contents.VENV) and f"{place}/{top}" not in self._changes]

    def _directories(self, brought: Mapping[str, str]) -> dict[str, str]:
        """Return the directories that came with files, and with whom; those of bytecode come and go."""
        directories: dict[str, str] = {}
        for path, owner in brought.items():
            directories |= dict.fromkeys(contents.above(path), owner)
        return {path: owner for path, owner in directories.items() if self._changes.get(path) == ADDED and "__pycache__" not in path}

    def _lists(self, before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
        """Return who brought the files of OS packages that are new or others."""
        names = {name.rpartition(":")[0] for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
        files = {f"{contents.LISTS}/{name}{ending}.list": f"{name}{ending}" for name, ending in product(names, ("", ":amd64", ":arm64"))}
        listings = self._files.contents([path for path in files if self._changes.get(path, DELETED) != DELETED])
        brought: dict[str, str] = {}
        for path, content in listings.items():
            brought |= dict.fromkeys(content.decode(errors="replace").splitlines(), f"package {files[path]}")
        return brought

    def _states(self, tracked: Sequence[str], brought: Mapping[str, str]) -> dict[str, FileState]:
        """Return the state of paths; of files that a new package brought it does not matter."""
        asked = [path for path in tracked if self._changes[path] != DELETED and path not in brought]
        states = self._files.states(asked)
        return {path: states.get(path, FileState()) for path in tracked if path not in brought}


def _is_within_environment(path: str, changes: Mapping[str, int]) -> bool:
    """Return whether a path lies in an environment that has come: conda's, or one of PEP 405."""
    above = path
    while above := above.rpartition("/")[0]:
        if above != contents.VENV and (f"{above}/pyvenv.cfg" in changes or f"{above}/conda-meta" in changes):
            return True
    return False


def _wheel(info: str, files: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> InstalledWheel | None:
    """Return the package of a ``.dist-info`` directory, ``None`` where that is none."""
    if f"{info}/METADATA" not in files:
        return None
    direct = _text(files, "direct_url.json") or None
    return contents.wheel(info, _text(files, "METADATA"), direct, files[f"{info}/METADATA"][0].uid)


def _text(files: Mapping[str, tuple[tarfile.TarInfo, bytes]], name: str) -> str:
    """Return the text of a file of that name, empty if there is none."""
    matching = [content for path, (_, content) in files.items() if path.endswith(f".dist-info/{name}")]
    return matching[0].decode(errors="surrogateescape") if matching else ""


class ContainerFiles:
    """Files of a container, as the engine packs them; nothing runs in it."""

    def __init__(self, engine: Engine, identity: str) -> None:
        self._api, self._identity = engine.client.api, identity

    def text(self, path: str) -> str | None:
        """Return the content of a text file, ``None`` if there is none."""
        content = self.contents([path]).get(path)
        return None if content is None else content.decode(errors="surrogateescape")

    def contents(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those of some regular files that there are."""
        return {path: content for path, member, content in self._members(paths, whole=True) if member.isreg()}

    def states(self, paths: Sequence[str]) -> dict[str, FileState]:
        """Return the state of those of some paths that there are."""
        return {path: _state(member, content.decode()) for path, member, content in self._members(paths, whole=False)}

    def below(self, directory: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
        """Return the regular files of a directory by path; none if it is none."""
        return {path: (member, content) for path, member, content in self._archive(directory, None, whole=True) if member.isreg()}

    def members(self, paths: Sequence[str]) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
        """Yield path, head and content of those of some paths that there are."""
        yield from self._members(paths, whole=True)

    def _members(self, paths: Sequence[str], *, whole: bool) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
        """Yield path, head and content (or its digest) of some paths."""
        wanted = frozenset(paths)
        are_few = len(paths) <= FEW
        for root in paths if are_few else _tops(paths):
            yield from self._archive(root, wanted, whole=whole, alone=are_few)

    def _archive(self, root: str, wanted: frozenset[str] | None, *, whole: bool, alone: bool = False) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
        """Yield what lies at and below a path, as far as it is wanted; content, or its digest as text.

        :param alone: of a directory only itself.
        """
        try:
            stream, _ = self._api.get_archive(self._identity, root, chunk_size=contents.CHUNK)
        except docker.errors.NotFound:
            return  # it ends while it is looked at
        parent = os.path.dirname(root)  # noqa: PTH120  # a path in another file system
        links = []
        with tarfile.open(fileobj=cast("IO[bytes]", io.BufferedReader(_Chunks(stream), contents.CHUNK)), mode="r|", bufsize=contents.CHUNK) as archive:
            for member in archive:
                path = f"{parent.rstrip('/')}/{member.name.rstrip('/')}"
                if member.islnk():
                    links.append(path)
                elif wanted is None or path in wanted:
                    yield path, member, _content(archive, member, whole=whole)
                if alone and member.isdir():
                    return
        for path in links:  # alone, a second name of a file is the file
            yield from self._archive(path, wanted, whole=whole, alone=True)


def _tops(paths: Iterable[str]) -> list[str]:
    """Return few directories that hold all of some paths: two levels below the root (``/opt/venv``), or higher."""
    return sorted({"/".join(path.split("/")[:3]) for path in paths})


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, *, whole: bool) -> bytes:
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        return b""
    return file.read() if whole else contents.digest_of(iter(lambda: file.read(contents.CHUNK), b"")).encode()


def _state(member: tarfile.TarInfo, digest: str) -> FileState:
    kind = "file" if member.isreg() else "link" if member.issym() else "directory" if member.isdir() else "other"
    return FileState(kind, member.mode & 0o7777, member.uid, member.gid, member.linkname if kind == "link" else digest)


class _Chunks(Stream):
    """Chunks as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks, self._rest = iter(chunks), b""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most so many of the bytes that come next."""
        chunk = self._rest or next(self._chunks, b"")
        self._rest = chunk[size:]
        return chunk[:size]
