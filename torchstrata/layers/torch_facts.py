"""The facts of a torch release, read from what indexes publish of it; what they do not say is asked, never guessed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from torchstrata import platforms
from torchstrata.errors import IntegrityError, MatrixError
from torchstrata.layers import published
from torchstrata.layers.published import PublishedWheel
from torchstrata.layers.wheel_fetch import Caller
from torchstrata.layers.wheel_file import Wheel
from torchstrata.matrix import compat
from torchstrata.matrix.compat import PlatformBuild, TorchBuild, TorchRelease
from torchstrata.store import core_metadata
from torchstrata.store.layer import PLATFORM
from torchstrata.text import printable

VERSION: Final = ("torch/version.py", 64 << 10)
BINARY: Final = ("torch/lib/libtorch_python.so", 256 << 20)
"""Files of torch's wheel, and bytes that they may have."""

FLAGS: Final = re.compile(rb"(?:(?:sm|compute)_[0-9]{2,3}[af]? )*(?:sm|compute)_[0-9]{2,3}[af]?(?=\0)")
"""The text that ``torch.cuda.get_arch_list()`` splits, as compiled into the binary (``torch/csrc/cuda/Module.cpp``)."""

MEASURED: Final = "measured: arch flags in libtorch_python.so of the package index's wheel"

LINUX: Final = {"platform_system": "Linux", "sys_platform": "linux", "platform_machine": platforms.MACHINES[PLATFORM], "extra": ""}
"""What markers of requirements see (PEP 508)."""

MANYLINUX: Final = re.compile(r"manylinux(?:_2_([0-9]{1,3})|(1|2010|2014))_")
OLDER: Final = {"1": 5, "2010": 12, "2014": 17}
"""Minor version of the glibc 2 that the names before PEP 600 mean: torch had ``manylinux1`` up to 2.6."""

COMPANIONS: Final = 12
"""Releases of a companion, those uploaded next to torch first, that are asked which torch they need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Facts that a person states.

    :param architectures: compute capabilities, such as ``9.0``; empty: read from the wheel.
    :param source: where they stand.
    :param released: day, such as ``2026-10-28``; ``None``: that of the first upload.
    """

    architectures: tuple[str, ...] = ()
    source: str | None = None
    released: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _WheelFacts:
    """What a wheel of torch says of itself."""

    git: str
    cuda: str | None
    requires: Mapping[str, str]
    architectures: tuple[str, ...]
    ptx: tuple[str, ...]

    @property
    def variant(self) -> str:
        """Such as ``cu128``."""
        return f"cu{self.cuda.replace('.', '')}" if self.cuda else compat.CPU

    def pinned(self, pattern: str) -> str | None:
        """Return the version of the requirement that matches a pattern; without the ``==`` of a pin."""
        versions = [asked for name, asked in self.requires.items() if re.fullmatch(pattern, name) and asked]
        return versions[0].removeprefix("==") if versions else None


def look(minor: str, variant: str | None, told: Told) -> TorchRelease:
    """Return what indexes say of the newest patch release of a torch: of the default build, and of another one.

    :param variant: a build, such as ``cu126``; only the default one if ``None``.
    :raises MatrixError: upstream never published it, or something about it must be told.
    :raises FetchError: an index does not answer.
    :raises IntegrityError: an index has a wheel that is not what its name says.
    """
    asks = published.caller()
    files = _newest(minor, [file for file in published.wheels(asks, "torch") if not file.version.local])
    default = _build(asks, files, told)
    elsewhere = _on_other_platforms(asks, files[0].version, default[0].variant)
    builds = {default[0].variant: msgspec.structs.replace(default[1], elsewhere=elsewhere)}
    if variant not in {None, compat.CPU, *builds}:
        builds |= _elsewhere(asks, files[0].version, str(variant), told)
    builds.setdefault(compat.CPU, _cpu())
    return _release(asks, files, default[0], builds, told)


