"""What ``devel`` of a CUDA family has besides the wheels of torch's build, as one stratum: a *toolchain*.

CUDA 12's lies below ``/opt/cuda-12.4``. No wheel of CUDA 12 has ``bin/nvcc``; Debian's package has, without its
dependencies (1.8 GB, a second CUDA). The static runtime and the device runtime come from Debian's ``nvidia-cuda-dev``
of the same release: wheels have them from 12.9 on, and nvlink refuses device code that is newer than itself. Headers
come from wheels of the same release.

CUDA 13's compiler and runtime are wheels. Its toolchain adds to their directory what only NVIDIA's own packages have.

In both, libraries are links to those of torch's own wheels in ``/opt/cuda``, so that an extension is linked against
what it will run with. So are their headers, but for those of the runtime and of CUPTI, which are generated from one
another. ``stubs`` has the driver's libraries to link with (:mod:`.stub_library`).
"""

from __future__ import annotations

import io
import itertools
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import IO, Final

from debian.debfile import DebFile

from torchstrata import process
from torchstrata.errors import FetchError, IntegrityError, StaleLockError
from torchstrata.host.filesystem import disk, whole
from torchstrata.layers import deb, stub_library, wheel_file
from torchstrata.layers.toolchain_lock import CUDA, PLACES, DebianPackage, Toolchain
from torchstrata.locks.lockfile import Pin
from torchstrata.progress import ignore
from torchstrata.store import tarball
from torchstrata.store.codec import CHUNK, Codec
from torchstrata.store.digest import digest_of
from torchstrata.store.part import Part
from torchstrata.store.store import Store
from torchstrata.store.tarball import LayerWriter

PROFILE: Final = """\
TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(CICC_PATH):$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64/stubs" "-L$(TOP)/lib64"
"""
"""``nvcc.profile``: NVIDIA's own, without what is not here."""

DEVICE_QUERY: Final = """\
#!/bin/sh
# Who asks nvcc for the GPU's own code must not get other code: nvcc takes no answer for sm_52, with a warning and status 0, unless a
# signal ended the shell in which it asks.
"${0%/*}/../nvvm/bin/__nvcc_device_query" "$@" && exit
status=$?
read -r _ _ _ caller _ <"/proc/$PPID/stat"
if [ "$(cat "/proc/$caller/comm")" = nvcc ]; then
    echo "nvcc: -arch=native: no GPU is visible here; name the architecture, such as -arch=sm_80" >&2
    kill "$PPID"
fi
exit "$status"
"""
"""``bin/__nvcc_device_query``, before NVIDIA's own, for nvcc alone. CUDA 13's wheel has NVIDIA's in that place."""

HEADERS: Final[Mapping[str, str]] = {
    "cublas": "cublas.h cublasLt.h cublasXt.h cublas_api.h cublas_v2.h nvblas.h",
    "cuda_nvrtc": "nvrtc.h",
    "cudnn": "cudnn.h cudnn_adv.h cudnn_backend.h cudnn_cnn.h cudnn_graph.h cudnn_ops.h cudnn_version.h",
    "cufft": "cudalibxt.h cufft.h cufftXt.h cufftw.h",
    "cufile": "cufile.h",
    "curand": "curand.h curand_discrete.h curand_discrete2.h curand_globals.h curand_kernel.h curand_lognormal.h curand_mrg32k3a.h curand_mtgp32.h "
    "curand_mtgp32_host.h curand_mtgp32_kernel.h curand_mtgp32dc_p_11213.h curand_normal.h curand_normal_static.h curand_philox4x32_x.h curand_poisson.h "
    "curand_precalc.h curand_uniform.h",
    "cusolver": "cusolverDn.h cusolverMg.h cusolverRf.h cusolverSp.h cusolverSp_LOWLEVEL_PREVIEW.h cusolver_common.h",
    "cusparse": "cusparse.h cusparse_v2.h",
    "cusparselt": "cusparseLt.h",
    "nccl": "nccl.h",
    "nvjitlink": "nvJitLink.h",
    "nvtx": "nvToolsExt.h nvToolsExtCuda.h nvToolsExtCudaRt.h nvToolsExtOpenCL.h nvToolsExtSync.h nvtx3",
}
"""Headers by directory below ``/opt/cuda/nvidia``; the link to one that a wheel lacks is as if it were missing."""

APART: Final = ("cudnn", "cusparselt", "nccl")
"""Of these, what lies in directories of its own in CUDA 13, too; all else is in the compiler's."""

FORWARDED: Final[Mapping[str, str]] = {"cudnn": "cudnn.h"}
"""Of these, what includes others beside it, more in each release, and is a file that includes it instead of a link to it: compilers look
beside the file that they have opened, not beside what a link leads to."""

