"""Compatibility facts: what upstream published, and which driver, Python, glibc and compiler each build needs.

The facts lie in ``facts/compat.json`` with their date and sources; nothing here adds to them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Final

import msgspec

from torchstrata import checkout, decoding, files
from torchstrata.errors import MatrixError
from torchstrata.platforms import PLATFORM

INSTALLED: Final = Path(__file__).parent / "facts" / "compat.json"
FACTS: Final = checkout.ROOT / "torchstrata" / "matrix" / "facts" / "compat.json"
"""Those of the checkout, whose rows they are about, wherever this package is installed."""

LIMIT: Final = 16 << 20
"""Bytes of them."""

CPU: Final = "cpu"

Minor = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,4}\.[0-9]{1,4}\Z")]
Dotted = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,6}(\.[0-9]{1,6}){0,4}\Z")]
Variant = Annotated[str, msgspec.Meta(pattern=r"\A(cpu|cu[0-9]{3})\Z")]
Python = Annotated[str, msgspec.Meta(pattern=r"\A3\.[0-9]{1,3}t?\Z")]
Capability = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,2}\.[0-9]\Z")]


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CUDA major family: the unit of NVIDIA's minor-version compatibility."""

    driver_floor: Dotted
    """Oldest Linux driver that runs any CUDA of the family."""
    require_cuda: str
    """Value of ``NVIDIA_REQUIRE_CUDA`` that asks for the floor and no more."""
    toolchain: Minor | None
    """CUDA version of the compiler that comes as a toolchain; ``None`` where wheels bring it."""
    toolchain_lock: str | None
    """Lock below ``locks/toolchain`` of what ``devel`` has besides wheels of the cell, such as ``cuda-13``."""