def _on_other_platforms(asks: Caller, version: Version, variant: str) -> dict[str, PlatformBuild]:
    """Return the default index's builds of the same version and CUDA for other platforms; CPU wheels need no facts."""
    builds = {}
    for platform in [name for name in platforms.MACHINES if name != PLATFORM]:
        files = [file for file in published.wheels(asks, "torch", platform=platform) if file.version == version]
        facts = _wheel_facts(asks, files[0], is_measured=True) if files else None
        if facts and facts.cuda and facts.variant == variant:
            builds[platform] = PlatformBuild(architectures=facts.architectures, ptx=facts.ptx, architectures_source=MEASURED)
    return builds


def _release(asks: Caller, files: Sequence[PublishedWheel], facts: _WheelFacts, builds: Mapping[str, TorchBuild], told: Told) -> TorchRelease:
    version = files[0].version
    none = f"on the index pins torch {version}, or allows it and is built for {facts.variant}"
    torchvision, _ = _companion(asks, "torchvision", files, facts.variant)
    if torchvision is None:
        raise MatrixError(f"no torchvision {none}", fix="it comes some days after torch: run it again then")
    torchaudio, is_pinned = _companion(asks, "torchaudio", files, facts.variant)
    return TorchRelease(
        version=str(version),
        released=told.released or _day(files),
        git=facts.git,
        pythons=_pythons(files),
        glibc=_glibc(files),
        triton=facts.pinned("triton|pytorch-triton"),
        torchvision=torchvision,
        torchaudio=torchaudio,
        torchaudio_builds=None if is_pinned or not torchaudio else (facts.variant,),
        torchaudio_note=None if torchaudio else f"no torchaudio {none}; nobody has tried another one",
        cuda_toolkit=facts.pinned("cuda-toolkit"),
        builds=builds,
        unknown_builds=_unknown(builds),
        read=dt.datetime.now(dt.UTC).date().isoformat(),
    )


def _newest(minor: str, files: Sequence[PublishedWheel]) -> list[PublishedWheel]:
    """Return the wheels of the newest patch release; alpha, beta and development releases do not count."""
    final = [file for file in files if not file.version.is_prerelease]
    mine = [file for file in final if f"{file.version.major}.{file.version.minor}" == minor]
    if not mine:
        raise MatrixError(f"no index has wheels of a torch {minor} for Linux", fix=_nearest(minor, final))
    newest_version = max(file.version for file in mine)
    return [file for file in mine if file.version == newest_version]


def _nearest(minor: str, files: Iterable[PublishedWheel]) -> str:
    """Return in words which releases there are: those spelt most alike, and the newest one."""
    versions = sorted({file.version.release[:2] for file in files}, reverse=True)
    minors = [".".join(map(str, version)) for version in versions]
    near = difflib.get_close_matches(minor, minors, n=3, cutoff=0.5)
    return f"nearest: {', '.join(near)}; newest: {minors[0]}" if minors else "point pip to an index that has torch (index-url)"


def _elsewhere(asks: Caller, version: Version, variant: str, told: Told) -> dict[str, TorchBuild]:
    """Return the build of PyTorch's own index."""
    indexes = compat.facts().upstream.indexes
    if variant not in indexes:
        raise MatrixError(f"the facts name no index of builds for {variant}", fix=f"use one of {', '.join(indexes)}, or add it to `upstream`")
    files = [file for file in published.wheels(asks, "torch", indexes[variant]) if str(file.version) == f"{version}+{variant}"]
    if not files:
        raise MatrixError(f"upstream never published torch {version} for {variant}", fix=f"leave --cuda {variant} out, or see what {indexes[variant]} has")
    facts, build = _build(asks, files, told, default=False)
    if facts.variant != variant:
        raise IntegrityError(f"{printable(files[0].link.redacted)} is for {facts.variant}", fix="ask who keeps that index")
    return {variant: build}


