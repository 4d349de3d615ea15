"""The shapes of ``matrix.yaml`` and of ``images/*/flavour.yaml``, from which their JSON schemas are generated."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

SCHEMA: Final = Path(__file__).parents[2] / "matrix.schema.json"
FLAVOUR_SCHEMA: Final = SCHEMA.with_name("flavour.schema.json")

Platform = Annotated[str, msgspec.Meta(pattern=r"^linux/(amd64|arm64)$", description="As OCI names it.", examples=["linux/arm64"])]
Minor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$", description="Major and minor version, quoted.", examples=["2.8"])]
Variant = Annotated[str, msgspec.Meta(pattern=r"^(cpu|cu[0-9]{3})$", description="CUDA of a build, without the dot, or cpu.", examples=["cu128", "cpu"])]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9.-]*$", max_length=64)]
Compiler = Annotated[str, msgspec.Meta(pattern=r"^g\+\+-[0-9]+$", examples=["g++-14"])]
Companion = Annotated[
    str, msgspec.Meta(pattern=r"^(torchvision|torchaudio)(==[0-9.]+)?$", description="A package that follows torch; its version comes from the facts.")
]
Size = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})? (MB|GB)$", description="Compressed, in powers of ten.", examples=["3.92 GB"])]
Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
Image = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=512)]
Package = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$", max_length=128, examples=["libgl1"])]
Pinned = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$", max_length=512)]
Duration = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4} (h|d)$", description="Hours or days.", examples=["24 h", "7 d"])]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
FlavourName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=32, examples=["jupyter"])]
ServiceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=16, examples=["jupyter"])]
Module = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=32, description="Name of a Python module.")]
Variable = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=64, examples=["JUPYTER_PORT"])]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535, description="TCP.")]
Weighed = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{1,4}\.[0-9]{1,4}-(cpu|cu[0-9]{3})(-arm64)?$",
        description="A cell, on whatever OS, and its architecture where that is not amd64.",
        examples=["2.8-cu121", "2.15-cu132-arm64"],
    ),
]
UrlPath = Annotated[str, msgspec.Meta(pattern=r"^/[!-~]{0,255}$", examples=["/api"])]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Template = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=256,
        description="A tag. {torch}, {cuda}, {os} and {flavour} stand for every one; what is left out is the default one.",
        examples=["{torch}-{cuda}-{flavour}", "latest"],
    ),
]


class Raw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of a file that people write: unknown keys are refused."""


class SystemSettings(Raw, frozen=True, kw_only=True):
    """An operating system: its Python, glibc and compilers, and where its files come from."""

    distribution: Literal["debian", "ubuntu"]
    release: Annotated[str, msgspec.Meta(pattern=r"^[0-9][0-9.]{0,15}$", description='Quoted, such as "13" or "24.04".')]
    suite: Name
    python: Minor
    glibc: Minor
    compilers: Annotated[tuple[Compiler, ...], msgspec.Meta(min_length=1, description="Best first.")]
    bootstrap: Literal["mmdebstrap"] | None = None
    image: Annotated[Image | None, msgspec.Meta(description="Name and tag in a registry; its digest is in the OS lock.")] = None
    lacks: Annotated[tuple[Package, ...], msgspec.Meta(description="Packages of images/*/Dockerfile that it does not have, and does without.")] = ()
    verified: Annotated[bool, msgspec.Meta(description="Somebody has built and run images on it.")]


class Row(Raw, frozen=True, kw_only=True):
    """A torch, the CUDA of its wheels, and the OSes it is offered on."""

    torch: Minor
    cuda: Variant
    os: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, description="The first is the default.")]
    platforms: Annotated[tuple[Platform, ...], msgspec.Meta(min_length=1, description="What its images are for; the first is linux/amd64.")] = ("linux/amd64",)
    serves: Annotated[Variant | None, msgspec.Meta(description="CUDA of the hosts it is offered for, if not the wheels' own.")] = None
    default: Annotated[bool, msgspec.Meta(description="The row that v<torch> names.")] = False
    companions: Annotated[tuple[Companion, ...] | None, msgspec.Meta(description="Instead of torchvision and torchaudio.")] = None

    @property
    def short(self) -> str:
        """The id of the row's cell on its default OS."""
        return f"{self.torch}-{self.serves or self.cuda}"


class Group(Raw, frozen=True, kw_only=True):
    """A layer of CUDA wheels."""

    title: Text
    wheels: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, description="Globs on wheel names.")]


class Strata(Raw, frozen=True, kw_only=True):
    """How wheels become layers."""

    own_layer_over: Annotated[int, msgspec.Meta(gt=0, le=1_000_000_000_000, description="Bytes of a wheel that gets a layer of its own.")]
    cuda_groups: Annotated[tuple[Group, ...], msgspec.Meta(min_length=1, description="Bottom to top; the first glob decides.")]


