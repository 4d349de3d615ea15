"""What images tell their users, for real cells and locks."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from container import facts, gpu

from tests.declared import declared
from torchstrata.image import runtime
from torchstrata.locks import wheel_locks
from torchstrata.matrix import matrix
from torchstrata.matrix.flavours import Flavour
from torchstrata.matrix.schema import HealthSettings, ServiceSettings

MATRIX = matrix.load()
FLAVOURS = tuple(MATRIX.flavours)
REVISION = "0123456789abcdef"


def cell_of(short):
    """Return a cell by its short id."""
    return matrix.select(MATRIX, short)[0]


def describe(short, flavour="base", **options):
    """Describe an image."""
    cell = cell_of(short)
    return runtime.describe(cell, MATRIX.lineage(flavour), wheel_locks.read(cell, flavour), REVISION, **options)


def test_the_asked_cuda_and_torchs_own_are_both_told():
    """2.8-cu121 is named after 12.1 and carries 12.8 in its labels, with the oldest driver and all GPU generations."""
    labels, facts = describe("2.8-cu121").labels, cell_of("2.8-cu121").facts
    assert labels["torchstrata.cuda.asked"] == "12.1"
    assert labels["torchstrata.cuda"] == "12.8"
    assert labels["torchstrata.driver.floor"] == facts.driver_floor == "525.60.13"
    assert labels["torchstrata.architectures"].split()[:1] + labels["torchstrata.architectures"].split()[-1:] == ["sm_70", "sm_120"]
    assert "CUDA 12.8 (for hosts of CUDA 12.1)" in labels["org.opencontainers.image.description"]
    assert describe("2.8-cu121", "devel").labels["torchstrata.architectures.nvcc-lacks"] == "sm_100 sm_120"


@pytest.mark.parametrize(("user", "named"), [(runtime.DEV, dict(runtime.PERSON)), (runtime.ROOT, {})])
def test_the_user_has_a_name(user, named):
    """Where no entrypoint runs, the environment says who the user is; a container that starts as root is not told to be ``dev``."""
    env = describe("2.13-cpu", user=user).env
    assert {name: env[name] for name in runtime.PERSON if name in env} == named


def test_the_driver_is_asked_for_by_major_version():
    """Any driver of CUDA 12 will do; with ``CUDA_VERSION`` set the NVIDIA runtime would ask for that very version."""
    env = describe("2.8-cu121").env
    assert env["NVIDIA_REQUIRE_CUDA"] == "cuda>=12.0"
    assert "CUDA_VERSION" not in env


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_cpu_image_says_nothing_of_cuda(flavour):
    """No variable and no label of an image for machines without a GPU names CUDA or NVIDIA."""
    found = describe("2.13-cpu", flavour)
    assert [name for name in found.env if "CUDA" in name or "NVIDIA" in name or "NVCC" in name or name == "LD_LIBRARY_PATH"] == []
    assert [name for name in found.labels if any(word in name for word in ("cuda", "driver", "nvcc", "architectures"))] == []


def test_cuda_home_is_where_the_compiler_lies():
    """CUDA 12 has a toolchain of its own, CUDA 13 its wheels; nvcc is on the path and knows its host compiler; base has none."""
    old, new = describe("2.8-cu121", "devel").env, describe("2.15-cu132", "devel").env
    assert (old["CUDA_HOME"], new["CUDA_HOME"]) == ("/opt/cuda-12.4", "/opt/cuda/nvidia/cu13")
    for env, cell in ((old, cell_of("2.8-cu121")), (new, cell_of("2.15-cu132"))):
        assert env["PATH"].split(":")[:3] == [runtime.SHIMS, "/opt/venv/bin", f"{env['CUDA_HOME']}/bin"]
        assert env["NVCC_PREPEND_FLAGS"] == f"-ccbin /usr/bin/{cell.host_compiler}"
        assert env["LIBRARY_PATH"] == f"{env['CUDA_HOME']}/lib64/stubs"
    assert "CUDA_HOME" not in describe("2.8-cu121").env


@pytest.mark.parametrize(
    ("short", "said"), [("2.8-cu121", "7.0;7.5;8.0;8.6;9.0+PTX"), ("2.15-cu132", "7.5;8.0;8.6;9.0;10.0;12.0"), ("2.4-cu121", "5.0;6.0;7.0;7.5;8.0;8.6;9.0")]
)
def test_extensions_are_built_for_what_torch_and_nvcc_know(short, said):
    """PTX of the last generation stands in for the newer ones that nvcc does not know."""
    assert runtime.architectures(cell_of(short)) == said


@pytest.mark.parametrize(("short", "lineage"), [("2.8-cu121", ("base",)), ("2.13-cpu", ("base", "devel"))])
def test_without_nvcc_python_is_told_nothing(short, lineage):
    """Where there is no compiler for GPUs, no architecture is named."""
    assert runtime.python_start(cell_of(short), lineage) == {}


@pytest.fixture
def told(tmp_path):
    """Return a function that gives what TORCH_CUDA_ARCH_LIST is after the line for Python's start, with the variables given."""
    (text,) = runtime.python_start(cell_of("2.8-cu121"), ("base", "devel")).values()
    (line,) = (line for line in text.splitlines() if line.startswith("import "))

    def run(**environment):
        script = f"{line}\nprint(os.environ.get('TORCH_CUDA_ARCH_LIST'))"
        return subprocess.run([sys.executable, "-I", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return run


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_python_says_what_to_build_for_where_no_gpu_is_visible(told, hidden):
    """It does so where GPUs are hidden, too; an empty value is none."""
    assert told(CUDA_VISIBLE_DEVICES=hidden, TORCH_CUDA_ARCH_LIST="") == "7.0;7.5;8.0;8.6;9.0+PTX"


def test_what_the_user_says_stays(told):
    """A given list is not touched."""
    assert told(CUDA_VISIBLE_DEVICES="", TORCH_CUDA_ARCH_LIST="8.9") == "8.9"


def test_children_keep_the_environment_of_their_parent():
    """What a flavour adds changes no variable of the one below, but for the path to the compiler."""
    images = {flavour: describe("2.8-cu121", flavour).env for flavour in FLAVOURS}
    parents = {flavour: MATRIX.flavours[flavour].parent for flavour in FLAVOURS}
    for child in (flavour for flavour, parent in parents.items() if parent and flavour != "devel"):
        assert dict(images[child]) == dict(images[parents[child]])
    assert images["base"].items() - images["devel"].items() == {("PATH", images["base"]["PATH"])}


def test_the_lock_and_the_revision_are_told():
    """Labels lead back to what an image was made from. The clock is no input: two builds of a commit are equal."""
    found, lock = describe("2.13-cpu"), wheel_locks.read(cell_of("2.13-cpu"), "base")
    assert found.labels["torchstrata.lock"] == lock.digest
    assert found.labels["org.opencontainers.image.revision"] == REVISION
    assert found.created == found.labels["org.opencontainers.image.created"] == lock.exclude_newer


def test_ports_are_those_of_the_services():
    """A flavour that has a service declares its port, and those of its parents."""
    own = {"jupyter": (8888,), "ssh": (8888, 22), "vision": (8888,), "serve": (8000,)}
    assert {flavour: describe("2.13-cpu", flavour).ports for flavour in FLAVOURS} == {"base": (), "devel": ()} | own


def test_users_and_start():
    """Images start as uid 1000 of group 0 in the workspace; the named variant as root."""
    found = describe("2.13-cpu")
    assert (found.user, found.workdir, found.command) == ("1000:0", "/workspace", ("bash",))
    assert describe("2.13-cpu", user=runtime.ROOT).user == "0:0"


def test_constraints_name_torch_and_its_libraries_alone():
    """Torch and its CUDA stay; numpy may move."""
    cell = cell_of("2.8-cu121")
    lock = wheel_locks.read(cell, "base")
    lines = [line for line in runtime.constraints(lock).splitlines() if not line.startswith("#")]
    names = {line.partition("==")[0] for line in lines}
    versions = {pin.name: pin.version for pin in lock.pins}
    assert lines == [f"{name}=={versions[name]}" for name in sorted(names)]
    assert {"torch", "torchvision", "torchaudio", "triton"} <= names
    assert {pin.name for pin in lock.pins if pin.name.startswith("nvidia-")} <= names
    assert "numpy" not in names


def test_files_repeat_the_labels_and_list_the_packages():
    """Inside a container image.json says what ``docker inspect`` says outside."""
    cell = cell_of("2.13-cpu")
    lock, told = wheel_locks.read(cell, "base"), describe("2.13-cpu")
    files = runtime.files(told, lock, [{"cell": "2.10-cu128"}], MATRIX.lineage("base"))
    assert set(files) == {"etc/torchstrata/image.json", "etc/torchstrata/constraints.txt", "etc/torchstrata/environment.sh"}
    packages = {pin.name: pin.version for pin in lock.pins}
    assert json.loads(files["etc/torchstrata/image.json"]) == {"labels": dict(told.labels), "packages": packages, "alternatives": [{"cell": "2.10-cu128"}]}
    assert told.env["PIP_CONSTRAINT"] == told.env["UV_CONSTRAINT"] == "/etc/torchstrata/constraints.txt"


def test_alternatives_are_other_wheels_of_the_same_or_an_older_torch():
    """An image names cells that a host may need instead; a newer torch in the matrix changes no older image."""
    found = {row["cell"]: row for row in runtime.alternatives(MATRIX, cell_of("2.8-cu121"))}
    assert "2.8-cu126" in found
    assert not {"2.8-cu121", "2.8-cu128", "2.15-cu132"} & found.keys()
    assert found["2.4-cu121"]["cuda"] == "12.1"
    assert found["2.4-cu121"]["architectures"] == list(cell_of("2.4-cu121").facts.architectures)


def test_what_image_json_lists_is_what_the_start_reads(tmp_path):
    """An old GPU gets the name of an image of the matrix that has code for it, of the same flavour."""
    cell = cell_of("2.15-cu132")
    told = describe("2.15-cu132", "ssh")
    path = tmp_path / "image.json"
    path.write_text(runtime.files(told, wheel_locks.read(cell, "ssh"), runtime.alternatives(MATRIX, cell), MATRIX.lineage("ssh"))["etc/torchstrata/image.json"])
    fix = gpu.judge_driver((12, 8), facts.read(path)).fix
    named = re.findall(r"pytorch-cuda:([\w.-]+)-ssh", fix)
    able = [other for other in MATRIX.cells if other.is_default_os and other.release < cell.release and other.facts.driver_floor == "525.60.13"]
    assert set(named) <= {other.short for other in able}
    assert named[0] == max(able, key=lambda other: other.release).short


def test_exports_give_back_the_environment():
    """A shell that has nothing gets the image's variables by the script, but who the user is, which it knows better."""
    described = describe("2.8-cu121", "devel")
    done = subprocess.run(["env", "-i", "/bin/sh", "-c", f"{runtime.exports(described)}/usr/bin/env -0"], capture_output=True, check=True, text=True)
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert {name: found.get(name) for name in described.env} == {**described.env, **dict.fromkeys(runtime.PERSON)}


def test_an_image_lists_the_services_of_its_chain():
    """The services are those of parents, then its own, each with what its flavour has said of it and no more; without any there is no file."""
    path, lock = "etc/torchstrata/services.json", wheel_locks.read(cell_of("2.13-cpu"), "ssh")
    found = {flavour: runtime.files(describe("2.13-cpu", flavour), lock, [], MATRIX.lineage(flavour)).get(path) for flavour in FLAVOURS}
    assert (found["base"], found["devel"]) == (None, None)
    rows = json.loads(found["ssh"])["services"]
    assert [(name, row["flavour"], row["port"]) for name, row in rows.items()] == [("jupyter", "jupyter", 8888), ("ssh", "ssh", 22)]
    assert (rows["jupyter"]["health"], rows["ssh"]["health"]) == ({"http": "/api"}, {"banner": "SSH-2.0-"})
    assert "port_variable" not in rows["ssh"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_container_can_read_every_service(flavour):
    """What a flavour may say of a service, the runtime of its image understands."""
    read = declared(flavour)
    assert [(one.name, one.port, one.variable) for one in read] == [(one.name, one.port, one.variable) for one in MATRIX.services(flavour)]
    assert [one.trouble for one in read if one.trouble] == []


@pytest.mark.parametrize(
    ("commands", "command"), [([], ("bash",)), ([("python",)], ("python",)), ([("python",), None], ("python",)), ([("python",), ("htop",)], ("htop",))]
)
def test_command_of_an_image_without_services(commands, command):
    """It is that of the flavour, else of the nearest parent that has one, else a shell."""
    lineage = [Flavour(name=f"f{number}", summary="x", command=words) for number, words in enumerate(commands)]
    assert runtime.command(lineage) == command


def test_the_command_gives_way_to_services():
    """An engine adds nothing to the entrypoint where there are services; their file says what runs if none of them starts."""
    service = ServiceSettings(command=("/bin/serve",), port=1, health=HealthSettings(tcp=True), starts="asked")
    lineage = [Flavour(name="base", summary="x", command=("python",)), Flavour(name="gym", summary="x", services={"gym": service})]
    lock = wheel_locks.read(cell_of("2.13-cpu"), "base")
    assert (runtime.describe(cell_of("2.13-cpu"), lineage, lock, REVISION).command, runtime.command(lineage)) == ((), ("python",))
    document = json.loads(runtime.services_file(lineage))
    assert document["command"] == ["python"]
    row = {"command": ["/bin/serve"], "port": 1, "health": {"tcp": True}, "starts": "asked", "flavour": "gym"}
    assert document["services"] == {"gym": row}
