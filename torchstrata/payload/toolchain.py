"""The CUDA 12 compiler as one stratum below ``/opt/cuda-12.4``: a Debian package and header wheels, locked together.

No wheel of CUDA 12 has ``bin/nvcc``. Debian's package has, without its dependencies (1.8 GB, a second CUDA); headers come from
wheels of the same release. Libraries, and the headers of all but the runtime, are links to those of torch's own wheels in
``/opt/cuda``, so that an extension is compiled and linked against what it will run with. There is no static runtime; the
names by which nvcc links it lead to the shared one.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from debian.debfile import DebFile

from torchstrata import decoding, files, process
from torchstrata.cells.matrix import ROOT
from torchstrata.content import store
from torchstrata.content.codec import CHUNK, Codec
from torchstrata.content.layers import PLATFORM
from torchstrata.content.store import Part, Store
from torchstrata.content.tarball import LayerWriter
from torchstrata.errors import FetchError, IntegrityError, LockError, StaleLockError
from torchstrata.filesystem import disk
from torchstrata.locking import lockfile, resolver
from torchstrata.locking.locks import Pin
from torchstrata.ospart import packages
from torchstrata.payload import wheelfile
from torchstrata.text import printable

FORMAT: Final = 3
"""Raise it when the bytes of a toolchain change for the same lock."""

FOLDER: Final = "locks/toolchain"

Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.+-]*\Z", max_length=128)]
"""Suite, component or name of a package (Debian Policy 5.6.1): a file name, and no option."""

PYTHON: Final = "3.13"
"""For the resolver; the wheels fit any."""

PLACES: Final[Mapping[str, str]] = {
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
"""What is taken of the Debian package, and where it goes; debuggers and profilers are left out."""

PROFILE: Final = """\
TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(CICC_PATH):$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
"""
"""``nvcc.profile``: NVIDIA's own, without what is not here."""

HEADERS: Final[Mapping[str, str]] = {
    "cublas": "cublas.h cublasLt.h cublasXt.h cublas_api.h cublas_v2.h nvblas.h",
    "cuda_cupti": "cupti.h cupti_activity.h cupti_callbacks.h cupti_driver_cbid.h cupti_events.h cupti_metrics.h cupti_result.h cupti_runtime_cbid.h "
    "cupti_version.h generated_cuda_meta.h generated_cuda_runtime_api_meta.h generated_nvtx_meta.h",
    "cuda_nvrtc": "nvrtc.h",
    "cudnn": "cudnn.h cudnn_adv.h cudnn_backend.h cudnn_cnn.h cudnn_graph.h cudnn_ops.h cudnn_version.h",
    "cufft": "cudalibxt.h cufft.h cufftXt.h cufftw.h",
    "curand": "curand.h curand_discrete.h curand_discrete2.h curand_globals.h curand_kernel.h curand_lognormal.h curand_mrg32k3a.h curand_mtgp32.h "
    "curand_mtgp32_host.h curand_mtgp32_kernel.h curand_mtgp32dc_p_11213.h curand_normal.h curand_normal_static.h curand_philox4x32_x.h curand_poisson.h "
    "curand_precalc.h curand_uniform.h",
    "cusolver": "cusolverDn.h cusolverMg.h cusolverRf.h cusolverSp.h cusolverSp_LOWLEVEL_PREVIEW.h cusolver_common.h",
    "cusparse": "cusparse.h cusparse_v2.h",
    "nccl": "nccl.h",
    "nvjitlink": "nvJitLink.h",
    "nvtx": "nvToolsExt.h nvToolsExtCuda.h nvToolsExtCudaRt.h nvToolsExtOpenCL.h nvToolsExtSync.h nvtx3",
}
"""Headers by directory below ``/opt/cuda/nvidia``; one that an old or new wheel lacks is a link to nothing, which is as if it were missing."""

MATHS: Final = "crt/math_functions.h"
PROLOGUE: Final = b"""\
#include <features.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 41)
#define _PI_FUNCTIONS_NOEXCEPT noexcept(true)
#else
#define _PI_FUNCTIONS_NOEXCEPT
#endif
"""
TRIGONOMETRY: Final = re.compile(rb"(__device_builtin__ +(?:double|float) +(?:sinpi|cospi|sinpif|cospif)\((?:double|float) x\));")

LIBRARIES: Final = (
    "cublas/lib/libcublas.so.12 cublas/lib/libcublasLt.so.12 cuda_cupti/lib/libcupti.so.12 cuda_nvrtc/lib/libnvrtc.so.12 "
    "cuda_runtime/lib/libcudart.so.12 cudnn/lib/libcudnn.so.9 cufft/lib/libcufft.so.11 curand/lib/libcurand.so.10 cusolver/lib/libcusolver.so.11 "
    "cusparse/lib/libcusparse.so.12 nccl/lib/libnccl.so.2 nvjitlink/lib/libnvJitLink.so.12 nvtx/lib/libnvToolsExt.so.1"
)
"""What ``-l`` finds; sonames are the same in all of CUDA 12."""

