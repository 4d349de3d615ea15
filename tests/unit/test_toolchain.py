"""The CUDA 12 toolchain: its lock, and what of a package and wheels goes where."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading

import pytest

from tests.wheelhouse import wheel
from torchstrata.cells.matrix import ROOT
from torchstrata.content.codec import Codec, decompressor
from torchstrata.content.store import Store, digest_of
from torchstrata.errors import IntegrityError, LockError
from torchstrata.payload import toolchain
from torchstrata.payload.toolchain import Package, Toolchain

NAME = "cuda-12.4"


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the committed toolchain locks, to be spoilt."""
    shutil.copytree(ROOT / toolchain.FOLDER, tmp_path / toolchain.FOLDER)
    return tmp_path


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


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a toolchain from a package with the files given and one header wheel."""
    store = Store(tmp_path / "store")
    pin, path = wheel(
        tmp_path, "nvidia-cuda-runtime-cu12", "12.4", {"nvidia/cuda_runtime/include/cuda.h": b"h", "nvidia/cuda_runtime/lib/libcudart.so.12": b"so"}
    )

    def make(files):
        package = tmp_path / "toolkit_1_amd64.deb"
        package.write_bytes(b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", archive({})) + member("data.tar.xz", archive(files)))
        sha256 = digest_of(package).removeprefix("sha256:")
        place = store.downloads / sha256 / package.name
        place.parent.mkdir(parents=True)
        shutil.copy(package, place)
        locked = Package(suite="trixie", component="non-free", name="toolkit", version="1", filename=package.name, sha256=sha256, size=package.stat().st_size)
        chain = Toolchain(name=NAME, requires=(), package=locked, pins=(pin,))
        part = toolchain.make(chain, {pin.sha256: path}, store, Codec(), threading.Event())
        with (
            store.open_blob(part.layers[0].digest).open("rb") as blob,
            tarfile.open(fileobj=decompressor(blob, Codec().media_type), mode="r|") as tar,
        ):
            return {one.name: one.linkname or one.mode for one in tar}

    return make


def test_the_committed_lock_is_what_its_inputs_ask_for():
    """The lock fits the ``.in`` file, and every wheel of it is pinned."""
    chain = toolchain.read(NAME)
    assert chain.package.version in chain.title
    assert [f"{pin.name}=={pin.version}" for pin in chain.pins] == list(chain.requires[1:])


def test_a_missing_lock_says_how_to_make_it(copy):
    """Without the lock nothing is guessed."""
    (copy / toolchain.FOLDER / f"{NAME}.lock").unlink()
    with pytest.raises(LockError, match="is missing") as caught:
        toolchain.read(NAME, copy)
    assert "inv lock --toolchain" in caught.value.fix


def test_a_lock_that_no_longer_fits_is_refused(copy):
    """A change of the inputs asks for a new lock."""
    path = copy / toolchain.FOLDER / f"{NAME}.in"
    path.write_text(path.read_text().replace("12.4.131", "12.4.99"))
    with pytest.raises(LockError, match=r"no longer matches cuda-12\.4\.in"):
        toolchain.read(NAME, copy)


def test_a_damaged_lock_is_refused(copy):
    """A lock that was edited into something else says so."""
    path = copy / toolchain.FOLDER / f"{NAME}.lock"
    path.write_text(path.read_text().replace('"sha256"', '"sha"', 1))
    with pytest.raises(LockError, match="is damaged"):
        toolchain.read(NAME, copy)


def test_the_identity_follows_the_lock_and_the_codec():
    """Another package or codec is another stratum."""
    chain = toolchain.read(NAME)
    assert chain.identity(Codec()) == toolchain.read(NAME).identity(Codec())
    assert chain.identity(Codec()) != chain.identity(Codec(level=5))


def test_a_cuda_home_is_made_of_package_wheels_and_links(made):
    """Programs come from the package, headers from the wheels, libraries are links to torch's own."""
    found = made(dict.fromkeys([*toolchain.PLACES, "usr/bin/nvdisasm"], b"x"))
    top = f"opt/{NAME}"
    assert found[f"{top}/bin/nvcc"] == 0o775
    assert found[f"{top}/nvvm/libdevice/libdevice.10.bc"] == 0o664
    assert found[f"{top}/include/cuda.h"] == 0o664
    assert found[f"{top}/lib64/libcudart.so"] == "/opt/cuda/nvidia/cuda_runtime/lib/libcudart.so.12"
    assert found[f"{top}/include/cublas_v2.h"] == "/opt/cuda/nvidia/cublas/include/cublas_v2.h"
    assert {path for path in found if not path.startswith(top)} == {"opt"}
    assert not any("nvdisasm" in path or path.endswith("libcudart.so.12") for path in found)


def test_a_package_that_lacks_a_program_is_refused(made):
    """A new package with other contents is noticed, not half used."""
    with pytest.raises(IntegrityError, match=r"lacks usr/bin/ptxas"):
        made(dict.fromkeys([path for path in toolchain.PLACES if path != "usr/bin/ptxas"], b"x"))
