"""Toolchains: what of a package and wheels goes where."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from tests import tars
from tests.wheelhouse import wheel
from torchstrata.errors import IntegrityError
from torchstrata.layers import toolchain
from torchstrata.layers.toolchain_lock import PLACES, DebianPackage, Toolchain
from torchstrata.store.codec import Codec
from torchstrata.store.digest import digest_of
from torchstrata.store.store import Store

NAME = "cuda-12.4"


def member(name: str, data: bytes) -> bytes:
    """Return a member of an ``ar`` archive."""
    return f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar as in a Debian package."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size, info.mode = len(data), 0o755 if "/bin/" in path else 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


HEADERS = {"cuda.h": b"CUresult CUDAAPI cuInit(unsigned int Flags);\n", "nvml.h": b"nvmlReturn_t DECLDIR nvmlInit_v2(void);\n"}


def debian(store: Store, directory: Path, name: str, files: dict[str, bytes]) -> DebianPackage:
    """Put a Debian package where its download would lie; return it as a lock has it."""
    package = directory / f"{name}_1_amd64.deb"
    package.write_bytes(b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", archive({})) + member("data.tar.xz", archive(files)))
    sha256 = digest_of(package).removeprefix("sha256:")
    place = store.downloads / sha256 / package.name
    place.parent.mkdir(parents=True)
    shutil.copy(package, place)
    return DebianPackage(suite="trixie", component="non-free", name=name, version="1", filename=package.name, sha256=sha256, size=package.stat().st_size)


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a toolchain from packages with the files given and one wheel of headers."""
    store = Store(tmp_path / "store")

    def make(packages, name=NAME, wheel_name="nvidia-cuda-cccl-cu12"):
        locked = tuple(debian(store, tmp_path, package, files) for package, files in packages.items())
        files = {f"nvidia/some/include/{header}": text for header, text in HEADERS.items()} | {"nvidia/some/lib/libcudart.so.12": b"so"}
        pin, path = wheel(tmp_path, wheel_name, "12.4", files)
        lineage = Toolchain(name=name, requires=(), packages=locked, pins=(pin,))
        part = toolchain.make(lineage, {pin.sha256: path}, store, Codec(), threading.Event())
        with tars.opened(store, part.layers[0]) as archive:
            return {one.name: one.linkname or one.mode for one in archive}

    return make


def whole() -> dict[str, dict[str, bytes]]:
    """Return the files of the packages, as far as they are taken, and one more."""
    return {name: dict.fromkeys([*places, "usr/bin/nvdisasm"], b"x") for name, places in PLACES.items()}


def test_a_cuda_home_is_made_of_packages_wheels_and_links(made):
    """Programs and static libraries come from packages, headers from the wheels, other libraries are links to torch's own."""
    found = made(whole())
    top = f"opt/{NAME}"
    assert found[f"{top}/bin/nvcc"] == found[f"{top}/bin/__nvcc_device_query"] == 0o775
    assert found[f"{top}/nvvm/libdevice/libdevice.10.bc"] == found[f"{top}/lib64/libcudart_static.a"] == 0o664
    assert found[f"{top}/include/cuda.h"] == found[f"{top}/lib64/stubs/libcuda.so"] == found[f"{top}/lib64/stubs/libnvidia-ml.so"] == 0o664
    assert found[f"{top}/lib64/libcudart.so"] == "/opt/cuda/lib/libcudart.so.12"
    assert found[f"{top}/include/cublas_v2.h"] == "/opt/cuda/nvidia/cublas/include/cublas_v2.h"
    assert {path for path in found if not path.startswith(top)} == {"opt"}
    assert not any("nvdisasm" in path or path.endswith("libcudart.so.12") for path in found)


@pytest.mark.parametrize(("wheel_name", "copied"), [("nvidia-cuda-profiler-api", True), (toolchain.LINKED_WITH, False)])
def test_cuda_13_gets_what_its_wheels_lack(made, wheel_name, copied):
    """Links, stubs and headers go into the directory of the compiler's wheels; headers that torch's wheels have are not there twice."""
    found = made({}, "cuda-13", wheel_name)
    top = "opt/cuda/nvidia/cu13"
    assert found[f"{top}/lib/libcufftw.so"] == "/opt/cuda/lib/libcufftw.so.12"
    assert found[f"{top}/include/cudnn_ops.h"] == "/opt/cuda/nvidia/cudnn/include/cudnn_ops.h"
    assert found[f"{top}/include/cudnn.h"] == 0o664
    assert found[f"{top}/lib/stubs/libcuda.so"] == 0o664
    assert (f"{top}/include/cuda.h" in found) is copied
    absent = tuple(f"{top}/{part}" for part in ("bin", "lib64", "nvvm", "lib/libcudart"))
    assert not any(path.startswith(absent) for path in found)


@pytest.mark.parametrize(("package", "path"), [("nvidia-cuda-toolkit", "usr/bin/ptxas"), ("nvidia-cuda-dev", "usr/lib/x86_64-linux-gnu/libcudadevrt.a")])
def test_a_package_that_lacks_a_file_is_refused(made, package, path):
    """A new package with other contents is noticed, not half used."""
    files = whole()
    del files[package][path]
    with pytest.raises(IntegrityError, match=rf"{package}_1_amd64.deb lacks {path}"):
        made(files)