CUDA: Final = "/opt/cuda/nvidia"

STATIC_RUNTIME: Final = f"INPUT({CUDA}/cuda_runtime/lib/libcudart.so.12)\n".encode()
"""``libcudart_static.a`` as a linker script (ld takes one under any name): nvcc links that library unless told otherwise."""

EMPTY_OBJECT: Final = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0)
"""An ELF object for x86-64 without any section."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
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

    :param name: such as ``cuda-12.4``; it lies in ``/opt/<name>``.
    :param requires: what the lock was made from: the lines of its ``.in`` file.
    """

    name: str
    requires: tuple[str, ...]
    package: Package
    pins: tuple[Pin, ...]

    @property
    def title(self) -> str:
        """A few words for people and the history of images."""
        return f"{self.name} compiler ({self.package.name} {self.package.version})"

    def identity(self, codec: Codec) -> str:
        """Return the identity of its part."""
        return store.identity(
            toolchain=FORMAT,
            name=self.name,
            title=self.title,
            package=self.package.sha256,
            pins=[(pin.name, pin.version, pin.sha256) for pin in self.pins],
            codec=codec.identity,
        )


# Locks


def read(name: str, root: Path = ROOT) -> Toolchain:
    """Return the toolchain as it is locked.

    :raises LockError: the lock is missing, damaged, or no longer what its ``.in`` file asks for.
    """
    path = root / FOLDER / f"{name}.lock"
    fix = "run: inv lock --toolchain"
    try:
        toolchain = decoding.decode(files.read(path, lockfile.LIMIT), Toolchain)
    except files.UnreadableError as error:
        raise LockError(error.what if path.exists() else f"{FOLDER}/{path.name} is missing", fix=fix) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LockError(f"{FOLDER}/{path.name} is damaged: {printable(str(error))}", fix=fix) from error
    if toolchain.requires != _requires(name, root):
        raise LockError(f"{FOLDER}/{path.name} no longer matches {name}.in", fix=fix)
    return toolchain


def _requires(name: str, root: Path) -> tuple[str, ...]:
    lines = (root / FOLDER / f"{name}.in").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def write(name: str, exclude_newer: str, *, root: Path = ROOT, on_line: process.LineSink = lambda _: None) -> bool:
    """Lock what ``<name>.in`` asks for; return whether that changed the lock.

    :param exclude_newer: RFC 3339 time after which wheels are not seen.
    :raises LockError: there is no such package or wheel.
    """
    (asked, *requirements) = requires = _requires(name, root)
    _, suite, component, package = asked.split()
    target = resolver.Target(python=PYTHON, platform=PLATFORM, exclude_newer=exclude_newer, undated=())
    pins = resolver.resolve(requirements, (), target)
    found = Toolchain(name=name, requires=tuple(requires), package=_newest(suite, component, package, on_line), pins=pins)
    content = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    path = root / FOLDER / f"{name}.lock"
    changed = not path.exists() or path.read_bytes() != content
    if changed:
        path.write_bytes(content)
    return changed


def _newest(suite: str, component: str, name: str, on_line: process.LineSink) -> Package:
    """Return the package of that name that the mirror has today."""
    with packages.downloaded(suite, component, name, on_line) as (filename, content):
        digest, size = hashlib.sha256(), 0
        while block := content.read(CHUNK):
            digest.update(block)
            size += len(block)
    version = filename.split("_")[1].replace("%3a", ":")
    return Package(suite=suite, component=component, name=name, version=version, filename=filename, sha256=digest.hexdigest(), size=size)


# The Debian package


