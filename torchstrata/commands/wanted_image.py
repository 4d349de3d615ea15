"""The image that the words of ``inv up`` mean, and where it is: in this engine, in the team's registry, or only after a build."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace

import docker.errors
from rich.prompt import Confirm

from torchstrata import platforms
from torchstrata.attestations import remote
from torchstrata.building.engine import Engine
from torchstrata.commands import build
from torchstrata.commands.container_options import UpOptions
from torchstrata.commands.options import BuildOptions
from torchstrata.containers import declared_services, description, pulling, running
from torchstrata.containers.found_image import FoundImage
from torchstrata.errors import MatrixError, NoImageError, PlatformError
from torchstrata.image import oci
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.platforms import PLATFORM
from torchstrata.progress import Reporter
from torchstrata.registry.patience import Patience
from torchstrata.registry.reference import TAG, Place
from torchstrata.registry.registry import Registry
from torchstrata.text import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedImage:
    """The image that words mean.

    :param repository: of the images.
    :param tag: its name in a registry, where one stands for all platforms.
    :param place: the team's registry, if one is known.
    :param cell: that a build makes it of, with the flavour; ``None`` if none does.
    """

    repository: str
    tag: str
    platform: str
    place: Place | None
    cell: Cell | None
    flavour: str

    @property
    def local(self) -> str:
        """Its name in an engine that has built it."""
        return f"{self.repository}:{self.tag}{platforms.suffix(self.platform)}"

    @property
    def remote(self) -> str | None:
        """Its name in the registry."""
        return f"{self.place.host}/{self.place.repository(self.repository)}:{self.tag}" if self.place else None

    @property
    def build(self) -> str:
        """The command that builds it."""
        return f"nox -s build-{self.cell.names[0] if self.cell else 'CELL'}" + (f" --{self._option}" if self._option else "")

    @property
    def push(self) -> str:
        """The commands that push it, so that other machines can pull it."""
        if self.cell is None:
            return ""
        name = self.cell.names[0]
        return f"inv push {name}{self._option}" + (f", and inv join {name} once all platforms are" if len(self.cell.platforms) > 1 else "")

    @property
    def _option(self) -> str:
        return "" if self.platform == PLATFORM else f" --platform {self.platform}"

    @property
    def others(self) -> tuple[str, ...]:
        """Other names in the engine of the same image: a build gives the default OS none with the OS in it."""
        names = self.cell.names if self.cell and self.tag.endswith(f"-{self.flavour}") else ()
        return tuple(replace(self, tag=f"{name}-{self.flavour}").local for name in names if self.tag != f"{name}-{self.flavour}")

    @property
    def names(self) -> tuple[str, ...]:
        """Both, that of the engine first."""
        return (self.local, *([self.remote] if self.remote else []))


def wanted(table: Matrix, options: UpOptions, *, gpu: bool) -> WantedImage:
    """Return the image that words mean: of a cell, or by its tag.

    :param gpu: whether this machine has a GPU, to choose where nothing is said.
    :raises MatrixError: they mean none.
    :raises PlatformError: it is not offered on the platform.
    """
    if len(options.cells) > 1:
        raise MatrixError(f"{len(options.cells)} images are named: {' '.join(options.cells)}", fix="name one; each container is one call of inv up")
    implied = platforms.named(*options.cells) or platforms.here()
    platform = platforms.check(implied if options.platform is None else options.platform)
    given = options.cells[0] if options.cells else usual(table, platform, gpu=gpu).names[0]
    word = given.removeprefix(f"{table.name}:").removesuffix(platforms.suffix(platform))
    flavour = options.flavour or table.all_in_one
    table.with_parents(flavour)
    place = remote.place(options.registry, table.registry)
    cell = next((named for named in table.cells if word in named.names), None)
    if cell:
        return WantedImage(repository=table.name, tag=f"{word}-{flavour}", platform=platform, place=place, cell=cell.on(platform), flavour=flavour)
    tagged = _tagged(table, word)
    if options.flavour or not TAG.fullmatch(word) or (tagged is None and place is None):
        raise MatrixError(
            f"{printable(word, 60)} is no cell" + ("" if options.flavour else " and no tag"), fix=f"nearest: {', '.join(matrix.nearest(table, word))}"
        )
    cell, flavour = tagged or (None, "")
    return WantedImage(repository=table.name, tag=word, platform=platform, place=place, cell=cell.on(platform) if cell else None, flavour=flavour)


def _tagged(table: Matrix, tag: str) -> tuple[Cell, str] | None:
    """Return the cell and the flavour whose image has a tag; ``None`` where the tag is none of the matrix."""
    images = itertools.product(table.cells, table.flavours)
    of_flavours = ((cell, flavour) for cell, flavour in images if tag in {f"{name}-{flavour}" for name in cell.names})
    of_torches = ((cell, table.all_in_one) for cell in table.cells if cell.named and cell.is_default_os and tag == cell.all_in_one)
    return next(itertools.chain(of_flavours, of_torches), None)


def usual(table: Matrix, platform: str, *, gpu: bool) -> Cell:
    """Return the newest cell for a machine with a GPU, or without; of all where there is none."""
    newest = sorted(matrix.select_on(table, platform), key=lambda cell: (cell.named, cell.is_default_os, cell.release), reverse=True)
    return next((cell for cell in newest if bool(cell.facts.cuda_version) == gpu), newest[0])


def here(engine: Engine, name: str, platform: str) -> FoundImage | None:
    """Return an image of the engine, ``None`` if it has none of that name for a platform."""
    with running.refusals():
        try:
            inspected = engine.client.images.get(name).attrs
        except docker.errors.ImageNotFound:
            return None
    if inspected["Architecture"] not in {"", platforms.architecture(platform)}:
        return None
    repository = name.rpartition(":")[0]
    digest = next((known.rpartition("@")[2] for known in inspected.get("RepoDigests") or () if known.startswith(f"{repository}@")), None)
    config, identity = inspected["Config"], str(inspected["Id"])
    ports = oci.tcp_ports(config.get("ExposedPorts") or ())
    declared = declared_services.in_engine(engine, identity) if ports else {}
    return FoundImage.of(name, identity, config.get("Labels") or {}, description.endpoints(ports, declared), platform, digest=digest)


def in_registry(want: WantedImage) -> FoundImage | None:
    """Return the image as the registry has it; ``None`` if no registry is known, or it has none of that name.

    :raises PlatformError: it has it for other platforms only.
    :raises RegistryError: it does not answer.
    """
    if want.place is None or want.remote is None:
        return None
    repository = want.place.repository(want.repository)
    with Registry(want.place.host, scheme=want.place.scheme, patience=Patience.attended()) as registry:
        tagged = registry.find(repository, want.tag)
        if tagged is None:
            return None
        children = registry.manifest(repository, tagged.digest).document().children
        listed = {child.platform.name: child.digest for child in children if child.platform} or {want.platform: tagged.digest}
        digest = listed.get(want.platform, next(iter(listed.values())))
        config = registry.image_config(repository, digest)
        if want.platform not in listed or config.architecture not in {"", platforms.architecture(want.platform)}:
            raise PlatformError(f"{want.remote} is not there for {want.platform}", fix="name another platform, --platform OS/ARCHITECTURE, or another image")
        declared = declared_services.in_registry(registry, repository, registry.manifest(repository, digest).document().layers or ()) if config.ports else {}
    return FoundImage.of(want.remote, digest, config.labels, description.endpoints(config.ports, declared), want.platform, digest=digest)


def obtained(engine: Engine, want: WantedImage, reporter: Reporter, options: UpOptions) -> FoundImage | None:
    """Return the image, pulled if it is not here; ``None`` where only a build could make it."""
    image = present(engine, want)
    if want.remote and (image is None or options.pull):
        with reporter.step("pull", want.remote) as step:
            pulled = pulling.pull(engine.client, want.remote, want.platform, step)
        return here(engine, want.remote, want.platform) if pulled else image
    return image


def present(engine: Engine, want: WantedImage) -> FoundImage | None:
    """Return the image, under whichever of its names the engine has it."""
    return next(filter(None, (here(engine, name, want.platform) for name in (*want.names, *want.others))), None)


def built(engine: Engine, want: WantedImage, options: UpOptions) -> FoundImage:
    """Build an image, if it can be built and somebody wants that.

    :raises NoImageError: it is nowhere, and is not built.
    """
    nowhere = f"{want.local} is not in this engine" + (f", and {want.remote} is not in the registry" if want.remote else ", and no registry is known")
    if want.cell is None:
        raise NoImageError(nowhere, fix="name a cell of the matrix: inv plan shows them")
    if not (options.yes or _agrees(f"{nowhere}. Build it here ({want.build})?")):
        raise NoImageError(nowhere, fix=f"build it: {want.build}, or inv up --yes; or name a registry that has it: --registry HOST[/PATH]")
    build.build(want.cell.id, BuildOptions(flavour=(want.flavour,), platform=want.platform, registry=options.registry))
    image = here(engine, want.local, want.platform)
    if image is None:
        raise NoImageError(f"the build has not made {want.local}", fix=f"see what it makes: inv plan {want.cell.names[0]}")
    return image


def _agrees(question: str) -> bool:
    """Return whether a person at a terminal says yes; the end of input is a no."""
    try:
        return sys.stdin.isatty() and sys.stdout.isatty() and Confirm.ask(question, default=False)
    except EOFError:
        sys.stdout.write("\n")
        return False
