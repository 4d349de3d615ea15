"""The container engine: which one answers, what it has, and how images get into it.

Everything goes through Docker's API, to the engine that the ``docker`` command uses. Both image stores are supported:
the classic one knows an image by the digest of its config, the containerd one by that of its manifest.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

import docker
import docker.errors
import requests
from docker.tls import TLSConfig

from torchstrata import process, progress
from torchstrata.errors import BuildxError, CommandError, DiskFullError, EngineError
from torchstrata.host import docker_config
from torchstrata.host.docker_config import DockerContext
from torchstrata.image import loadable
from torchstrata.image.compose import sha256
from torchstrata.image.loadable import Loadable, chain_ids
from torchstrata.store.layer import Layer, OpenBlob

ImageStore = Literal["containerd", "classic"]

LEAST_BUILDX: Final = (0, 13)
"""The oldest buildx that this was run with."""

USUAL: Final = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
"""Where this machine's own engine is, and where `nox -s engine` sets one up."""

CONNECT_SECONDS: Final = 20
"""For each of two questions: the version, and how the engine is."""

JOIN: Final = 'run: sudo usermod --append --groups docker "$USER"; it counts from your next login on, or in a shell that `newgrp docker` starts'

ANSWER_SECONDS: Final = 3600
"""An engine says nothing while it unpacks a large layer; one that died closes the connection at once."""

P = ParamSpec("P")
T = TypeVar("T")

OnBytes = Callable[[int], object]

LISTS_MANIFESTS: Final = (1, 47)
"""Before this API version (Docker 27) the list of images omits those that lack blobs; from it on, it tells them."""

CHECKED_BY: Final = "torchstrata.check"
"""Label of containers that show that an image is whole: the process that removes them unless something ends it."""

LISTINGS: Final = (0.1, 0.3, 1.0)
"""Seconds before images are listed again."""

CONTAINERD_ROOT: Final = Path("/var/lib/containerd")
ALMOST_FULL: Final = 200_000_000
NO_SPACE: Final = "no space left on device"


class Refused(EngineError):
    """The engine took an archive and could not use it."""


def names(client: docker.DockerClient) -> list[str]:
    """Return every name of an image in the engine, by tag and by digest; in one question, since images come and go."""
    return [*itertools.chain.from_iterable([*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())] for image in listed(client))]


def listed(client: docker.DockerClient, **question: Any) -> list[dict[str, Any]]:
    """Return the images of an engine, each as a list of them describes it.

    :raises docker.errors.DockerException, requests.RequestException: the engine does not answer.
    """
    return _though_some_go(lambda: list(client.api.images(**question)))


def _though_some_go(question: Callable[[], T]) -> T:
    """Return the answer to a question about all images; the containerd store fails (moby 26) where one is removed meanwhile, and is asked again."""
    for wait in LISTINGS:
        try:
            return question()
        except docker.errors.NotFound:
            time.sleep(wait)
    return question()


def check_access(socket: Path) -> None:
    """Refuse to go on where an engine runs that this user may not use: to start another one would not help.

    :param socket: where it is looked for; one that does not exist is no reason to refuse.
    :raises EngineError: this user may not use it.
    """
    ready = socket.exists() and socket.stat().st_mode & stat.S_IRGRP  # before, a daemon that starts has not opened it to its group
    if ready and not os.access(socket, os.R_OK | os.W_OK):
        raise EngineError(f"an engine runs at {socket}, and you may not use it", fix=JOIN)


def how_to_start(where: str) -> str:
    """Return what helps where no engine answers at an address: one can be set up at the usual one alone."""
    if where in USUAL:
        return "start Docker, or let `nox -s engine` set it up (as root, on Debian or Ubuntu)"
    return "start that engine; for this machine's usual one unset DOCKER_HOST and DOCKER_CONTEXT, or docker context use default"