HEADER: Final = re.compile(r"nvidia/[^/]*/include/(?P<path>.+)", re.DOTALL)
"""A header in a wheel."""

NVML: Final = "nvml.h"
DRIVER: Final = re.compile(rf"cuda\w*\.h|{re.escape(NVML)}")
"""Headers that declare functions of the driver's libraries."""

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

LIBRARIES: Final[Mapping[str, str]] = {
    "12": "libcublas.so.12 libcublasLt.so.12 libcudart.so.12 libcudnn.so.9 libcufft.so.11 libcufftw.so.11 libcufile.so.0 libcufile_rdma.so.1 "
    "libcupti.so.12 libcurand.so.10 libcusolver.so.11 libcusolverMg.so.11 libcusparse.so.12 libcusparseLt.so.0 libnccl.so.2 libnvJitLink.so.12 "
    "libnvToolsExt.so.1 libnvblas.so.12 libnvrtc.so.12",
    "13": "libcublas.so.13 libcublasLt.so.13 libcudnn.so.9 libcufft.so.12 libcufftw.so.12 libcufile.so.0 libcufile_rdma.so.1 libcupti.so.13 "
    "libcurand.so.10 libcusolver.so.12 libcusolverMg.so.12 libcusparse.so.12 libcusparseLt.so.0 libnccl.so.2 libnvJitLink.so.13 "
    "libnvblas.so.13 libnvrtc.so.13 libnvtx3interop.so.1",
}
"""What ``-l`` finds, by major version, which fixes the sonames; CUDA 13's ``libcudart.so`` comes with its wheel."""

SHARED: Final = "/opt/cuda/lib"
"""Where each library of torch's wheels has a link, whatever the wheel calls its directory."""

LINKED_WITH: Final = "nvidia-cuda-runtime"
"""A wheel of CUDA 13 that torch pins itself: only the names in its headers are wanted here."""

STUB_LIBRARY, LIBRARY_NOT_FOUND = 34, 12
"""CUDA_ERROR_STUB_LIBRARY (cuda.h), NVML_ERROR_LIBRARY_NOT_FOUND (nvml.h)."""


