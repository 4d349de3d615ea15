"""What is verified: an image in the engine, on a host, with or without a GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import docker
import docker.errors
import docker.types
import msgspec

from torchstrata import platforms
from torchstrata.building.engine import Engine
from torchstrata.errors import ContainerError, MatrixError, NoGpuError, NoImageError
from torchstrata.image import runtime
from torchstrata.locks import os_locks
from torchstrata.matrix import matrix
from torchstrata.store.layer import PLATFORM
from torchstrata.verification import leftovers
from torchstrata.verification.evidence import EngineImage, Gpu, Host
from torchstrata.verification.expectation import Expectation

USABLE_AFTER: Final = 1.0
"""Seconds that a container must last to be usable."""

ALL_GPUS: Final = (docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]]),)
ASK_GPU: Final = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is verified and where; it can be sent to the processes that share the tests.

    :param cell: id of the cell that it must be.
    :param image: ``None`` for a machine that is not a container.
    :param gpu: ``None`` where tests that need one do not run.
    :param also: the all-in-one image with the same layers, where the tests of the flavour are its tests too.
    :param drift: what its label says of OS packages that are not as locked.
    :param platform: that its config names.
    """

    cell: str
    flavour: str
    image: EngineImage | None
    host: Host
    gpu: Gpu | None
    also: tuple[EngineImage, ...] = ()
    drift: str = ""
    platform: str = PLATFORM

    @property
    def expected(self) -> Expectation:
        """What it must be.

        :raises PlatformError: its cell is not offered on its platform.
        """
        cell = matrix.select_on(matrix.load(), self.platform, self.cell)[0]
        return Expectation(cell=cell, flavour=self.flavour, drift=os_locks.from_words(self.drift))

    @property
    def is_emulated(self) -> bool:
        """Whether an engine runs its programs by an emulator."""
        return self.image is not None and self.host.machine != platforms.MACHINES[self.platform]

    @property
    def applies(self) -> frozenset[str]:
        """What tests may apply to, and is so here: what the cell has, ``container``, ``native``, ``gpu``, ``multigpu`` (two)."""
        has = {
            "container": self.image is not None,
            "native": not self.is_emulated,
            "gpu": self.gpu is not None,
            "multigpu": self.gpu is not None and self.gpu.count > 1,
        }
        return self.expected.applies | {name for name, applies in has.items() if applies}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What somebody says that an image or machine is: ``None`` for what nobody says."""

    cell: str | None
    flavour: str | None

    def settle(self, labels: Mapping[str, str], what: str) -> tuple[str, str]:
        """Return cell and flavour, taken from the labels of ``what`` where nobody says otherwise.

        :raises MatrixError: there is no such cell or flavour, or nothing tells.
        """
        cell, flavour = self.cell or labels.get("torchstrata.cell"), self.flavour or labels.get("torchstrata.flavour")
        if not cell or not flavour:
            raise MatrixError(
                f"{what} does not say which cell and flavour it is", fix="say it: --flavour FLAVOUR; where no session names the cell, --cell CELL too"
            )
        table = matrix.load()
        table.with_parents(flavour)
        return matrix.select(table, cell)[0].id, flavour


GpuWish = Literal["auto", "required", "none"]


def examine(engine: Engine, reference: str, claim: Claim, wish: GpuWish) -> Subject:
    """Return the image that ``reference`` means as a subject.

    :param wish: whether tests that need a GPU run: if there is one, in any case, or not.
    :raises NoImageError: the engine has no such image.
    :raises MatrixError: there is no such cell or flavour.
    :raises LockError: its label of drift cannot be understood.
    :raises NoGpuError: a GPU is required, and there is none, or the cell has no use for it.
    """
    image, labels = find(engine, reference)
    cell, flavour = claim.settle(labels, reference)
    drift, platform = labels.get(runtime.DRIFT, ""), labels.get(runtime.PLATFORM_LABEL, PLATFORM)
    subject = Subject(cell=cell, flavour=flavour, image=image, host=host(engine), gpu=None, drift=drift, platform=platform)
    subject = msgspec.structs.replace(subject, also=_also(engine, subject.expected, image))
    return msgspec.structs.replace(subject, gpu=settle_gpu(subject.expected, lambda: _seen(engine, reference), wish))


def _also(engine: Engine, expected: Expectation, image: EngineImage) -> tuple[EngineImage, ...]:
    """Return the all-in-one image with the layers of ``image``, if there is to be one and the engine has it."""
    table = matrix.load()
    if not expected.cell.named or expected.flavour != table.all_in_one:
        return ()
    with contextlib.suppress(NoImageError):  # which fails its tests
        all_in_one, _ = find(engine, f"{table.name}:{expected.cell.all_in_one}{platforms.suffix(expected.cell.platform)}")
        layers = [engine.client.images.get(image_of_layers.digest).attrs["RootFS"]["Layers"] for image_of_layers in (image, all_in_one)]
        return (all_in_one,) if layers[0] == layers[1] else ()
    return ()


def settle_gpu(expected: Expectation, look: Callable[[], Gpu | None], wish: GpuWish) -> Gpu | None:
    """Return the GPU that ``look`` finds, if one is wished for.

    :raises NoGpuError: one is required and there is none, or the cell has no use for it.
    """
    if wish == "none" or ("cuda" not in expected.applies and wish == "auto"):
        return None
    if "cuda" not in expected.applies:
        raise NoGpuError(f"{expected.cell.id} has no CUDA: nothing of it needs a GPU", fix="leave out --gpu required")
    gpu = look()
    if wish == "required" and gpu is None:
        raise NoGpuError("no GPU is visible here", fix="install NVIDIA's driver and container toolkit, or leave out --gpu required")
    return gpu


def find(engine: Engine, reference: str) -> tuple[EngineImage, Mapping[str, str]]:
    """Return the image that ``reference``, a name or a digest, means, and its labels.

    :raises NoImageError: the engine has none.
    """
    try:
        attributes: dict[str, Any] = engine.client.images.get(reference).attrs
    except docker.errors.ImageNotFound as error:
        raise NoImageError(f"the engine has no image {reference}", fix="build it with `nox -s build-CELL`, or pull or load it") from error
    except docker.errors.APIError as error:
        raise NoImageError(f"the engine does not take {reference} for the name of an image: {error.explanation}", fix="name an image or a digest") from error
    identity, config = attributes["Id"], None if engine.store == "containerd" else attributes["Id"]
    image = EngineImage(reference=reference, digest=identity, manifest=_manifest(engine, attributes), config=config)
    return image, attributes["Config"]["Labels"] or {}


def _manifest(engine: Engine, attributes: Mapping[str, Any]) -> str | None:
    """Return the digest of the manifest: the ID in the containerd store; in the classic one, what a registry gave."""
    if engine.store == "containerd":
        return str(attributes["Id"])
    digests = {name.partition("@")[2] for name in attributes.get("RepoDigests") or ()}
    return digests.pop() if len(digests) == 1 else None


def check_start(engine: Engine, reference: str) -> None:
    """Check that a container of the image starts and lasts.

    :raises ContainerError: it does not.
    """
    container = engine.client.containers.create(reference, ["sleep", "60"], labels=leftovers.labels(), network_mode="none")
    try:
        container.start()
        time.sleep(USABLE_AFTER)
        container.reload()
        if container.status != "running":
            raise _ended(reference, container)
    except docker.errors.APIError as error:
        raise ContainerError(f"no container of {reference} can be started: {error.explanation}", fix="see what `docker run` says") from error
    finally:
        container.remove(force=True, v=True)


def _ended(reference: str, container: Any) -> ContainerError:
    lines = container.logs(tail=5).decode(errors="replace").strip().splitlines()
    last_words = f": {lines[-1]}" if lines else ", and said nothing"
    status = container.attrs["State"]["ExitCode"]
    return ContainerError(f"a container of {reference} ended at once with status {status}{last_words}", fix=f"see: docker run --rm {reference} sleep 60")


def host(engine: Engine) -> Host:
    """Return the machine that the engine runs on."""
    info = engine.client.info()
    machine = platforms.MACHINES.get(f"linux/{info['Architecture']}", info["Architecture"])  # some say it as images do
    return Host(kernel=info["KernelVersion"], engine=engine.version, cpus=info["NCPU"], machine=machine)


def _seen(engine: Engine, reference: str) -> Gpu | None:
    if "nvidia" not in engine.client.info().get("Runtimes", {}):
        return None
    options: dict[str, Any] = {"entrypoint": list(ASK_GPU), "device_requests": list(ALL_GPUS), "labels": leftovers.labels(), "remove": True}
    try:
        shown = engine.client.containers.run(reference, **options)
    except (docker.errors.ContainerError, docker.errors.APIError):
        return None  # what the doctor would explain: no device, or a driver that does not fit
    return parse_gpu(shown.decode())


def parse_gpu(shown: str) -> Gpu | None:
    """Return the GPU in what :data:`ASK_GPU` prints, ``None`` if there is none."""
    rows = [[field.strip() for field in line.split(",")] for line in shown.splitlines() if "," in line]
    return Gpu(name=rows[0][0], driver=rows[0][1], count=len(rows)) if rows else None
