"""Conversion under duress: a full disk, killed and concurrent processes, large wheels; and the real CUDA 12 compiler."""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import tars
from tests.waiting import PATIENCE
from tests.wheelhouse import pin, wheel
from torchstrata.errors import DiskFullError
from torchstrata.layers import strata, toolchain, toolchain_lock, wheel_fetch
from torchstrata.locks.lockfile import Lock
from torchstrata.matrix.schema import Strata
from torchstrata.store import tarball
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.store.part import Part
from torchstrata.store.store import Store

CODEC = Codec()
RULES = Strata(own_layer_over=1_000_000, cuda_groups=())

CONVERT = """
import re, sys, threading
from pathlib import Path
from tests.system.test_strata import *
store, path = Store(Path(sys.argv[1])), Path(sys.argv[2])
print("started", flush=True)
digest = convert(store, path).layers[0].digest
print(digest, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
"""Prints the digest, and the process's most memory in kilobytes; getrusage(2) would count its parent's, from before it was this program."""

DIE = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""
"""Has the kernel kill a program, as suddenly as by SIGKILL, once it has written so many bytes of a file."""


def stratum(path):
    """Return the stratum of one large wheel."""
    made = pin(path, "big", "1.0")
    locked = Lock(build="x", python="3.13", flavour="base", platform=PLATFORM, requires=(), exclude_newer="x", uv="x", pins=(made,))
    return strata.plan(locked, None, RULES, "3.13")[1]


def convert(store, path):
    """Make a wheel's stratum as a build does: once, whoever else wants it."""
    wanted = stratum(path)
    with store.lock(wanted.identity(CODEC)):
        part = store.find(wanted.identity(CODEC))
        if part is None:
            part = strata.make(wanted, {wanted.pins[0].sha256: path}, store, CODEC, threading.Event())
            store.remember(wanted.identity(CODEC), part)
    return part


def start(store, path, first=""):
    """Convert in another process, after the program ``first``; return it once it has begun."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", first + CONVERT, store.root, path], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "started\n"
    return process


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Return a wheel with 60 MB that do not compress."""
    return wheel(tmp_path_factory.mktemp("big"), "big", "1.0", {f"big/{number}": random.Random(number).randbytes(20_000_000) for number in range(3)})[1]


@pytest.fixture
def store(tmp_path):
    """Return an empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 20 MB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def unfinished(store):
    """Return what lies in the directories of unfinished files."""
    return list(store.root.glob("tmp/*/*"))


def test_a_full_disk_is_one_error_and_leaves_nothing(small_disk, big):
    """The disk fills in the middle of a layer: the error says so, what was written goes, and complete parts stay."""
    store = Store(small_disk / "store")
    kept = store.add_blob(b"complete")
    with pytest.raises(DiskFullError, match="is left where") as caught:
        convert(store, big)
    assert "inv cache --prune" in caught.value.fix
    assert unfinished(store) == []
    assert store.open_blob(kept).exists()


def test_a_full_disk_ends_a_download(small_disk, big, monkeypatch):
    """A download that does not fit is the same error."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    from tests.wheelhouse import Index  # noqa: PLC0415

    served = Index(files={big.name: big.read_bytes()})
    with served.serve():
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        monkeypatch.delenv("PIP_NO_INDEX")
        with pytest.raises(DiskFullError):
            wheel_fetch.fetch(pin(big, "big", "1.0"), small_disk / "wheels", on_bytes=lambda _: None, cancelled=threading.Event())


def test_a_killed_conversion_is_made_again(store, big, tmp_path):
    """Kill a conversion at its beginning, in its middle and near its end: the next run clears up, makes the same bytes, and nothing is corrupt."""
    expected = convert(Store(tmp_path / "undisturbed"), big)
    for size in (1, 5_000_000, 59_000_000):
        assert start(store, big, DIE.format(size=size)).wait(PATIENCE) == -signal.SIGXFSZ
    assert convert(store, big) == expected
    assert unfinished(store) == []
    assert store.find(stratum(big).identity(CODEC)) == expected


def test_two_builds_at_once_make_a_part_once(store, big):
    """Two processes want the same stratum: one makes it, the other waits, both have it."""
    processes = [start(store, big) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0].split() for process in processes]
    assert outputs[0][0] == outputs[1][0]
    part = store.find(stratum(big).identity(CODEC))
    assert {f"sha256:{path.name}" for path in (store.root / "blobs" / "sha256").iterdir()} == {part.layers[0].digest, *part.extras.values()}


NOISE = random.Random(3).randbytes(1 << 20)


@pytest.mark.parametrize(("block", "blocks"), [(NOISE[: 1 << 14].ljust(1 << 20, b"\0"), 1000), (NOISE, 300)], ids=["packed to a sixtieth", "noise"])
def test_memory_is_bounded_whatever_the_wheel(store, tmp_path, block, blocks):
    """A file of 1 GB, however well it compresses, passes through less than 400 MB of memory."""
    _, path = wheel(tmp_path, "big", "1.0", {"big/file": block * blocks})
    output = start(store, path).communicate(timeout=PATIENCE)[0].split()
    assert int(output[1]) < 400_000


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """Make the locked toolchain's stratum from the mirror and the index, and unpack it; return its CUDA_HOME."""
    if platform.machine() != "x86_64" or not shutil.which("mmdebstrap") or not shutil.which("g++"):
        pytest.skip("needs mmdebstrap and g++ on x86_64")
    root = tmp_path_factory.mktemp("toolchain")
    store, lineage = Store(root / "store"), toolchain_lock.read("cuda-12.4")
    files = {one.sha256: wheel_fetch.fetch(one, store.downloads, on_bytes=lambda _: None, cancelled=threading.Event()) for one in lineage.pins}
    part: Part = toolchain.make(lineage, files, store, CODEC, threading.Event())
    layer = part.layers[0]
    with tars.opened(store, layer) as archive:
        tarball.unpack(archive, root, "tar")
    return root / "opt" / lineage.name


@pytest.mark.parametrize("architecture", ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"])
def test_the_locked_compiler_compiles(compiler, tmp_path, architecture):
    """The compiler makes machine code for every GPU generation that it knows, wherever it lies."""
    source = tmp_path / "a.cu"
    source.write_text("#include <cuda_fp16.h>\n__global__ void twice(float *x) { x[threadIdx.x] *= 2; }\n")
    target = Path(tmp_path, "a.cubin")
    subprocess.run([compiler / "bin/nvcc", "-allow-unsupported-compiler", "-cubin", f"-arch={architecture}", "-o", target, source], check=True)
    assert target.read_bytes()[:4] == b"\x7fELF"