def _build(asks: Caller, files: Sequence[PublishedWheel], told: Told, *, default: bool = True) -> tuple[_WheelFacts, TorchBuild]:
    """Return what one of the wheels of a build says, and the facts of the build that follow."""
    facts = _wheel_facts(asks, files[0], is_measured=not told.architectures)
    if facts.cuda and not (facts.architectures or told.architectures):
        fix = 'name them, and where they stand: --architectures "7.5 8.0" --source "..."'
        raise MatrixError(f"{printable(files[0].link.filename)} does not say in one place for which architectures it was compiled", fix=fix)
    family = compat.major(facts.cuda) if facts.cuda else ""
    return facts, TorchBuild(
        cuda=facts.cuda,
        default=default,
        architectures=told.architectures or facts.architectures,
        ptx=None if told.architectures else facts.ptx,
        architectures_source=told.source if told.architectures else (MEASURED if facts.cuda else None),
        cudnn=facts.pinned(f"nvidia-cudnn-cu{family}"),
        nccl=facts.pinned(f"nvidia-nccl-cu{family}"),
        pythons=_pythons(files),
    )


def _cpu() -> TorchBuild:
    """Return the build without CUDA, which upstream publishes with every release."""
    return TorchBuild(cuda=None, default=False, architectures=(), ptx=(), architectures_source=None, cudnn=None, nccl=None, pythons=None)


def _wheel_facts(asks: Caller, file: PublishedWheel, *, is_measured: bool) -> _WheelFacts:
    with published.opened(asks, file) as wheel:
        text = wheel.content(*VERSION).decode()
        assigned = {name: _assigned(name, text) for name in ("__version__", "cuda", "git_version")}
        cuda = assigned["cuda"] if re.fullmatch(r"[0-9]+\.[0-9]", assigned["cuda"]) else None
        facts = _WheelFacts(git=assigned["git_version"], cuda=cuda, requires=_requires(wheel, file), architectures=(), ptx=())
        versions = {file.version.public, f"{file.version.public}+{facts.variant}"}
        if assigned["__version__"] not in versions or not re.fullmatch(r"[0-9a-f]{40}", facts.git):
            raise ValueError(f"{VERSION[0]} is that of {assigned['__version__'] or 'nothing'}, of commit {facts.git or 'none'}")
        if not cuda or not is_measured:
            return facts
        flags = _flags(wheel)
        return dataclasses.replace(facts, architectures=_capabilities(flags, "sm_"), ptx=_capabilities(flags, "compute_"))


def _assigned(name: str, text: str) -> str:
    """Return the text that a line of Python assigns to a name; empty where there is none."""
    line = re.search(rf"^{name}(?:: [\w\[\]]+)? = '([\w.+]{{1,80}})'$", text, re.MULTILINE)
    return line[1] if line else ""


def _flags(wheel: Wheel) -> list[str]:
    """Return the flags that torch's binary names, if it names them in exactly one place."""
    texts = set(FLAGS.findall(wheel.content(*BINARY)))
    return texts.pop().decode().split() if len(texts) == 1 else []