def connect() -> Engine:
    """Return the engine that the ``docker`` command would use.

    :raises EngineError: none answers, or this user may not use it.
    :raises VariableError: Docker's configuration cannot be read.
    """
    docker_config.check()
    context, where = docker_config.context(), docker_config.address()
    try:
        with progress.overdue(f"waiting for the engine at {where}, {2 * CONNECT_SECONDS} s at most"):
            client = _client(context)
            info = client.info()
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        check_access(Path(where.removeprefix("unix://")))
        if isinstance(error, requests.Timeout) or isinstance(error.__context__, requests.Timeout):
            fix = "restart it: sudo systemctl restart docker; or name another engine: docker context use NAME"
            raise EngineError(f"the engine at {where} has not answered for {CONNECT_SECONDS} s", fix=fix) from error
        raise EngineError(f"no Docker engine answers at {where}", fix=how_to_start(where)) from error
    client.api.timeout = ANSWER_SECONDS
    return Engine(client, info)


def _client(context: DockerContext | None) -> docker.DockerClient:
    """Return a client of the engine of a context; without one of that which the environment names."""
    options: dict[str, Any] = {"version": "auto", "timeout": CONNECT_SECONDS, "use_ssh_client": True}
    if context is None or not context.host:
        return docker.from_env(use_context=False, **options)
    return docker.DockerClient(base_url=context.host, tls=_tls(context) or False, **options)


def _tls(context: DockerContext) -> TLSConfig | None:
    """Return how TLS is spoken to the engine of a context; ``None`` where it is not."""
    if not context.has_tls:
        return None
    pair = (str(context.key_pair[0]), str(context.key_pair[1])) if context.key_pair else None
    return TLSConfig(client_cert=pair, ca_cert=str(context.ca) if context.ca else None, verify=context.is_verified)


def _translated(method: Callable[Concatenate[Engine, P], T]) -> Callable[Concatenate[Engine, P], T]:
    """Raise an error of ours where the engine refuses something, or died."""

    @functools.wraps(method)
    def asking(self: Engine, /, *args: P.args, **options: P.kwargs) -> T:
        try:
            return method(self, *args, **options)
        except docker.errors.APIError as error:
            raise self._refusal(str(error.explanation)) from error
        except (requests.RequestException, docker.errors.DockerException) as error:
            raise self._broken_off() from error

    return asking


