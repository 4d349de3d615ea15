"""The lock of a toolchain (:mod:`.toolchain`): ``locks/toolchain/<name>.lock``, made from the ``.in`` file beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from torchstrata import decoding, files, platforms, process
from torchstrata.errors import LockError
from torchstrata.layers import deb
from torchstrata.locks import lockfile, resolver
from torchstrata.locks.lockfile import Pin
from torchstrata.matrix.matrix import ROOT
from torchstrata.progress import ignore
from torchstrata.store import store
from torchstrata.store.codec import Codec
from torchstrata.store.digest import file_name
from torchstrata.store.layer import PLATFORM
from torchstrata.store.sink import HashingReader
from torchstrata.text import printable

FORMAT: Final = 6
"""Raise it when the bytes of a toolchain change for the same lock."""

FOLDER: Final = "locks/toolchain"
DEBIAN: Final = "deb "
"""How a line of an ``.in`` file begins that names a Debian package: suite, component, name."""

Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.+-]*\Z", max_length=128)]
"""Suite, component or name of a package (Debian Policy 5.6.1): a file name, and no option."""

PYTHON: Final = "3.13"
"""For the resolver; the wheels fit any."""

PROGRAMS: Final[Mapping[str, str]] = {
    "usr/bin/__nvcc_device_query": "nvvm/bin/__nvcc_device_query",
    "usr/bin/bin2c": "bin/bin2c",
    "usr/bin/cu++filt": "bin/cu++filt",
    "usr/bin/cudafe++": "bin/cudafe++",
    "usr/bin/cuobjdump": "bin/cuobjdump",
    "usr/bin/fatbinary": "bin/fatbinary",
    "usr/bin/nvlink": "bin/nvlink",
    "usr/bin/nvprune": "bin/nvprune",
    "usr/bin/ptxas": "bin/ptxas",
    "usr/lib/nvidia-cuda-toolkit/bin/cicc": "nvvm/bin/cicc",
    "usr/lib/nvidia-cuda-toolkit/bin/crt/link.stub": "bin/crt/link.stub",
    "usr/lib/nvidia-cuda-toolkit/bin/crt/prelink.stub": "bin/crt/prelink.stub",
    "usr/lib/nvidia-cuda-toolkit/bin/nvcc": "bin/nvcc",
    "usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc": "nvvm/libdevice/libdevice.10.bc",
    "usr/share/doc/nvidia-cuda-toolkit/copyright": "LICENSE",
}
STATIC_LIBRARIES: Final[Mapping[str, str]] = {
    "usr/lib/x86_64-linux-gnu/libcudadevrt.a": "lib64/libcudadevrt.a",
    "usr/lib/x86_64-linux-gnu/libcudart_static.a": "lib64/libcudart_static.a",
}
PLACES: Final[Mapping[str, Mapping[str, str]]] = {"nvidia-cuda-toolkit": PROGRAMS, "nvidia-cuda-dev": STATIC_LIBRARIES}
"""What is taken of each Debian package, and where it goes; no debuggers, profilers, static mathematics (2.4 GB)."""

CUDA: Final = "/opt/cuda/nvidia"


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianPackage:
    """A Debian package, which apt finds in ``suite`` and ``component``; ``sha256`` in hex, ``size`` in bytes."""

    suite: Word
    component: Word
    name: Word
    version: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.+:~-]*\Z")]
    filename: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][A-Za-z0-9.+%~_-]*\.deb\Z")]
    sha256: Annotated[str, msgspec.Meta(pattern=rf"\A{lockfile.HASH}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0, lt=10**15)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """A lock below ``locks/toolchain``.

    :param name: such as ``cuda-12.4``.
    :param requires: what the lock was made from: the lines of its ``.in`` file.
    :param packages: where the compiler comes from; none where it comes as wheels.
    """

    name: str
    requires: tuple[str, ...]
    packages: tuple[DebianPackage, ...]
    pins: tuple[Pin, ...]
    platform: str = PLATFORM

    @property
    def title(self) -> str:
        """A few words for people and the history of images."""
        versions = ", ".join(f"{package.name} {package.version}" for package in self.packages)
        return f"{self.name} compiler ({versions})" if versions else f"{self.name} links and stubs"

    @property
    def major(self) -> str:
        """The CUDA family, such as ``12``."""
        return self.name.removeprefix("cuda-").partition(".")[0]

    @property
    def home(self) -> str:
        """``CUDA_HOME``, without the leading slash."""
        return f"opt/{self.name}" if self.packages else f"{CUDA[1:]}/cu{self.major}"

    @property
    def libraries(self) -> str:
        """The directory of libraries below :attr:`home`, to which ``lib64`` is a link in CUDA 13's wheels."""
        return f"{self.home}/{'lib64' if self.packages else 'lib'}"

    def identity(self, codec: Codec) -> str:
        """Return the identity of its part."""
        return store.identity(
            toolchain=FORMAT,
            platform=self.platform,
            name=self.name,
            title=self.title,
            packages=[package.sha256 for package in self.packages],
            pins=[(pin.name, pin.version, pin.sha256) for pin in self.pins],
            codec=codec.identity,
        )