class ChannelSettings(Raw, frozen=True, kw_only=True):
    """Tags that move together, and when they may."""

    tags: Annotated[tuple[Template, ...], msgspec.Meta(min_length=1)]
    source: Annotated[Name | None, msgspec.Meta(description="The channel that images come from; the one channel without it takes new images.")] = msgspec.field(
        default=None, name="from"
    )
    soak: Annotated[Duration | None, msgspec.Meta(description="How long images stay in that channel before they may move here.")] = None
    max_age: Annotated[
        Duration, msgspec.Meta(description="`inv watchdog` fails if the channel was looked after, or caught up with the one it comes from, longer ago.")
    ]
    keep: Annotated[Count | None, msgspec.Meta(description="Sets of images of a cell that `inv registry.prune` leaves, the present one included.")] = None
    keep_for: Annotated[Duration | None, msgspec.Meta(description="And it leaves those that were replaced less long ago.")] = None


class MatrixFile(Raw, frozen=True, kw_only=True):
    """matrix.yaml: the only list of what exists."""

    name: Name
    systems: Annotated[dict[Name, SystemSettings], msgspec.Meta(min_length=1)]
    all_in_one: Annotated[FlavourName, msgspec.Meta(description="The flavour that v<torch> has the layers of.", examples=["ssh"])]
    rows: Annotated[tuple[Row, ...], msgspec.Meta(min_length=1)]
    strata: Strata
    channels: Annotated[dict[Name, ChannelSettings], msgspec.Meta(description="Where published images go.")] = {}
    bootstrap_image: Annotated[Pinned | None, msgspec.Meta(description="Image of Debian in which mmdebstrap runs where it can run no other way.")] = None
    pinned: Annotated[tuple[Digest, ...], msgspec.Meta(description="Digests of images that `inv registry.prune` never removes.")] = ()
    registry: Annotated[
        Text | None, msgspec.Meta(description="HOST[:PORT][/PATH] of the team's registry, where TORCHSTRATA_REGISTRY and --registry name no other.")
    ] = None


class HealthSettings(Raw, frozen=True, kw_only=True):
    """How the health check learns that a service is up: one of the four."""

    http: Annotated[UrlPath | None, msgspec.Meta(description="What answers 200.")] = None
    https: Annotated[UrlPath | None, msgspec.Meta(description="The same over TLS, whoever has signed the certificate.")] = None
    banner: Annotated[Text | None, msgspec.Meta(description="What it says first on every connection.", examples=["SSH-2.0-"])] = None
    tcp: Annotated[bool, msgspec.Meta(description="It takes connections.")] = False


class ServiceSettings(Raw, frozen=True, kw_only=True):
    """A program that containers of a flavour run where nobody asks for a command.

    :param command: its words; ``{port}`` and ``{state}`` (a private directory) are filled in. A module may make it instead.
    :param port: where it listens, unless the variable says otherwise.
    """

    command: Annotated[tuple[Word, ...], msgspec.Meta(description="Words; {port} and {state}, a private directory, are filled in.")] = ()
    port: Port
    port_variable: Annotated[Variable | None, msgspec.Meta(description="Variable that names another port; <NAME>_PORT if it is left out.")] = None
    health: HealthSettings
    starts: Annotated[Literal["always", "asked"], msgspec.Meta(description="asked: only where TORCHSTRATA_SERVICES names it.")] = "always"
    ready: Annotated[Text | None, msgspec.Meta(description="What the log says when it first answers; {url} and {port} are filled in.")] = None
    secrets: Annotated[tuple[Variable, ...], msgspec.Meta(description="Variables, also with _FILE, that no child and no log may show.")] = ()
    variables: Annotated[tuple[Variable, ...], msgspec.Meta(description="Variables that its module checks at every start that gives one of them.")] = ()
    quiet: Annotated[tuple[Text, ...], msgspec.Meta(description="Lines of its output with these words help nobody.")] = ()
    module: Annotated[
        Module | None, msgspec.Meta(description="/usr/local/lib/torchstrata/services/<module>.py of the flavour's rootfs, for what data cannot say.")
    ] = None


class FlavourFile(Raw, frozen=True, kw_only=True):
    """images/<flavour>/flavour.yaml: what a flavour of images is."""

    parent: Annotated[FlavourName | None, msgspec.Meta(description="The flavour that it contains; only base has none.")] = None
    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="What it contains, for README's table, in Markdown.")]
    command: Annotated[tuple[Word, ...] | None, msgspec.Meta(description="What runs if nothing is asked: its services, else bash, if left out.")] = None
    sizes: Annotated[dict[Weighed, Size], msgspec.Meta(description="What its image may weigh, by cell; a test fails above 5 % more.")] = {}
    services: Annotated[dict[Text, ServiceSettings], msgspec.Meta(description="What it runs, beside what its parents do, by name.")] = {}


def generate(shape: type[Raw] = MatrixFile) -> str:
    """Return the JSON schema of ``matrix.yaml``, or of another file, as it is committed."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_described(msgspec.json.schema(shape))}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _described(part: Any) -> Any:
    """Return a part of a schema whose descriptions are as Python 3.13 keeps docstrings: others keep their indentation."""
    if isinstance(part, list):
        return [_described(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _described(value) for key, value in part.items()}


if __name__ == "__main__":
    SCHEMA.write_text(generate())
    FLAVOUR_SCHEMA.write_text(generate(FlavourFile))
