"""Strata: which wheels share a layer, and that a layer holds what an installer would have put there."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from itertools import chain, product
from pathlib import Path

import msgspec
import pytest

from tests import tars
from tests.wheelhouse import wheel
from torchstrata.errors import IntegrityError, StoreError
from torchstrata.layers import strata
from torchstrata.locks.lockfile import Lock, Pin
from torchstrata.matrix.schema import Group, Strata
from torchstrata.store import inventory, tarball
from torchstrata.store.codec import Codec
from torchstrata.store.layer import PLATFORM
from torchstrata.store.part import Part

CODEC = Codec()
SITE = "opt/venv/lib/python3.13/site-packages"
GROUPS = (Group(title="CUDA maths", wheels=("nvidia-cublas*",)), Group(title="CUDA runtime", wheels=("nvidia-*",)))
RULES = Strata(own_layer_over=1000, cuda_groups=GROUPS)


ONE_GROUP = msgspec.structs.replace(RULES, own_layer_over=1_000_000_000)


def pin(name, size=10, version="1.0", tag="py3-none-any"):
    """Return a pin that is never opened."""
    return Pin(
        name=name, version=version, filename=f"{name.replace('-', '_')}-{version}-{tag}.whl", sha256=hashlib.sha256(name.encode()).hexdigest(), size=size
    )


def lock(*pins, flavour="base", python="3.13"):
    """Return a lock of pins."""
    ordered = tuple(sorted(pins, key=lambda pin: pin.name))
    return Lock(build="2.8.0-cu128", python=python, flavour=flavour, platform=PLATFORM, requires=(), exclude_newer="2026-01-01", uv="1", pins=ordered)


def plan(*pins, parent=None, python="3.13", rules=RULES):
    """Plan a lock of pins."""
    return strata.plan(lock(*pins), parent, rules, python)


TORCH, TRITON, NUMPY, SMALL = pin("torch", 5000, tag="cp313-cp313-linux_x86_64"), pin("triton", 10), pin("numpy", 3000), pin("six", 10)
CUBLAS, CUDART = pin("nvidia-cublas-cu12", 9000), pin("nvidia-cuda-runtime-cu12", 20)
BASE = (TORCH, TRITON, NUMPY, SMALL, CUBLAS, CUDART)


# Planning


def test_the_order_is_cuda_then_environment_then_large_then_small():
    """CUDA lies lowest in the matrix's order; torch and triton come before other large wheels; the small ones share the top."""
    assert [(stratum.kind, stratum.title) for stratum in plan(*BASE)] == [
        ("cuda", "CUDA maths"),
        ("cuda", "CUDA runtime"),
        ("skeleton", "Python 3.13 environment"),
        ("wheel", "torch 1.0"),
        ("wheel", "triton 1.0"),
        ("wheel", "numpy 1.0"),
        ("group", "1 wheels of base"),
    ]


def test_every_wheel_is_in_one_stratum():
    """No wheel is lost, none is there twice."""
    planned = chain.from_iterable(stratum.pins for stratum in plan(*BASE))
    assert sorted(pin.name for pin in planned) == sorted(pin.name for pin in BASE)


def test_cuda_is_the_same_for_every_python():
    """The identity of a CUDA stratum does not depend on the Python; all others do."""
    one, other = plan(*BASE), plan(*BASE, python="3.11")
    same = [first.identity(CODEC) == second.identity(CODEC) for first, second in zip(one, other, strict=True)]
    assert same == [True, True, False, False, False, False, False]


def test_a_flavour_adds_only_its_own():
    """What the parent's lock has is not planned again, and there is one environment."""
    child = plan(*BASE, pin("pandas", 5000), pin("nvidia-cuda-nvcc", 100), parent=lock(*BASE))
    assert [(stratum.kind, [pin.name for pin in stratum.pins]) for stratum in child] == [
        ("cuda", ["nvidia-cuda-nvcc"]),
        ("wheel", ["pandas"]),
        ("group", []),
    ]
    assert child[2].needs == (child[0],)


def test_a_flavour_that_adds_nothing_has_no_strata():
    """The ssh flavour has no wheels of its own."""
    assert plan(*BASE, parent=lock(*BASE)) == ()


def test_a_wheel_of_one_python_is_no_cuda_stratum():
    """A glob on the name is not enough: what was built for one Python belongs to that Python."""
    assert [stratum.kind for stratum in plan(pin("nvidia-dali", 5000, tag="cp313-cp313-linux_x86_64"))] == ["skeleton", "wheel"]


