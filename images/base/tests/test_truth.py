"""Is an image what its tag says? Every fact is compared with the cell, its locks and the recorded facts."""

from __future__ import annotations

import json
import re

import pytest
from packaging.version import Version

from torchstrata import platforms
from torchstrata.image import runtime
from torchstrata.locks import os_locks
from torchstrata.matrix import compat

ENVIRONMENT_LINKS = {"python", "python3"}
"""What the environment has beside its packages' files, with the minor version's own link."""

NO_CPU = re.compile(r"^.*Can't open MIDR_EL1 sysfs entry\n", re.MULTILINE)
"""What oneDNN says where ``/sys`` is of another CPU, as under emulation (docs/arm64.md)."""


@pytest.fixture(scope="module")
def distributions(probe):
    """Every installed distribution, checked file by file."""
    return probe("distributions")


@pytest.fixture(scope="module")
def document(host):
    """The facts file of the image."""
    return json.loads(host.check_output("cat /etc/torchstrata/image.json"))


def test_torch_is_the_cell_s(torch_facts, expected):
    """Torch is the release and the build of the cell, made from the commit that upstream tagged."""
    assert Version(torch_facts["torch"]).base_version == expected.cell.version
    assert Version(torch_facts["torch"]).local in {None, expected.cell.wheels}
    assert torch_facts["git"].startswith(expected.facts.git)


def test_cuda_of_torch(torch_facts, expected):
    """``torch.version.cuda`` is the cell's CUDA, or nothing in a cell without."""
    assert torch_facts["cuda"] == expected.facts.cuda_version


@pytest.mark.cuda
def test_cudnn(torch_facts, expected, locked_cuda):
    """The cuDNN that answers is the locked one, and the one that this torch was published with."""
    assert locked_cuda("cudnn") == expected.facts.cudnn
    major, minor, patch = map(int, locked_cuda("cudnn").split(".")[:3])
    # cuDNN 9 made room for minor versions of two digits.
    assert torch_facts["cudnn"] == (major * 10_000 + minor * 100 + patch if major >= 9 else major * 1000 + minor * 100 + patch)


@pytest.mark.cuda
def test_nccl(torch_facts, expected, locked_cuda):
    """The NCCL that answers is the locked one, and the one that this torch was published with."""
    assert locked_cuda("nccl") == expected.facts.nccl == torch_facts["nccl"]
    assert torch_facts["nccl_available"]


@pytest.mark.cuda
def test_architectures(torch_facts, expected):
    """Torch has code for the GPU generations that the facts and the label name, in machine code and nothing else."""
    named = [f"sm_{name.replace('.', '')}" for name in expected.facts.architectures]
    assert torch_facts["architectures"] == named
    assert expected.labels["torchstrata.architectures"].split() == named


def test_no_gpu_is_no_noise(torch_facts, expected):
    """Without a GPU, a program that asks for one gets a plain no, with nothing on standard error."""
    stderr = torch_facts["stderr"]
    said = stderr if platforms.is_native(expected.cell.platform) else NO_CPU.sub("", stderr)
    assert (torch_facts["available"], torch_facts["devices"], said) == (False, 0, "")


def test_companions(torch_facts, expected):
    """Torchvision, torchaudio and triton are the locked ones, by their own word, and absent where they are not locked."""
    locked = {name: expected.versions.get(name) for name in ("torchvision", "torchaudio", "triton")}
    found = {name: torch_facts[name] and Version(torch_facts[name]).public for name in locked}
    assert found == {name: version and Version(version).public for name, version in locked.items()}


def test_python(torch_facts, expected):
    """Python is the OS's, as its lock says, in the environment that comes first."""
    assert torch_facts["python"] == expected.os_python
    assert (torch_facts["executable"], torch_facts["prefix"]) == (f"{runtime.VENV}/bin/python", runtime.VENV)
    assert torch_facts["stdlib"] == f"/usr/lib/python{expected.cell.os.python}"


def test_os_release(host, expected):
    """The OS is the cell's."""
    lines = host.check_output("cat /etc/os-release").replace('"', "").splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    system = expected.cell.os
    assert (release["ID"], release["VERSION_ID"], release["VERSION_CODENAME"]) == (system.distribution, system.release, system.suite)


def test_os_packages(host, expected):
    """The OS packages are the locked ones, but for those whose drift the build has recorded: none more, none less, none of another version."""
    found = os_locks.installed(host.check_output("cat /var/lib/dpkg/status"))
    moves = os_locks.moves(expected.os_packages, found)
    assert not moves, "OS packages differ from the lock and the drift on record: " + ", ".join(map(str, moves))