def place(name: str, platform: str) -> str:
    """Return the path of a lock, relative to the repository's root; each platform has a folder."""
    return f"{FOLDER}{platforms.suffix(platform)}/{name}.lock"


def read(name: str, root: Path = ROOT, platform: str = PLATFORM) -> Toolchain:
    """Return the toolchain as it is locked for a platform.

    :raises LockError: the lock is missing, damaged, or no longer what its ``.in`` file asks for.
    """
    where = place(name, platform)
    path, fix = root / where, "run: inv lock --toolchain"
    try:
        toolchain = decoding.decode(files.read(path, lockfile.LIMIT), Toolchain)
    except files.UnreadableError as error:
        raise LockError(error.what if path.exists() else f"{where} is missing", fix=fix) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LockError(f"{where} is damaged: {printable(str(error))}", fix=fix) from error
    if (toolchain.requires, toolchain.platform) != (_requires(name, root), platform):
        raise LockError(f"{where} no longer matches {name}.in and {platform}", fix=fix)
    if unknown := [package.name for package in toolchain.packages if package.name not in PLACES]:
        raise LockError(f"{where} has {unknown[0]}, of which nothing is taken", fix="say what in PLACES of toolchain_lock.py, or leave it out of the .in file")
    return toolchain


def _requires(name: str, root: Path) -> tuple[str, ...]:
    """Return what a toolchain is made from.

    :raises LockError: its ``.in`` file cannot be read, or names a Debian package in another form.
    """
    where = f"{FOLDER}/{name}.in"
    try:
        lines = files.text(root / where, lockfile.LIMIT).splitlines()
    except files.UnreadableError as error:
        raise LockError(error.what, fix=f"run: git checkout HEAD -- {where}") from error
    requires = tuple(line for line in lines if line and not line.startswith("#"))
    for line in requires:
        if line.startswith(DEBIAN) and len(line.split()) != 4:  # noqa: PLR2004  # the word, and what it is followed by
            raise LockError(f"{where} names no Debian package: {printable(line, 60)}", fix=f"write: {DEBIAN}SUITE COMPONENT NAME")
    return requires


def write(name: str, exclude_newer: str, *, platform: str = PLATFORM, root: Path = ROOT, on_line: process.LineSink = ignore) -> bool:
    """Lock what ``<name>.in`` asks for on a platform; return whether that changed the lock.

    :param exclude_newer: RFC 3339 time after which wheels are not seen.
    :raises LockError: there is no such package or wheel.
    """
    requires = _requires(name, root)
    asked = [line.split()[1:] for line in requires if line.startswith(DEBIAN)]
    requirements = [line for line in requires if not line.startswith(DEBIAN)]
    target = resolver.ResolverTarget(python=PYTHON, platform=platform, exclude_newer=exclude_newer, undated=())
    pins = resolver.resolve(requirements, (), target)
    packages = tuple(_newest(words, on_line) for words in asked)
    toolchain = Toolchain(name=name, requires=requires, packages=packages, pins=pins, platform=platform)
    written = {key: value for key, value in msgspec.to_builtins(toolchain).items() if (key, value) != ("platform", PLATFORM)}
    content = msgspec.json.format(msgspec.json.encode(written)) + b"\n"
    return lockfile.replaced(root / place(name, platform), content.decode())


def _newest(asked: Sequence[str], on_line: process.LineSink) -> DebianPackage:
    """Return the package that the mirror has today, asked for by suite, component and name."""
    suite, component, name = asked
    with deb.downloaded(suite, component, name, on_line) as (filename, content):
        package = HashingReader(content)
        package.drain()
    return DebianPackage(
        suite=suite,
        component=component,
        name=name,
        version=filename.split("_")[1].replace("%3a", ":"),
        filename=filename,
        sha256=file_name(package.digest),
        size=package.size,
    )