def _fetch(package: Package, directory: Path, on_line: process.LineSink) -> Path:
    """Return the package's file, verified.

    :param on_line: gets what happens to this machine, such as an installation of mmdebstrap.
    :raises StaleLockError: the mirror has dropped that version.
    """
    place = directory / package.sha256 / package.filename
    if not place.exists() or store.digest_of(place) != f"sha256:{package.sha256}":
        with disk(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with packages.downloaded(package.suite, package.component, f"{package.name}={package.version}", on_line) as (_, content):
                _save(content, place)
        except process.Failed as error:
            raise _refused(package, error) from error
    if store.digest_of(place) != f"sha256:{package.sha256}":
        place.unlink()
        raise IntegrityError(f"the mirror has {package.filename} with other bytes than the lock pins", fix="check why, then run: inv lock --toolchain")
    return place


def _save(content: Any, place: Path) -> None:
    part = place.with_suffix(".part")
    with disk(part), part.open("wb") as file:
        while block := content.read(CHUNK):
            file.write(block)
        part.replace(place)


def _refused(package: Package, error: process.Failed) -> FetchError | StaleLockError:
    if f"Version '{package.version}' for '{package.name}' was not found" in error.tail:
        return StaleLockError(f"the mirror no longer has {package.name} {package.version}", fix="run: inv lock --toolchain")
    return FetchError(f"{package.name} cannot be downloaded: {error.what}", fix="check that the distribution's mirror is reachable, then try again")


# The stratum


def make(  # noqa: PLR0913  # the last one has a default
    toolchain: Toolchain,
    wheels: Mapping[str, Path],
    into: Store,
    codec: Codec,
    cancelled: threading.Event,
    *,
    on_line: process.LineSink = lambda _: None,
) -> Part:
    """Make the layer of ``toolchain`` and return its part; the caller has locked the identity and remembers the part.

    :param wheels: file of each pin by its sha256, verified.
    :param on_line: gets what happens to this machine, such as an installation of mmdebstrap.
    :raises FetchError: the Debian package cannot be had; :class:`StaleLockError` if the mirror dropped it.
    :raises CancelledError: ``cancelled`` was set.
    """
    package = _fetch(toolchain.package, into.downloads, on_line)
    if cancelled.is_set():
        raise CancelledError
    top = f"opt/{toolchain.name}"
    with into.layer(toolchain.title, codec) as writer:
        writer.cancelled = cancelled
        _write_package(writer, top, package)
        _write_texts(writer, top)
        for pin in toolchain.pins:
            _write_headers(writer, top, pin, wheels[pin.sha256])
        _write_links(writer, top)
    package.unlink()
    return Part(layers=(writer.layer,))


def _write_package(writer: LayerWriter, top: str, package: Path) -> None:
    missing = set(PLACES)
    with DebFile(str(package)) as deb, deb.data.tgz() as archive:
        for member in archive:
            source = member.name.removeprefix("./")
            if source in PLACES:
                content = archive.extractfile(member)
                assert content is not None
                writer.file(f"{top}/{PLACES[source]}", 0o775 if member.mode & 0o111 else 0o664, member.size, content)
                missing.remove(source)
    if missing:
        raise IntegrityError(f"{package.name} lacks {', '.join(sorted(missing))}", fix="adapt PLACES in toolchain.py to the new package")


def _write_headers(writer: LayerWriter, top: str, pin: Pin, path: Path) -> None:
    """Write what lies in ``nvidia/*/include`` of a wheel."""
    with wheelfile.pinned(pin, path) as wheel:
        for (name, *_), content, _ in wheel.get_contents():
            parts = name.split("/", 3)
            if len(parts) < len(("nvidia", "component", "include", "header")) or parts[0] != "nvidia" or parts[2] != "include" or parts[3] == "__init__.py":
                continue
            if parts[3] == MATHS:
                text = io.BytesIO(for_new_glibc(content.read()))
                writer.file(f"{top}/include/{parts[3]}", 0o664, len(text.getbuffer()), text)
            else:
                writer.file(f"{top}/include/{parts[3]}", 0o664, content.size, content)  # type: ignore[attr-defined]  # our Member


def for_new_glibc(header: bytes) -> bytes:
    """Return CUDA 12.4's mathematics header with the exception specification that glibc 2.41 gives four of its functions.

    Without it no file compiles there; with it none does on an older glibc, which has no such functions.
    """
    return PROLOGUE + TRIGONOMETRY.sub(rb"\1 _PI_FUNCTIONS_NOEXCEPT;", header)


def _device_runtime() -> bytes:
    """Return ``libcudadevrt.a``, which nvcc always links, without content; ld wants an index in it, and nvlink an object."""
    members = (("/", bytes(4)), ("none.o/", EMPTY_OBJECT))
    return b"!<arch>\n" + b"".join(f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(data):<10}`\n".encode() + data for name, data in members)


def _write_texts(writer: LayerWriter, top: str) -> None:
    """Write what is ours: nvcc's profile, and libraries that nvcc asks for and the wheels lack."""
    files = {"bin/nvcc.profile": PROFILE.encode(), "lib64/libcudart_static.a": STATIC_RUNTIME, "lib64/libcudadevrt.a": _device_runtime()}
    for path, content in files.items():
        writer.file(f"{top}/{path}", 0o664, len(content), io.BytesIO(content))


def _write_links(writer: LayerWriter, top: str) -> None:
    for directory, names in HEADERS.items():
        for name in names.split():
            writer.link(f"{top}/include/{name}", f"{CUDA}/{directory}/include/{name}")
    for library in LIBRARIES.split():
        name = Path(library).name.partition(".so")[0]
        writer.link(f"{top}/lib64/{name}.so", f"{CUDA}/{library}")