def _capabilities(flags: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return ``10.0`` for ``sm_100`` and ``sm_100a``, of all flags of a kind."""
    numbers = (re.sub(r"\D", "", flag) for flag in flags if flag.startswith(kind))
    return tuple(f"{number[:-1]}.{number[-1]}" for number in numbers)


def _requires(wheel: Wheel, torch: PublishedWheel) -> dict[str, str]:
    """Return what a wheel needs on Linux beside a wheel of torch, without its extras, by name."""
    lines = core_metadata.parse(wheel.read_dist_info("METADATA")).get("requires_dist", [])
    here = {**LINUX, "python_version": _pythons([torch])[-1].rstrip("t")}
    try:
        requirements = [Requirement(line) for line in lines]
    except InvalidRequirement as error:
        raise ValueError(f"its METADATA has a requirement that is none: {error}") from error
    needed = [requirement for requirement in requirements if requirement.marker is None or requirement.marker.evaluate(here)]
    return {requirement.name.lower(): str(requirement.specifier) for requirement in needed}


def _companion(asks: Caller, project: str, files: Sequence[PublishedWheel], variant: str) -> tuple[str | None, bool]:
    """Return the release of a companion that pins this torch, else the nearest one that allows it; and whether it pins it.

    Those uploaded at the same time are asked first. A range on torch says nothing of the CUDA, so the wheel must say the same one.
    """
    able: str | None = None
    for release in _by_upload(asks, project, files)[:COMPANIONS]:
        with published.opened(asks, release) as wheel:
            asked = SpecifierSet(_requires(wheel, files[0]).get("torch", ""))
            if not asked or not asked.contains(files[0].version):
                continue
            if _is_pin(asked):
                return str(release.version), True
            able = able or (str(release.version) if _variant(wheel, project) == variant else None)
    return able, False


def _by_upload(asks: Caller, project: str, files: Sequence[PublishedWheel]) -> list[PublishedWheel]:
    """Return a wheel of each final release of a project, those uploaded at the same time as torch first, newer ones before older ones."""
    released: dict[Version, PublishedWheel] = {}
    for release in published.wheels(asks, project):
        is_final = not release.version.is_prerelease and not release.version.local
        if is_final and (release.version not in released or release.tags & files[0].tags):
            released[release.version] = release
    newest_first = [released[version] for version in sorted(released, reverse=True)]
    return sorted(newest_first, key=lambda wheel: _apart(wheel, files[0]))


def _is_pin(asked: SpecifierSet) -> bool:
    """Return whether a requirement means one version and no other."""
    return any(clause.operator == "==" and not clause.version.endswith("*") for clause in asked)


def _variant(wheel: Wheel, project: str) -> str:
    """Return the CUDA for which a companion was built, such as ``cu132``, as its ``version.py`` says it; empty where it does not."""
    where = f"{project}/version.py"
    text = wheel.content(where, VERSION[1]).decode() if wheel.has(where) else ""
    return _assigned("__version__", text).partition("+")[2]


def _apart(one: PublishedWheel, other: PublishedWheel) -> float:
    """Return seconds between two uploads; the same for all where an index does not tell."""
    if one.uploaded is None or other.uploaded is None:
        return 0.0
    return abs((_moment(one.uploaded) - _moment(other.uploaded)).total_seconds())


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise IntegrityError(f"the index tells a time of upload that is none: {printable(text, 60)}", fix="ask who keeps that index") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _day(files: Sequence[PublishedWheel]) -> str:
    times = [_moment(file.uploaded) for file in files if file.uploaded]
    if not times:
        raise MatrixError(f"the index does not tell when torch {files[0].version} was uploaded", fix="say the day of its release: --released 2026-10-28")
    return min(times).astimezone(dt.UTC).date().isoformat()


def _pythons(files: Iterable[PublishedWheel]) -> tuple[str, ...]:
    """Return the Pythons that wheels are for, such as ``3.13`` and ``3.13t``, which has no global lock."""
    abis = {tag.abi for tag in itertools.chain.from_iterable(file.tags for file in files)}
    minors = {(int(match[1]), match[2]) for abi in abis if (match := re.fullmatch(r"cp3([0-9]{1,3})(t?)", abi))}
    if not minors:
        raise MatrixError("no wheel of torch on the index is for a Python of its own", fix="see what pip's index-url has")
    return tuple(f"3.{minor}{free}" for minor, free in sorted(minors))


def _glibc(files: Iterable[PublishedWheel]) -> str:
    """Return the oldest glibc that all wheels accept (PEP 600)."""
    named = [[_minor(match) for tag in file.tags if (match := MANYLINUX.match(tag.platform))] for file in files]
    floors = [min(minors) for minors in named if minors]
    if not floors:
        raise MatrixError("no wheel of torch on the index names a glibc", fix="see what pip's index-url has")
    return f"2.{max(floors)}"


def _minor(match: re.Match[str]) -> int:
    """Return the minor version of the glibc 2 that the tag of a platform names."""
    return int(match[1]) if match[1] else OLDER[match[2]]


def _unknown(builds: Mapping[str, TorchBuild]) -> tuple[str, ...]:
    """Return the builds that the newest torch in the facts has or may have, and that nobody has looked for."""
    newest = [*compat.facts().torch.values()][-1]
    return tuple(sorted({*newest.builds, *newest.unknown_builds} - {*builds}))