def _fetch(package: DebianPackage, directory: Path, on_line: process.LineSink) -> Path:
    """Return the package's file, verified.

    :param on_line: gets what happens to this machine, such as an installation of mmdebstrap.
    :raises StaleLockError: the mirror has dropped that version.
    """
    place = directory / package.sha256 / package.filename
    if not place.exists() or digest_of(place) != f"sha256:{package.sha256}":
        with disk(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        try:
            asked = f"{package.name}={package.version}"
            with deb.downloaded(package.suite, package.component, asked, on_line) as (_, content), disk(place), whole(place) as file:
                shutil.copyfileobj(content, file, CHUNK)
        except process.Failed as error:
            raise _refused(package, error) from error
    if digest_of(place) != f"sha256:{package.sha256}":
        place.unlink()
        raise IntegrityError(f"the mirror has {package.filename} with other bytes than the lock pins", fix="check why, then run: inv lock --toolchain")
    return place


def _refused(package: DebianPackage, error: process.Failed) -> FetchError | StaleLockError:
    if f"Version '{package.version}' for '{package.name}' was not found" in error.tail:
        return StaleLockError(f"the mirror no longer has {package.name} {package.version}", fix="run: inv lock --toolchain")
    return FetchError(f"{package.name} cannot be downloaded: {error.what}", fix="check that the distribution's mirror is reachable, then try again")


def make(  # noqa: PLR0913  # the last one has a default
    toolchain: Toolchain,
    wheels: Mapping[str, Path],
    into: Store,
    codec: Codec,
    cancelled: threading.Event,
    *,
    on_line: process.LineSink = ignore,
) -> Part:
    """Make the layer of ``toolchain`` and return its part; the caller has locked the identity and remembers the part.

    :param wheels: file of each pin by its sha256, verified.
    :param on_line: gets what happens to this machine, such as an installation of mmdebstrap.
    :raises FetchError: the Debian package cannot be downloaded; :class:`StaleLockError` if the mirror dropped it.
    :raises CancelledError: ``cancelled`` was set.
    """
    packages = []
    for package in toolchain.packages:
        if cancelled.is_set():
            raise CancelledError
        packages.append((package.name, _fetch(package, into.downloads, on_line)))
    if cancelled.is_set():
        raise CancelledError
    with into.layer(toolchain.title, codec) as writer:
        writer.cancelled = cancelled
        for name, path in packages:
            _write_package(writer, toolchain.home, path, PLACES[name])
        if packages:
            _write_texts(writer, toolchain)
        _write_stubs(writer, toolchain, [_write_headers(writer, toolchain.home, pin, wheels[pin.sha256]) for pin in toolchain.pins])
        _write_links(writer, toolchain)
    for _, path in packages:
        path.unlink()
    return Part(layers=(writer.layer,))


def _write_package(writer: LayerWriter, top: str, package: Path, places: Mapping[str, str]) -> None:
    """Write what ``places`` names, and read no further: two thirds of the larger package lie behind that."""
    missing = set(places)
    with DebFile(str(package)) as deb, deb.data.tgz() as archive:
        while missing and (member := archive.next()):
            source = member.name.removeprefix("./")
            if source in missing:
                content = tarball.content(archive, member)
                writer.file(f"{top}/{places[source]}", 0o775 if member.mode & 0o111 else 0o664, member.size, content)
                missing.remove(source)
    if missing:
        raise IntegrityError(f"{package.name} lacks {', '.join(sorted(missing))}", fix="adapt PLACES in toolchain_lock.py to the new package")


def _write_headers(writer: LayerWriter, top: str, pin: Pin, path: Path) -> Mapping[str, bytes]:
    """Write a wheel's ``nvidia/*/include``, unless torch's wheel has it; return the driver's headers."""
    of_driver = {}
    with wheel_file.pinned(pin, path) as wheel:
        for (name, *_), content, _ in wheel.get_contents():
            header = HEADER.fullmatch(name)
            if header is None or header["path"] == "__init__.py":
                continue
            text, target = _changed(header["path"], content), f"{top}/include/{header['path']}"
            if text is not None and DRIVER.fullmatch(header["path"]):
                of_driver[header["path"]] = text
            if pin.name == LINKED_WITH:
                content.drain()  # type: ignore[attr-defined]  # our Member
            elif text is not None:
                writer.file(target, 0o664, len(text), io.BytesIO(text))
            else:
                writer.file(target, 0o664, content.size, content)  # type: ignore[attr-defined]  # our Member
    return of_driver


def _changed(header: str, content: IO[bytes]) -> bytes | None:
    """Return the text of a header that is changed or read here; of others nothing, and leave them unread."""
    if header == MATHS:
        return for_new_glibc(content.read())
    return content.read() if DRIVER.fullmatch(header) else None


def for_new_glibc(header: bytes) -> bytes:
    """Return CUDA 12.4's mathematics header with the exception specification that glibc 2.41 has for four functions.

    Without it no file compiles there; with it none does on an older glibc, which has no such functions.
    """
    return PROLOGUE + TRIGONOMETRY.sub(rb"\1 _PI_FUNCTIONS_NOEXCEPT;", header)


def _write_texts(writer: LayerWriter, toolchain: Toolchain) -> None:
    """Write what is ours: nvcc's profile, and what stands before NVIDIA's query for the GPU."""
    for path, mode, text in (("bin/__nvcc_device_query", 0o775, DEVICE_QUERY), ("bin/nvcc.profile", 0o664, PROFILE)):
        writer.file(f"{toolchain.home}/{path}", mode, len(text), io.BytesIO(text.encode()))


def _write_stubs(writer: LayerWriter, toolchain: Toolchain, headers: Sequence[Mapping[str, bytes]]) -> None:
    """Write the driver's libraries to link with, of all that ``headers`` declare."""
    texts = dict(itertools.chain.from_iterable(of_wheel.items() for of_wheel in headers))
    nvml = [text for name, text in texts.items() if name == NVML]
    cuda = [text for name, text in texts.items() if name != NVML]
    stubs = {
        "libcuda.so": stub_library.library("libcuda.so.1", stub_library.of_cuda(cuda), STUB_LIBRARY, toolchain.platform),
        "libnvidia-ml.so": stub_library.library("libnvidia-ml.so.1", stub_library.of_nvml(nvml), LIBRARY_NOT_FOUND, toolchain.platform),
    }
    for name, content in stubs.items():
        writer.file(f"{toolchain.libraries}/stubs/{name}", 0o664, len(content), io.BytesIO(content))


def _write_links(writer: LayerWriter, toolchain: Toolchain) -> None:
    for directory, names in HEADERS.items():
        for name in names.split() if toolchain.packages or directory in APART else ():
            _write_link(writer, toolchain, directory, name)
    for library in LIBRARIES[toolchain.major].split():
        writer.link(f"{toolchain.libraries}/{library.partition('.so')[0]}.so", f"{SHARED}/{library}")


def _write_link(writer: LayerWriter, toolchain: Toolchain, directory: str, name: str) -> None:
    """Let a header of torch's wheels be found beside the compiler's own."""
    if toolchain.packages or FORWARDED.get(directory) != name:
        writer.link(f"{toolchain.home}/include/{name}", f"{CUDA}/{directory}/include/{name}")
        return
    text = f'#include "../../{directory}/include/{name}"\n'
    writer.file(f"{toolchain.home}/include/{name}", 0o664, len(text), io.BytesIO(text.encode()))