def test_identities_follow_inputs_and_codec():
    """Another wheel, Python or codec is another stratum."""
    wheels = [plan(TORCH)[1], plan(TORCH, python="3.12")[1], plan(pin("torch", 5000, version="2.0"))[1]]
    codecs = (CODEC, Codec(level=9), Codec(name="gzip"))
    identities = {stratum.identity(codec) for stratum, codec in product(wheels, codecs)}
    assert len(identities) == 9


def test_history_names_every_wheel():
    """The description lists the wheels of a group with their versions."""
    assert plan(*BASE)[1].description == "CUDA runtime: nvidia-cuda-runtime-cu12 1.0"
    assert plan(*BASE)[3].description == "torch 1.0"


# Making


@pytest.fixture
def house(tmp_path):
    """Return a function that makes wheels and keeps their paths by hash."""
    paths = {}
    (tmp_path / "house").mkdir()

    def add(*args, **options):
        made, path = wheel(tmp_path / "house", *args, **options)
        paths[made.sha256] = path
        return made

    add.paths = paths
    return add


def make(store, house, *pins):
    """Make all strata of a lock; return tar members by path, and their content, of each stratum by title."""
    made = {}
    for stratum in plan(*pins, rules=ONE_GROUP):
        part = strata.make(stratum, house.paths, store, CODEC, threading.Event())
        store.remember(stratum.identity(CODEC), part)
        made[stratum.title] = part
    return made


def content(store, part):
    """Return what a layer holds: a link's target, a file's bytes and executable bit, nothing for directories."""
    found = {}
    layer = part.layers[0]
    with tars.opened(store, layer) as archive:
        for member in archive:
            if member.issym():
                found[member.name] = member.linkname
            elif member.isfile():
                found[member.name] = (archive.extractfile(member).read(), bool(member.mode & 0o111))
    return found


def extract(store, part, root):
    """Unpack a layer below a directory."""
    layer = part.layers[0]
    with tars.opened(store, layer) as archive:
        tarball.unpack(archive, root, "tar")


def test_the_environment_is_a_venv(store, house):
    """The skeleton is what ``python -m venv`` makes, for the OS's own interpreter."""
    found = content(store, make(store, house, house("six", "1.0", {"six.py": b""}))["Python 3.13 environment"])
    assert found == {
        "opt/venv/pyvenv.cfg": (b"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.13\n", False),
        "opt/venv/bin/python": "/usr/bin/python3.13",
        "opt/venv/bin/python3": "python",
        "opt/venv/bin/python3.13": "python",
        "opt/venv/lib64": "lib",
    }


def test_files_lie_where_the_specification_says(store, house):
    """Schemes of ``.data``, entry points and scripts: each has its place, and scripts run the environment's Python."""
    made = house(
        "tool",
        "1.0",
        {
            "tool/__init__.py": b"x = 1\n",
            "tool/__pycache__/__init__.cpython-313.pyc": b"pyc",
            "tool-1.0.data/scripts/run": b"#!python\nprint()\n",
            "tool-1.0.data/scripts/native": b"\x7fELF",
            "tool-1.0.data/data/share/tool/x": b"share",
            "tool-1.0.data/headers/tool.h": b"header",
            "tool-1.0.data/platlib/tool/native.so": b"so",
            "tool-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntool = tool:main\n",
        },
        executable=("tool-1.0.data/platlib/tool/native.so",),
    )
    found = content(store, make(store, house, made)["1 wheels of base"])
    assert found["opt/venv/bin/run"] == (b"#!/opt/venv/bin/python\nprint()\n", True)
    assert found["opt/venv/bin/native"] == (b"\x7fELF", True)
    assert found["opt/venv/share/tool/x"] == (b"share", False)
    assert found["opt/venv/include/site/python3.13/tool/tool.h"] == (b"header", False)
    assert found[f"{SITE}/tool/native.so"] == (b"so", True)
    assert found[f"{SITE}/tool/__init__.py"] == (b"x = 1\n", False)
    assert found["opt/venv/bin/tool"][0].startswith(b"#!/opt/venv/bin/python\n")
    assert found[f"{SITE}/tool-1.0.dist-info/INSTALLER"] == (b"torchstrata\n", False)
    assert found[f"{SITE}/tool-1.0.dist-info/REQUESTED"] == (b"", False)
    assert not any("__pycache__" in path for path in found)