def test_drift(host, expected, document):
    """The drift on record, in the label and in ``image.json``, is how the OS packages differ from the lock; an image as locked records none."""
    moves = os_locks.moves(expected.locked_os_packages, os_locks.installed(host.check_output("cat /var/lib/dpkg/status")))
    assert expected.drift == moves, f"the label says {os_locks.state(expected.drift)}, dpkg says {os_locks.state(moves)}"
    assert document.get("drift", []) == [{"package": move.package, "locked": move.locked, "found": move.found} for move in moves]


def test_distributions(distributions, expected):
    """The Python packages are the locked ones: none more, none less, none twice, none of another version."""
    moves = os_locks.moves(expected.versions, distributions["installed"])
    assert not moves, "packages differ from the lock: " + ", ".join(map(str, moves))
    assert distributions["twice"] == []


def test_every_recorded_file(distributions):
    """Every file of every distribution has the bytes that its RECORD says; only a RECORD cannot list its own hash."""
    assert distributions["missing"] == []
    assert distributions["changed"] == []
    assert [path for path in distributions["unhashed"] if not path.endswith(".dist-info/RECORD")] == []
    assert distributions["files"] > 100 * len(distributions["installed"]) > 0, "hardly any files were looked at"


OF_TOOLCHAIN = (
    "include/cudaProfiler.h",
    "include/cuda_profiler_api.h",
    "include/cudnn.h",
    "include/nvml.h",
    "lib/stubs/libcuda.so",
    "lib/stubs/libnvidia-ml.so",
)
"""What ``devel`` adds to the directory of CUDA 13's compiler, which comes as wheels; CUDA 12's has a directory of its own."""


def of_toolchain(expected):
    """Return what ``devel`` adds to a directory that wheels have brought."""
    nvcc = expected.facts.nvcc
    if "devel" not in expected.lineage or nvcc is None or nvcc.toolchain:
        return set()
    return {f"/opt/cuda/nvidia/cu{expected.facts.cuda_version.partition('.')[0]}/{path}" for path in OF_TOOLCHAIN}


def test_no_unknown_file(distributions, expected):
    """Beside the interpreter's links, what each Python does at its start and the toolchain, there is no file that no distribution has brought."""
    links = {f"{runtime.VENV}/bin/{name}" for name in {*ENVIRONMENT_LINKS, f"python{expected.cell.os.python}"}}
    assert set(distributions["unknown"]) == links | of_toolchain(expected) | {f"/{path}" for path in runtime.python_start(expected.cell, expected.lineage)}


def test_labels(inspect, expected):
    """Every label is what the cell and its lock make of it, and there are no others; the revision is the build's own."""
    found, due = dict(inspect["Config"]["Labels"]), expected.labels
    revision = "org.opencontainers.image.revision"
    assert found.pop(revision, "") != ""
    due.pop(revision)
    assert found == due


def test_environment(inspect, expected):
    """The image's environment is what the cell and the flavour make of it, with the user's name and home where it starts as the user."""
    found = dict(line.split("=", 1) for line in inspect["Config"]["Env"])
    person = runtime.PERSON if inspect["Config"]["User"] == runtime.DEV else {}
    assert found == runtime.environment(expected.cell, expected.lineage) | dict(person)


def test_facts_file(document, expected):
    """``image.json`` has the labels and every package of the lock."""
    revision = "org.opencontainers.image.revision"
    assert {name: value for name, value in document["labels"].items() if name != revision} == {
        name: value for name, value in expected.labels.items() if name != revision
    }
    assert document["packages"] == expected.versions


def test_facts_file_and_labels_agree(document, inspect):
    """What ``docker inspect`` shows and what the file says is the same, the revision too."""
    assert document["labels"] == inspect["Config"]["Labels"]


@pytest.mark.container
def test_constraints(host, expected):
    """What installs may not replace is what is installed: torch and all of its CUDA build."""
    assert host.check_output("cat %s", runtime.CONSTRAINTS) + "\n" == runtime.constraints(expected.lock)
    assert f"torch=={expected.versions['torch']}" in runtime.constraints(expected.lock).splitlines()


def test_tag(request, inspect, expected):
    """A tag of ours says cell and flavour in its words; an image under a foreign name must at least say them in its title."""
    assert inspect["Config"]["Labels"]["org.opencontainers.image.title"] == f"{expected.cell.id}-{expected.flavour}"
    ours = {f"{name}-{expected.flavour}" for name in expected.cell.names} | ({f"v{expected.cell.torch}"} if expected.cell.named else set())
    tag = request.config.option.image.rpartition(":")[2].removesuffix(platforms.suffix(expected.cell.platform))
    claims = compat.facts().torch.keys() & {tag.partition("-")[0], tag.removeprefix("v")}
    assert not claims or tag in ours, f"the tag {tag} is not one of {sorted(ours)}"
