"""Checks of driver, GPU and memory at the start, against driver libraries that say what each test wants."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from docker.types import Ulimit

from tests.images.boxes import CLIENTS, mounted
from torchstrata import platforms
from torchstrata.store import tarball

QUIET = ("work will be lost", "memory may be locked")
"""Lines about the machine that the tests run on."""

CHECKED = ("sh", "-c", "while pgrep -f 'torchstrata[ ]generation' >/dev/null; do sleep 0.1; done; echo ran")
"""A command that lasts as long as the check of the GPUs that goes on beside it."""

FACTS = {
    "labels": {
        "torchstrata.cell": "2.8-cu128",
        "torchstrata.torch": "2.8.0",
        "torchstrata.cuda": "12.8",
        "torchstrata.driver.floor": "525.60.13",
        "torchstrata.architectures": "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120",
    },
    "alternatives": [
        {"cell": "2.4-cu118", "torch": "2.4.1", "cuda": "11.8", "driver_floor": "450.80.02", "architectures": ["5.0", "6.0", "7.0", "8.0", "9.0"]},
        {"cell": "2.8-cu126", "torch": "2.8.0", "cuda": "12.6", "driver_floor": "525.60.13", "architectures": ["5.0", "6.0", "7.0", "8.0", "9.0"]},
    ],
}


@pytest.fixture(scope="module")
def driver(client, tmp_path_factory):
    """A directory with a driver library, made by the image's own compiler."""
    directory = tmp_path_factory.mktemp("driver")
    client.put("/tmp/libcuda.c", (CLIENTS / "libcuda.c").read_bytes())
    made = client.run("gcc", "-shared", "-fPIC", "-o", "/tmp/libcuda.so.1", "/tmp/libcuda.c")
    assert made.status == 0, made.err
    chunks, _ = client.container.get_archive("/tmp/libcuda.so.1")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        tarball.unpack(archive, directory)
    return directory


@pytest.fixture(scope="module")
def mounts(driver, expected, tmp_path_factory):
    """The driver, the device of a GPU, and facts of an image of our own."""
    directory = tmp_path_factory.mktemp("facts")
    (directory / "image.json").write_text(json.dumps(FACTS))
    (directory / "nvidiactl").touch()
    (directory / "nvidiactl").chmod(0o666)
    directory.chmod(0o755)
    libraries = f"/usr/lib/{platforms.MACHINES[expected.cell.platform]}-linux-gnu"
    volumes = mounted(driver / "libcuda.so.1", f"{libraries}/libcuda.so.1", "ro") | mounted(directory / "nvidiactl", "/dev/nvidiactl")
    return volumes | mounted(directory / "image.json", "/etc/torchstrata/image.json", "ro")


def seen(version, capability, init=0):
    """Return what makes the driver show a version and a GPU, or fail to begin."""
    return {"DRIVER": f"{version} {capability[0]} {capability[1]} {init}"}


@pytest.fixture
def facing(start, mounts):
    """Start containers that see a given driver and GPU: ``facing(version, (major, minor), "command", ...)``."""

    def begin(version, capability, *command, init=0, environment=None, **options):
        return start(*command, volumes=mounts, environment=seen(version, capability, init) | (environment or {}), **options)

    return begin


@pytest.fixture(scope="module")
def machine(start_shared, mounts):
    """A container in which many starts are tried, with the device and the driver, once its own is over: each begins with an empty state."""
    box = start_shared("sleep", "infinity", volumes=mounts, environment=seen(12080, (8, 0)))
    assert box.has_begun()
    return box


@pytest.fixture
def said(machine):
    """Return the lines of a start with a given driver and GPU, less those about the machine that the tests run on."""

    def begin(version, capability, init=0):
        done = machine.run("torchstrata-entrypoint", *CHECKED, env=seen(version, capability, init))
        assert (done.status, done.out) == (0, "ran\n"), done.err
        return worth_saying(done.err)

    return begin


def worth_saying(errors, quiet=QUIET):
    """Return the lines of a start, less those about the machine that the tests run on."""
    return [line for line in errors.splitlines() if not any(words in line for words in quiet)]


def complaints(box, quiet=QUIET):
    """Return the lines of a finished container's start, less those about the machine that the tests run on."""
    box.ended()
    return worth_saying(box.errors, quiet)


def test_fitting_driver_and_gpu(facing):
    """Where all fits nothing is said."""
    assert complaints(facing(12080, (8, 0), *CHECKED)) == []


@pytest.mark.parametrize("version", [12000, 12040, 13000, 13100])
def test_minor_versions_fit(said, version):
    """Any driver of the same or a later major version runs the image; 13.10 is later than 13.9."""
    assert said(version, (8, 0)) == []


def test_old_driver(facing):
    """A driver that is too old is named in words, with the image that fits; the command runs."""
    box = facing(11080, (8, 0), "echo", "ran")
    lines = complaints(box)
    needed = "the driver of this host supports CUDA 11.8, but 2.8-cu128 needs CUDA 12.0 (driver 525.60.13)"
    assert lines == [f"torchstrata: {needed} - use pytorch-cuda:2.4-cu118, or install driver 525.60.13 or newer on the host"]
    assert box.container.logs(stderr=False) == b"ran\n"