def test_record_holds_for_every_file(store, house, tmp_path):
    """What RECORD says, of CUDA wheels too, is what lies there: pip can uninstall, and checks pass."""
    tool = house(
        "tool",
        "1.0",
        {"tool/a.py": b"a", "tool-1.0.data/scripts/run": b"#!python\n", "tool-1.0.dist-info/entry_points.txt": b"[console_scripts]\nt = tool:m\n"},
    )
    cublas = house("nvidia-cublas-cu12", "12.8", {"nvidia/__init__.py": b"", "nvidia/cublas/lib/libcublas.so.12": b"library" * 9})
    for part in make(store, house, tool, cublas).values():
        extract(store, part, tmp_path / "root")
    site = tmp_path / "root" / SITE
    (site / "nvidia").unlink()
    (site / "nvidia").symlink_to(tmp_path / "root/opt/cuda/nvidia")
    found = list(importlib.metadata.distributions(path=[str(site)]))
    assert sorted(one.metadata["Name"] for one in found) == ["nvidia-cublas-cu12", "tool"]
    listed = {str(file): file for file in chain.from_iterable(one.files for one in found)}
    assert {"../../../bin/run", "../../../bin/t", "tool/a.py", "nvidia/cublas/lib/libcublas.so.12"} <= set(listed)
    for file in listed.values():
        data = file.locate().read_bytes()
        if not str(file).endswith("/RECORD"):
            assert file.hash.value == base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert file.size == len(data)


def test_cuda_lies_apart_and_is_found(store, house):
    """A CUDA stratum has the libraries and links for the loader; the Python's own layer has dist-info and the link to them."""
    cublas = house("nvidia-cublas-cu12", "12.8", {"nvidia/cublas/lib/libcublas.so.12": b"so", "nvidia/cublas/include/cublas.h": b"h"})
    made = make(store, house, cublas)
    assert content(store, made["CUDA maths"]) == {
        "opt/cuda/nvidia/cublas/lib/libcublas.so.12": (b"so", False),
        "opt/cuda/nvidia/cublas/include/cublas.h": (b"h", False),
        "opt/cuda/lib/libcublas.so.12": "../nvidia/cublas/lib/libcublas.so.12",
    }
    group = content(store, made["0 wheels of base"])
    assert group[f"{SITE}/nvidia"] == "/opt/cuda/nvidia"
    assert f"{SITE}/nvidia_cublas_cu12-12.8.dist-info/METADATA" in group


def test_old_cuda_wheels_outside_nvidia_lie_apart_too(store, house):
    """``nvidia-cusparselt-cu12`` 0.6 has a top-level directory of its own; torch's RPATH finds it through a link."""
    made = make(store, house, house("nvidia-cusparselt-cu12", "0.6.2", {"cusparselt/lib/libcusparseLt.so.0": b"so"}))
    assert content(store, made["CUDA runtime"])["opt/cuda/lib/libcusparseLt.so.0"] == "../cusparselt/lib/libcusparseLt.so.0"
    assert content(store, made["0 wheels of base"])[f"{SITE}/cusparselt"] == "/opt/cuda/cusparselt"


def test_nvcc_of_cuda_13_gets_the_links_that_linking_needs(store, house):
    """``lib64`` and an unversioned ``libcudart.so`` are what nvcc and PyTorch extensions look for."""
    made = make(store, house, house("nvidia-cuda-nvcc", "13.0", {"nvidia/cu13/bin/nvcc": b"elf"}, executable=("nvidia/cu13/bin/nvcc",)))
    found = content(store, made["CUDA runtime"])
    assert found["opt/cuda/nvidia/cu13/bin/nvcc"] == (b"elf", True)
    assert found["opt/cuda/nvidia/cu13/lib64"] == "lib"
    assert found["opt/cuda/nvidia/cu13/lib/libcudart.so"] == "libcudart.so.13"


def test_a_wheel_beside_cuda_that_writes_below_nvidia(store, house):
    """Whatever any wheel puts under ``nvidia/`` lies in /opt/cuda: a real directory there would hide all of CUDA."""
    made = make(store, house, house("helper", "1.0", {"nvidia/helper/__init__.py": b"", "helper.py": b""}))
    found = content(store, made["1 wheels of base"])
    assert found["opt/cuda/nvidia/helper/__init__.py"] == (b"", False)
    assert found[f"{SITE}/nvidia"] == "/opt/cuda/nvidia"
    assert not any(path.startswith(f"{SITE}/nvidia/") for path in found)


def test_the_same_file_of_two_wheels_is_written_once(store, house):
    """Many CUDA wheels bring ``nvidia/__init__.py``; equal contents are no conflict."""
    pins = [house(f"nvidia-{name}", "1.0", {"nvidia/__init__.py": b"# shared\n"}) for name in ("nvtx", "nvrtc")]
    assert content(store, make(store, house, *pins)["CUDA runtime"]) == {"opt/cuda/nvidia/__init__.py": (b"# shared\n", False)}


def test_different_files_of_one_path_name_both_wheels(store, house):
    """Which of two wheels wins must not depend on their order: the error names both."""
    pins = [house(name, "1.0", {"tests/__init__.py": name.encode()}) for name in ("one", "two")]
    with pytest.raises(IntegrityError, match=r"one-1.0-.* and two-1.0-.* both bring /.*/tests/__init__.py"):
        make(store, house, *pins)


