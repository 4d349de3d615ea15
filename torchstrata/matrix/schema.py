"""The shape of ``matrix.yaml``, from which its JSON schema is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

SCHEMA: Final = Path(__file__).parents[2] / "matrix.schema.json"

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
    """A mapping of ``matrix.yaml``: unknown keys are refused."""


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


class FlavourSettings(Raw, frozen=True, kw_only=True):
    """A flavour of images; it contains its parent."""

    parent: Name | None = None


class Row(Raw, frozen=True, kw_only=True):
    """A torch, the CUDA of its wheels, and the OSes it is offered on."""

    torch: Minor
    cuda: Variant
    os: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, description="The first is the default.")]
    platforms: Annotated[tuple[Platform, ...], msgspec.Meta(min_length=1, description="What its images are for; the first is linux/amd64.")] = ("linux/amd64",)
    serves: Annotated[Variant | None, msgspec.Meta(description="CUDA of the hosts it is offered for, if not the wheels' own.")] = None
    default: Annotated[bool, msgspec.Meta(description="The row that v<torch> names.")] = False
    companions: Annotated[tuple[Companion, ...] | None, msgspec.Meta(description="Instead of torchvision and torchaudio.")] = None
    sizes: Annotated[dict[Name, Size], msgspec.Meta(description="What the image of each flavour may weigh; a test fails above 5 % more.")] = {}

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
    flavours: Annotated[dict[Name, FlavourSettings], msgspec.Meta(min_length=1)]
    rows: Annotated[tuple[Row, ...], msgspec.Meta(min_length=1)]
    strata: Strata
    channels: Annotated[dict[Name, ChannelSettings], msgspec.Meta(description="Where published images go.")] = {}
    bootstrap_image: Annotated[Pinned | None, msgspec.Meta(description="Image of Debian in which mmdebstrap runs where it can run no other way.")] = None
    pinned: Annotated[tuple[Digest, ...], msgspec.Meta(description="Digests of images that `inv registry.prune` never removes.")] = ()
    registry: Annotated[
        Text | None, msgspec.Meta(description="HOST[:PORT][/PATH] of the team's registry, where TORCHSTRATA_REGISTRY and --registry name no other.")
    ] = None


def generate() -> str:
    """Return the JSON schema of ``matrix.yaml``, as it is committed."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(MatrixFile)}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(generate())