@pytest.mark.parametrize(("capability", "name"), [((6, 1), "6.1 (sm_61)"), ((5, 0), "5.0 (sm_50)")])
def test_foreign_generation(said, capability, name):
    """A GPU that torch has no code for is named, with an image of the same torch that has."""
    lines = said(12080, capability)
    assert len(lines) == 1
    assert f"no code for GPUs of compute capability {name}" in lines[0]
    assert lines[0].endswith("use pytorch-cuda:2.8-cu126 or pytorch-cuda:2.4-cu118")


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (9, 0), (10, 3), (12, 1), (7, 0)])
def test_served_generation(said, capability):
    """Code of the same major version and a smaller minor one serves a GPU."""
    assert said(12080, capability) == []


@pytest.mark.parametrize(("version", "capability", "status"), [(12080, (8, 0), 0), (11080, (8, 0), 69), (12080, (6, 1), 69)])
def test_required_gpu(facing, version, capability, status):
    """``TORCHSTRATA_REQUIRE_GPU=1`` makes a misfit fatal, and nothing else does."""
    assert facing(version, capability, "true", environment={"TORCHSTRATA_REQUIRE_GPU": "1"}).ended() == status


def test_required_gpu_without_any(start, tmp_path):
    """``TORCHSTRATA_REQUIRE_GPU=1`` on a host without GPUs ends the container."""
    (tmp_path / "image.json").write_text(json.dumps(FACTS))
    box = start("true", environment={"TORCHSTRATA_REQUIRE_GPU": "1"}, volumes=mounted(tmp_path / "image.json", "/etc/torchstrata/image.json", "ro"))
    assert box.ended() == 69
    assert "no GPU is visible" in box.errors


@pytest.mark.parametrize("code", [803, 804])
def test_driver_that_fails(said, code):
    """The driver's own errors are put into words."""
    lines = said(12080, (8, 0), init=code)
    assert len(lines) == 1
    assert f"CUDA error {code}" in lines[0]


def test_driver_without_devices(facing):
    """A driver whose devices are hidden, as by ``CUDA_VISIBLE_DEVICES=``, is not taken for a GPU, at the start or by the doctor."""
    box = facing(12080, (8, 0), "sleep", "infinity", init=100)
    rows = json.loads(box.run("torchstrata-doctor", "--quick", "--json").out)
    assert [(row["severity"], row["what"]) for row in rows if row["subject"] == "gpu"] == [("warning", "a driver is here but no GPU is visible")]
    box.wait_for("a driver is here but no GPU is visible")


def test_low_memlock(facing):
    """A low limit of locked memory is complained about where there is a GPU."""
    lines = complaints(facing(12080, (8, 0), "true", ulimits=[Ulimit(name="memlock", soft=65536, hard=65536)]), QUIET[:1])
    assert lines == ["torchstrata: only 64 kB of memory may be locked: NCCL over InfiniBand will fail - add --ulimit memlock=-1"]


def test_gpu_that_was_taken_away(start, tmp_path):
    """A GPU that may no longer be opened, as after ``systemctl daemon-reload`` on the host, is named with its cure; the doctor calls it an error."""
    device = tmp_path / "nvidiactl"
    made = start("-m", "666", "/made/nvidiactl", "c", "195", "255", entrypoint=["mknod"], user="0:0", volumes=mounted(tmp_path, "/made"))
    assert made.ended() == 0, made.log
    (tmp_path / "image.json").write_text(json.dumps(FACTS))
    volumes = mounted(device, "/dev/nvidiactl") | mounted(tmp_path / "image.json", "/etc/torchstrata/image.json", "ro")
    box = start("torchstrata-doctor", "--quick", "--json", volumes=volumes)
    assert complaints(box) == [
        "torchstrata: the GPU may not be opened (as after systemctl daemon-reload on the host) - start the container anew",
        "torchstrata: a GPU is here but no driver library - let the engine pass it in: NVIDIA_DRIVER_CAPABILITIES=compute,utility and the NVIDIA toolkit",
    ]
    rows = json.loads(box.container.logs(stderr=False))
    assert [row["severity"] for row in rows if row["subject"] == "gpu"] == ["error"]


def test_small_shared_memory(start):
    """The engine's default of 64 MB is complained about; more is not."""
    small, large = start("true", shm_size="64m"), start("true", shm_size="65m")
    assert any("/dev/shm has 64 MB" in line and "--shm-size=8g or --ipc=host" in line for line in complaints(small))
    assert not any("/dev/shm" in line for line in complaints(large))


def test_shadowed_libraries(start):
    """A cuDNN or NCCL on the library path that is not torch's is named."""
    script = "mkdir -p /tmp/old && touch /tmp/old/libcudnn.so.8 && exec torchstrata-entrypoint true"
    box = start("sh", "-c", script, environment={"LD_LIBRARY_PATH": "/opt/cuda/lib:/tmp/old"})
    assert any("/tmp/old on LD_LIBRARY_PATH has libcudnn.so.8, which can shadow" in line for line in complaints(box))


def test_doctor_finds_the_same(facing):
    """The doctor reports a misfit as an error, as text and as JSON."""
    box = facing(11080, (6, 1), "sleep", "infinity")
    text, data = box.run("torchstrata-doctor", "--quick"), box.run("torchstrata-doctor", "--quick", "--json")
    assert (text.status, data.status) == (2, 2)
    assert {"driver", "gpu"} <= {row["subject"] for row in json.loads(data.out) if row["severity"] == "error"}
    assert "error    driver" in text.out