class Engine:
    """An engine that answered.

    :param client: a connection to it.
    :param info: what it said about itself.
    """

    def __init__(self, client: docker.DockerClient, info: dict[str, Any]) -> None:
        self.client = client
        self.version = str(info["ServerVersion"])
        snapshotter = "io.containerd.snapshotter" in str(info.get("DriverStatus"))
        self.store: ImageStore = "containerd" if snapshotter else "classic"
        self._info = info

    @property
    def info(self) -> Mapping[str, Any]:
        """What it said about itself (Docker's API, ``/info``)."""
        return self._info

    @property
    def is_local(self) -> bool:
        """Whether its files are this machine's."""
        return docker_config.address().startswith("unix://") and self._info.get("OperatingSystem") != "Docker Desktop"

    def is_alive(self) -> bool:
        """Return whether it still answers."""
        try:
            return bool(self.client.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def buildx(self) -> str:
        """Return the version of buildx.

        :raises BuildxError: the ``docker`` command or its buildx plugin is missing or too old.
        """
        fix = "install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (Docker's own packages), or run `nox -s engine`"
        try:
            words = process.run("docker", "buildx", "version").split()
        except CommandError as error:
            raise BuildxError("the docker command has no buildx", fix=fix) from error
        number = re.search(r"(\d+)\.(\d+)", " ".join(words[1:]))
        if number is None or (int(number[1]), int(number[2])) < LEAST_BUILDX:
            raise BuildxError(f"buildx {' '.join(words[1:])} is older than {LEAST_BUILDX[0]}.{LEAST_BUILDX[1]}", fix=fix)
        return words[1]

    def _places(self) -> list[Path]:
        """Return where the engine keeps images; nothing where that cannot be known from here."""
        root = Path(self._info["DockerRootDir"])
        return [path for path in (root, CONTAINERD_ROOT) if path.is_dir()] if self.is_local and root.is_dir() else []

    def free_space(self) -> int | None:
        """Return the free bytes where the engine keeps images; ``None`` where that cannot be known from here."""
        return min((shutil.disk_usage(path).free for path in self._places()), default=None)

    def shares_disk(self, directory: Path) -> bool:
        """Return whether the engine may keep images on the disk of a directory: file systems of one size may be one."""
        own, places = shutil.disk_usage(directory).total, self._places()
        return not places or any(shutil.disk_usage(path).total == own for path in places)

    @staticmethod
    def space_for(layers: Iterable[Layer]) -> int:
        """Return the bytes that loading ``layers`` takes at most: a store holds them compressed and unpacked."""
        return sum(layer.size + layer.unpacked for layer in layers)

    def id_of(self, image: Loadable) -> str:
        """Return the ID that ``image`` has, or would have, in this engine."""
        return sha256(image.manifest if self.store == "containerd" else image.config)

    @_translated
    def ask(self, question: Callable[[docker.DockerClient], T]) -> T:
        """Return the answer to a question; what goes wrong is an error of ours."""
        return question(self.client)

    @_translated
    def image_id(self, tag: str) -> str | None:
        """Return the ID of the image that ``tag`` names, ``None`` if there is none."""
        try:
            return str(self._inspect(tag)["Id"])
        except docker.errors.ImageNotFound:
            return None

    @_translated
    def whole(self) -> frozenset[str]:
        """Return the IDs of the images that lack none of their blobs."""
        if self.store == "classic" or tuple(map(int, self.client.api.api_version.split("."))) < LISTS_MANIFESTS:
            return frozenset(image["Id"] for image in listed(self.client))
        return frozenset(image["Id"] for image in _though_some_go(self._with_manifests) if _is_whole(image))

    def _with_manifests(self) -> list[dict[str, Any]]:
        """Return what a list says of each image, its blobs included, which the library does not ask for."""
        url = f"{self.client.api.base_url}/v{self.client.api.api_version}/images/json"
        answer = self.client.api.get(url, params={"manifests": "1"}, timeout=ANSWER_SECONDS)
        try:
            answer.raise_for_status()
        except requests.HTTPError as error:  # what the library makes of a refusal where it asks itself
            docker.errors.create_api_error_from_http_exception(error)
        images: list[dict[str, Any]] = answer.json()
        return images

    @_translated
    def held(self) -> frozenset[str]:
        """Return the ChainIDs of all unpacked layers that the engine surely has: those of its whole images."""
        chains: set[str] = set()
        for identity in self.whole():
            try:
                chains.update(chain_ids(self._inspect(identity)["RootFS"].get("Layers") or ()))
            except docker.errors.NotFound:
                continue  # somebody removed it just now
        return frozenset(chains)

    def lacks(self, stacks: Iterable[Sequence[Layer]]) -> tuple[Layer, ...]:
        """Return the layers of ``stacks`` (each bottom to top) that the engine must unpack, once for every stack."""
        held = self.held()
        chained: dict[str, Layer] = {}
        for layers in stacks:
            chained |= zip(chain_ids(layer.diff_id for layer in layers), layers, strict=True)
        return tuple(layer for chain, layer in chained.items() if chain not in held)

    @_translated
    def send(self, images: Sequence[Loadable], layers: Iterable[Layer], open_blob: OpenBlob, on_bytes: OnBytes, ready: Callable[[], object]) -> None:
        """Send one archive of nameless images with the blobs of ``layers``, and wait until the engine has unpacked it.

        :param ready: called before the end of the archive is sent, without which the engine does not start to unpack.
        :raises Refused: the engine cannot use the archive.
        """
        body = _counted(loadable.stream(images, layers, open_blob), on_bytes, ready)
        for line in self.client.api.load_image(body):  # type: ignore[no-untyped-call]
            if "error" in line:
                raise self._refusal(line["error"])

    @_translated
    def check(self, image: Loadable) -> None:
        """Check that a loaded image is whole: the right layers, all blobs, and a container can be made of it.

        :raises Refused: it is not.
        """
        identity = self.id_of(image)
        layers = self._inspect(identity)["RootFS"].get("Layers") or ()
        if tuple(layers) != image.diff_ids or identity not in self.whole():
            raise self._refusal(f"image {identity} is not whole")
        made = self.client.api.create_container(identity, command=["true"], labels={CHECKED_BY: process.name()})
        self.client.api.remove_container(made["Id"])

    @_translated
    def unpack(self, image: Loadable) -> None:
        """Have an image that is here unpacked, where its upper layers went with another one that shared them.

        The containerd store marks shared layers as needed by the image that came first only; ``docker history`` of
        the others fails then, and their next container takes the time to unpack.

        :raises Refused: it cannot be unpacked.
        """
        try:
            self.client.api.history(self.id_of(image))  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            self.check(image)

    @_translated
    def name(self, image: Loadable) -> None:
        """Let all names of ``image`` point to it."""
        for tag in image.tags:
            if self.image_id(tag) != self.id_of(image):
                repository, _, version = tag.rpartition(":")
                self.client.api.tag(self.id_of(image), repository, version)

    @_translated
    def sweep(self, images: Iterable[Loadable]) -> None:
        """Remove nameless prefix images whose layers all belong to ``images`` too, and containers of earlier checks.

        One that is in use meanwhile stays for the next load.
        """
        for container in self.client.api.containers(all=True, filters={"label": CHECKED_BY}):
            if process.is_over(container["Labels"][CHECKED_BY]):
                with contextlib.suppress(docker.errors.APIError):
                    self.client.api.remove_container(container["Id"], force=True)
        chains = set(itertools.chain.from_iterable(chain_ids(image.diff_ids) for image in images))
        for dangling in listed(self.client, filters={"dangling": True, "label": "torchstrata.prefix"}):
            try:
                layers = self._inspect(dangling["Id"])["RootFS"]["Layers"]
                if chain_ids(layers)[-1] in chains:
                    self.client.api.remove_image(dangling["Id"])
            except (docker.errors.NotFound, docker.errors.APIError):
                continue  # another build has removed it, or is making use of it

    def _inspect(self, reference: str) -> dict[str, Any]:
        attributes: dict[str, Any] = self.client.api.inspect_image(reference)  # type: ignore[no-untyped-call]
        return attributes

    def _refusal(self, cause: str) -> EngineError | DiskFullError:
        if NO_SPACE in cause:
            return DiskFullError(
                f"the engine's disk is full: {cause}",
                fix="free space with `docker image prune` and `docker buildx prune`, and build again: nothing that was made is lost",
            )
        return Refused(f"the engine refused an image: {cause}", fix="build again; if that does not help, restart the engine")

    def _broken_off(self) -> EngineError | DiskFullError:
        """Say why a connection ended while something was being sent."""
        try:
            self.client.ping()
        except (docker.errors.DockerException, requests.RequestException):
            return EngineError("the engine died while images were loaded", fix="start it and build again: nothing that was made is lost")
        if (self.free_space() or ALMOST_FULL) < ALMOST_FULL:
            return self._refusal(NO_SPACE)
        return EngineError("the engine closed the connection while images were loaded", fix="read its log, then build again: nothing that was made is lost")


def _is_whole(listed: Mapping[str, Any]) -> bool:
    manifests = listed.get("Manifests") or ()
    return any(part["Available"] and part["ID"] == listed["Id"] for part in manifests)


def _counted(chunks: Iterable[bytes], on_bytes: OnBytes, ready: Callable[[], object]) -> Iterable[bytes]:
    """Pass chunks on and count them; send the end when everything is ready for it."""
    for chunk in chunks:
        yield chunk
        on_bytes(len(chunk))
    ready()
    yield loadable.END