class Cuda(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CUDA toolkit release."""

    driver: str | None
    """Linux driver that the toolkit itself came with."""
    max_gcc: int
    """Newest g++ major that its nvcc accepts."""
    max_clang: int | None
    nvcc_targets: tuple[str, ...] | None
    """Compute capabilities its nvcc compiles for; ``None`` where nobody has looked."""
    nvcc_wheels: Mapping[str, tuple[str, ...]]
    """Requirements that bring nvcc, per version of the ``cuda-toolkit`` package that torch pins."""


class PlatformBuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs in the wheels of a torch build for another platform than linux/amd64."""

    architectures: tuple[Capability, ...]
    """Compute capabilities with machine code in the wheel, such as ``9.0``."""
    ptx: tuple[Capability, ...]
    architectures_source: str


class TorchBuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wheels of one torch release for one CUDA."""

    cuda: Minor | None
    """Such as ``12.8``; ``None`` for CPU wheels."""
    default: bool
    """The package index carries it; the others are only on PyTorch's own index."""
    architectures: tuple[Capability, ...]
    """Compute capabilities with machine code in the wheel, such as ``9.0``."""
    ptx: tuple[Capability, ...] | None
    architectures_source: str | None
    cudnn: str | None
    nccl: str | None
    pythons: tuple[Python, ...] | None
    elsewhere: Mapping[str, PlatformBuild] = {}
    """Wheels for other platforms, such as ``linux/arm64``: those that somebody has seen, with all that a row needs."""


class TorchRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A torch minor release, by its last patch."""

    version: Dotted
    released: str
    git: str
    pythons: tuple[Python, ...]
    glibc: Minor
    triton: str | None
    torchvision: Dotted
    torchaudio: Dotted | None
    """The version that works with this torch; ``None`` where none is known to, see ``torchaudio_note``."""
    torchaudio_builds: tuple[str, ...] | None
    """Builds with which it does; ``None``: with all."""
    torchaudio_note: str | None
    cuda_toolkit: str | None
    """Version of the ``cuda-toolkit`` package that the default build pins; ``None`` before torch 2.11."""
    builds: Annotated[Mapping[Variant, TorchBuild], msgspec.Meta(min_length=1)]
    unknown_builds: tuple[str, ...]
    """Builds that upstream may have published, and that nobody has seen."""
    torchaudio_needs: tuple[str, ...] = ()
    """Packages by which that torchaudio loads and saves files, which its wheel does not name: soundfile up to 2.8.
    Later ones take torchcodec alone, which takes FFmpeg from the OS."""
    read: str | None = None
    """The day on which ``inv add-torch`` read all this from indexes; ``None`` where people have established it."""


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PyTorch's own indexes, one for each CUDA and one for CPU wheels."""

    packages: tuple[str, ...]
    """What may come from there; anything else that they have is not looked at."""
    indexes: Mapping[Variant, str]
    """Addresses (PEP 503), by variant, such as ``cu126``."""


class Compat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All the facts, as of a day."""

    asof: str
    notes: tuple[str, ...]
    sources: Mapping[str, str]
    rules: Mapping[str, str]
    families: Mapping[str, Family]
    cuda: Mapping[Minor, Cuda]
    torch: Mapping[Minor, TorchRelease]
    upstream: Upstream
    first_cuda: Mapping[str, str]
    """The first CUDA that knows a GPU generation, by compute capability, for those that not every driver knows."""


class Nvcc(msgspec.Struct, frozen=True, kw_only=True):
    """The CUDA compiler that a cell's ``devel`` brings."""

    cuda: str
    """Such as ``12.4``: same major as torch's CUDA, since ``torch.utils.cpp_extension`` refuses another."""
    toolchain: str | None
    """Such as ``cuda-12.4``; ``None`` where the compiler comes as wheels."""
    lock: str | None
    """Lock below ``locks/toolchain`` of what no wheel of the cell brings, such as ``cuda-13``."""
    requirements: tuple[str, ...]
    """Pins of the wheels that bring it; empty where a toolchain does."""
    architectures: tuple[str, ...]
    """Compute capabilities it compiles for."""
    max_gcc: int


class CellFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the facts say about one torch build and the CUDA that was asked for."""

    cuda_version: str | None
    """torch's own CUDA, such as ``12.8``; ``None`` for CPU."""
    asked_cuda: str | None
    """The CUDA of the cell's id, such as ``12.1``."""
    driver_floor: str | None
    require_cuda: str | None
    architectures: tuple[str, ...]
    cudnn: str | None
    nccl: str | None
    nvcc: Nvcc | None
    missing_architectures: tuple[str, ...]
    """Architectures of the wheel that its nvcc cannot compile for."""
    released: str
    git: str


_supposed: ContextVar[Compat | None] = ContextVar("supposed", default=None)


def facts() -> Compat:
    """Return the recorded facts, or those that :func:`supposing` gives this thread."""
    return _supposed.get() or _recorded()


@functools.cache
def _recorded() -> Compat:
    try:
        return of(files.read(FACTS if os.path.isfile(FACTS) else INSTALLED, LIMIT))  # noqa: PTH113  # false also for names that cannot be
    except files.UnreadableError as error:
        raise MatrixError(error.what, fix=f"run: git checkout HEAD -- {FACTS.relative_to(checkout.ROOT)}") from error


def of(content: bytes) -> Compat:
    """Return the facts in a file.

    :raises MatrixError: it has none, since somebody has edited it into something else, or they do not fit together.
    """
    try:
        read = decoding.decode(content, Compat)
    except msgspec.DecodeError as error:
        place = re.search(r"\(byte ([0-9]+)\)", str(error))
        line = content[: int(place[1])].count(b"\n") + 1 if place else 0
        what = f"{FACTS.name} is not what it must be: {error}{f', in line {line}' if line else ''}"
        raise MatrixError(what, fix="correct it there: its other entries show how, and docs/adding.md says what they mean") from error
    _check(read)
    return read


def _check(read: Compat) -> None:
    """Refuse facts that name others which are not there."""
    for number, family in read.families.items():
        if family.toolchain and family.toolchain not in read.cuda:
            raise MatrixError(
                f"{FACTS.name}: the compiler of CUDA {number} is that of {family.toolchain}, of which the facts know nothing", fix=_lacking("cuda")
            )
    for minor, release in read.torch.items():
        if not f"{release.version}.".startswith(f"{minor}."):
            raise MatrixError(f"{FACTS.name}: {release.version} is no release of torch {minor}", fix="correct its version there")
        for variant, build in release.builds.items():
            _check_build(read, f"torch {minor}", variant, build)


def _check_build(read: Compat, torch: str, variant: str, build: TorchBuild) -> None:
    if build.cuda and build.cuda not in read.cuda:
        raise MatrixError(f"{torch} is built for CUDA {build.cuda}, of which the facts know nothing", fix=_lacking("cuda"))
    if build.cuda and major(build.cuda) not in read.families:
        raise MatrixError(f"{torch} is built for CUDA {build.cuda}, of whose major version the facts know nothing", fix=_lacking("families"))
    if not build.default and variant not in read.upstream.indexes:
        raise MatrixError(f"{torch} has a build for {variant}, whose index the facts do not name", fix=_lacking("upstream"))


def _lacking(section: str) -> str:
    return f"add it to `{section}` in {FACTS.relative_to(checkout.ROOT)} (docs/adding.md)"


@contextlib.contextmanager
def supposing(other: Compat) -> Iterator[None]:
    """Take other facts for true in the block, in this thread."""
    token = _supposed.set(other)
    try:
        yield
    finally:
        _supposed.reset(token)


def torch(minor: str) -> TorchRelease:
    """Return what is known of torch ``minor``, such as ``2.8``.

    :raises MatrixError: nothing is; names the releases that are known.
    """
    known = facts().torch
    if minor not in known:
        raise MatrixError(f"torch {minor} is not a release in the compatibility facts", fix=f"use one of {', '.join(known)}, or run: inv add-torch {minor}")
    return known[minor]


def build(minor: str, variant: str) -> TorchBuild:
    """Return what is known of torch ``minor`` built for ``variant``, such as ``cu128`` or ``cpu``.

    :raises MatrixError: upstream never published it; names the builds that exist and the last torch that had it.
    """
    release = torch(minor)
    if variant not in release.builds:
        able = [name for name in release.builds if _is_known(variant) and serves(name, variant)]
        more = f", or say `serves: {variant}` beside {' or '.join(able)}" if able else ""
        raise MatrixError(why_not(minor, variant), fix=f"use one of {', '.join(release.builds)}{more}")
    return release.builds[variant]


def index(minor: str, variant: str) -> str | None:
    """Return the index that has a build's wheels where the default index has not; ``None`` for those that it has."""
    return None if build(minor, variant).default else facts().upstream.indexes[variant]


def index_of(package: str, version: str) -> str | None:
    """Return PyTorch's own index that a wheel's local version names (``2.8.0+cu126``); ``None`` if none may have it.

    :param package: normalised name.
    """
    upstream = facts().upstream
    return upstream.indexes.get(version.partition("+")[2]) if package in upstream.packages else None


def platforms(minor: str, variant: str) -> tuple[str, ...]:
    """Return the platforms for which a build's wheels are known to exist, the default one first."""
    return (PLATFORM, *build(minor, variant).elsewhere)


def companions(minor: str, variant: str) -> dict[str, str | None]:
    """Return the versions of torchvision and torchaudio that go with a build; ``None`` where there is none."""
    release = torch(minor)
    audible = release.torchaudio_builds is None or variant in release.torchaudio_builds
    return {"torchvision": release.torchvision, "torchaudio": release.torchaudio if audible else None}


def audio(minor: str, companions: Sequence[str]) -> tuple[str, ...]:
    """Return what is installed so that files load and save, where torchaudio is among ``companions`` (pins)."""
    return torch(minor).torchaudio_needs if any(pin.startswith("torchaudio==") for pin in companions) else ()


def why_not(minor: str, variant: str) -> str:
    """Return one line that says why torch ``minor`` has no build for ``variant``."""
    release = torch(minor)
    if variant in release.unknown_builds:
        return f"nobody has established that torch {minor} was published for {variant}"
    last = [other.version for other in facts().torch.values() if variant in other.builds]
    tail = f"; the last torch with {variant} is {last[-1]}" if last else ""
    return f"upstream never published torch {minor} for {variant}{tail}"


def cuda_of(variant: str) -> str | None:
    """Return the CUDA version that ``variant`` names: ``cu121`` is ``12.1``, ``cpu`` is ``None``.

    :raises MatrixError: no such CUDA is in the facts.
    """
    if variant == CPU:
        return None
    version = f"{variant[2:-1]}.{variant[-1:]}"
    if version not in facts().cuda:
        known = ", ".join(f"cu{number.replace('.', '')}" for number in facts().cuda)
        raise MatrixError(f"{variant} is no known CUDA", fix=f"use {CPU} or one of {known}")
    return version


def _is_known(variant: str) -> bool:
    return variant in {f"cu{number.replace('.', '')}" for number in facts().cuda}


def major(version: str) -> str:
    """Return the family of a CUDA version: ``12.8`` is of ``12``."""
    return version.split(".", maxsplit=1)[0]


def serves(wheels: str, asked: str) -> bool:
    """Say whether ``wheels`` run on every host made for ``asked``: the same build, or the same CUDA major.

    Source: NVIDIA CUDA compatibility, minor-version compatibility; the driver floor is the family's.
    """
    have, want = cuda_of(wheels), cuda_of(asked)
    if have is None or want is None:
        return have == want
    return major(have) == major(want)


def cell_facts(minor: str, wheels: str, asked: str, platform: str = PLATFORM) -> CellFacts:
    """Return the facts of torch ``minor`` from the ``wheels`` build, asked for as ``asked``, on a platform.

    :raises MatrixError: upstream never published that build.
    """
    release, of_build = torch(minor), build(minor, wheels)
    own = of_build.elsewhere.get(platform, of_build)
    family = facts().families[major(of_build.cuda)] if of_build.cuda else None
    compiler = nvcc(minor, wheels)
    return CellFacts(
        cuda_version=of_build.cuda,
        asked_cuda=cuda_of(asked),
        driver_floor=family.driver_floor if family else None,
        require_cuda=family.require_cuda if family else None,
        architectures=own.architectures,
        cudnn=of_build.cudnn,
        nccl=of_build.nccl,
        nvcc=compiler,
        missing_architectures=_missing(own.architectures, compiler),
        released=release.released,
        git=release.git,
    )


def nvcc(minor: str, wheels: str) -> Nvcc | None:
    """Return the compiler for torch ``minor`` built for ``wheels``; ``None`` for CPU wheels.

    CUDA 12's is a toolchain, as no wheel has a ``bin/nvcc``; CUDA 13's are wheels, pinned together by the version of
    ``cuda-toolkit`` that torch itself pins, since a mix of releases compiles nothing ("Unsupported .version 9.5").

    :raises MatrixError: no compiler is known.
    """
    version = build(minor, wheels).cuda
    if version is None:
        return None
    family = facts().families[major(version)]
    toolchain = family.toolchain
    toolkit = torch(minor).cuda_toolkit or ""
    requirements = facts().cuda[version].nvcc_wheels.get(toolkit, ())
    if toolchain is None and not requirements:
        raise MatrixError(f"no CUDA {version} compiler is known for torch {minor}", fix=f"add nvcc_wheels for cuda-toolkit {toolkit} to {FACTS.name}")
    compiler = facts().cuda[toolchain or version]
    return Nvcc(
        cuda=toolchain or version,
        toolchain=f"cuda-{toolchain}" if toolchain else None,
        lock=family.toolchain_lock,
        requirements=() if toolchain else requirements,
        architectures=compiler.nvcc_targets or (),
        max_gcc=compiler.max_gcc,
    )


def host_compiler(compilers: Sequence[str], compiler: Nvcc | None) -> str:
    """Return the best of an OS's ``compilers`` (best first, such as ``g++-14``) that ``compiler`` accepts.

    :raises MatrixError: it accepts none of them.
    """
    for name in compilers:
        if compiler is None or int(name.rpartition("-")[2]) <= compiler.max_gcc:
            return name
    assert compiler is not None
    raise MatrixError(
        f"nvcc {compiler.cuda} accepts g++ up to {compiler.max_gcc}, and the OS has {', '.join(compilers)}",
        fix="add an older g++ of that OS to its `compilers`",
    )


def at_least(version: str, floor: str) -> bool:
    """Say whether dotted ``version`` is at least ``floor``."""
    return numbers(version) >= numbers(floor)


def numbers(version: str) -> tuple[int, ...]:
    """Return a dotted version as numbers, to compare: ``2.10`` is newer than ``2.8``."""
    return tuple(map(int, version.split(".")))


def _missing(architectures: Iterable[str], compiler: Nvcc | None) -> tuple[str, ...]:
    if compiler is None or not compiler.architectures:
        return ()
    return tuple(name for name in architectures if name not in compiler.architectures)