@pytest.mark.parametrize("path", ["../../../../etc/passwd", "evil-1.0.data/scripts/../../../etc/cron", "/etc/passwd"])
def test_a_wheel_cannot_leave_the_environment(store, house, path):
    """Paths that lead out are refused, and nothing of the layer stays."""
    with pytest.raises(IntegrityError, match=r"evil-1\.0"):
        make(store, house, house("evil", "1.0", {path: b"x"}))


@pytest.mark.parametrize("damage", ["truncate", "directory", "content"])
def test_a_damaged_wheel_is_named(store, house, damage):
    """A wheel that changed after it was verified is an error with its path, not a layer."""
    made = house("big", "1.0", {"big/data": random.Random(1).randbytes(3_000_000)})
    path = house.paths[made.sha256]
    data = path.read_bytes()
    path.write_bytes({"truncate": data[:-2000], "directory": data[:-1000] + bytes(1000), "content": data[:2_000_000] + b"!" + data[2_000_001:]}[damage])
    with pytest.raises(IntegrityError, match=r"big-1\.0-py3-none-any\.whl is damaged"):
        make(store, house, made)
    assert not list((store.root / "blobs").rglob("*")) or len(store.usage().parts) == 1


def test_a_zip_without_a_record_is_no_wheel(store, house):
    """What the specification asks for must be there."""
    made = house("odd", "1.0", {})
    path = house.paths[made.sha256]
    path.write_bytes(path.read_bytes().replace(b"RECORD", b"RECARD"))
    with pytest.raises(IntegrityError, match="is damaged"):
        make(store, house, made)


def test_an_empty_file_and_a_stored_one(store, house, tmp_path):
    """Entries of no bytes, and entries that the archive does not compress, arrive as they are."""
    import zipfile  # noqa: PLC0415

    made, path = wheel(tmp_path, "plain", "1.0", {"empty.py": b"", "stored.bin": bytes(2_000_000)})
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    house.paths[made.sha256] = path
    found = content(store, make(store, house, made)["1 wheels of base"])
    assert found[f"{SITE}/empty.py"] == (b"", False)
    assert found[f"{SITE}/stored.bin"][0] == bytes(2_000_000)


def test_cancelling_ends_a_conversion(store, house):
    """Nothing is left of a conversion that was cancelled."""
    made = house("big", "1.0", {"big/data": bytes(100)})
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        strata.make(plan(made)[1], house.paths, store, CODEC, cancelled)
    assert list(store.root.glob("tmp/*/*")) == []


def test_a_group_needs_its_cuda_strata_first(store, house):
    """The dist-info of CUDA wheels comes from their parts, not from fetching gigabytes again."""
    *_, group = plan(house("nvidia-nvtx", "1.0", {"nvidia/nvtx.h": b""}))
    with pytest.raises(StoreError, match="must be made before"):
        strata.make(group, {}, store, CODEC, threading.Event())


def test_layers_do_not_depend_on_the_machine(store, house, tmp_path):
    """Another process with another umask, directory, hash seed and time zone makes the same layers."""
    pins = [house(f"pkg{number}", "1.0", {f"pkg{number}/{name}.py": name.encode() for name in "zyx"}) for number in range(3)]
    here = [part.layers for part in make(store, house, *pins).values()]
    program = f"""
import os, sys, threading
os.umask(0o077)
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.unit.layers.test_strata import *
from torchstrata.store.store import Store
paths = {{pin.sha256: path for pin, path in [({pins!r}[number], Path({str(tmp_path)!r}, "house", {pins!r}[number].filename)) for number in range(3)]}}
store = Store(Path({str(tmp_path)!r}, "other"))
for stratum in plan(*{pins!r}, rules=ONE_GROUP):
    print(strata.make(stratum, paths, store, CODEC, threading.Event()).layers)
"""
    environment = {"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd="/", env=environment)
    assert there.stdout.splitlines() == [str(layers) for layers in here]


def test_a_part_is_remembered_with_what_it_set_aside(store, house):
    """CUDA parts keep dist-info as an extra blob; every part keeps what its wheels say of their licences."""
    made = make(store, house, house("nvidia-nvtx", "1.0", {"nvidia/nvtx.h": b""}))
    assert set(made["CUDA runtime"].extras) == {strata.ASIDE, inventory.INVENTORY}
    assert [package.name for package in inventory.of(made["CUDA runtime"], store.open_blob).python] == ["nvidia-nvtx"]
    assert isinstance(made["0 wheels of base"], Part)
    assert set(made["0 wheels of base"].extras) == {inventory.INVENTORY}
