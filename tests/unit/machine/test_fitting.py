"""Which cells run on which driver and GPU, why others do not, and that images say the same of themselves."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from container import facts as image_facts
from container import gpu as image_gpu

from torchstrata.errors import MachineError
from torchstrata.image import runtime
from torchstrata.machine import fitting
from torchstrata.machine.fitting import Accelerator, Hardware
from torchstrata.matrix import compat, matrix
from torchstrata.matrix.matrix import Cell

SYSTEM = next(iter(matrix.load().systems.values()))
FITS, LIMITED, DRIVER, GPU, BOTH, YOUNG = "fits", "fits within limits", "driver", "gpu", "driver and gpu", "gpu that the driver does not know"

DRIVERS = ("470.256.02", "525.60.13", "530.30.02", "550.54.14", "570.26", "580.65.06", "595.45.04")
TABLE = {
    ("2.4", "cu121"): {
        "5.2": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "6.1": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "7.0": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "7.5": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "8.0": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "8.9": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "9.0": (DRIVER, LIMITED, FITS, FITS, FITS, FITS, FITS),
        "10.0": (BOTH, YOUNG, YOUNG, YOUNG, GPU, GPU, GPU),
        "12.0": (BOTH, YOUNG, YOUNG, YOUNG, GPU, GPU, GPU),
    },
    ("2.8", "cu126"): {
        "5.2": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "9.0": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "12.0": (BOTH, YOUNG, YOUNG, YOUNG, GPU, GPU, GPU),
    },
    ("2.10", "cu128"): {
        "3.7": (BOTH, GPU, GPU, GPU, GPU, GPU, GPU),
        "6.1": (BOTH, GPU, GPU, GPU, GPU, GPU, GPU),
        "7.0": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "7.2": (BOTH, GPU, GPU, GPU, GPU, GPU, GPU),
        "8.6": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "8.7": (BOTH, GPU, GPU, GPU, GPU, GPU, GPU),
        "8.9": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "9.0": (DRIVER, LIMITED, LIMITED, LIMITED, FITS, FITS, FITS),
        "10.0": (BOTH, YOUNG, YOUNG, YOUNG, FITS, FITS, FITS),
        "10.3": (BOTH, YOUNG, YOUNG, YOUNG, YOUNG, FITS, FITS),
        "11.0": (BOTH, YOUNG, YOUNG, YOUNG, YOUNG, GPU, GPU),
        "12.0": (BOTH, YOUNG, YOUNG, YOUNG, FITS, FITS, FITS),
        "12.1": (BOTH, YOUNG, YOUNG, YOUNG, YOUNG, FITS, FITS),
    },
    ("2.14", "cu130"): {
        "7.0": (BOTH, BOTH, BOTH, BOTH, BOTH, GPU, GPU),
        "7.5": (DRIVER, DRIVER, DRIVER, DRIVER, DRIVER, FITS, FITS),
        "12.0": (BOTH, BOTH, BOTH, BOTH, DRIVER, FITS, FITS),
    },
    ("2.15", "cu132"): {
        "7.0": (BOTH, BOTH, BOTH, BOTH, BOTH, GPU, GPU),
        "7.5": (DRIVER, DRIVER, DRIVER, DRIVER, DRIVER, LIMITED, FITS),
        "8.0": (DRIVER, DRIVER, DRIVER, DRIVER, DRIVER, LIMITED, FITS),
        "9.0": (DRIVER, DRIVER, DRIVER, DRIVER, DRIVER, LIMITED, FITS),
        "10.3": (BOTH, BOTH, BOTH, BOTH, BOTH, LIMITED, FITS),
        "12.0": (BOTH, BOTH, BOTH, BOTH, DRIVER, LIMITED, FITS),
    },
    ("2.13", "cpu"): {"9.0": (FITS,) * 7, "3.5": (FITS,) * 7},
}
"""By torch, build and generation: what comes of each driver."""


def outcomes():
    """Yield torch, build, generation and driver with what comes of them."""
    for (torch, wheels), generations in TABLE.items():
        for generation, of_drivers in generations.items():
            for driver, outcome in zip(DRIVERS, of_drivers, strict=True):
                yield torch, wheels, generation, driver, outcome


ROWS = [*outcomes()]


def cell(torch, wheels, cuda=None):
    """Return a cell of a build, whether or not the matrix has it."""
    return Cell(torch=torch, cuda=cuda or wheels, wheels=wheels, os=SYSTEM, companions=(), is_default_os=True, named=False)


def hardware(driver="", *generations, name=""):
    """Return a machine."""
    return Hardware(driver=driver, gpus=tuple(Accelerator(capability=fitting.generation(text), name=name) for text in generations))


def outcome_of(found):
    """Return what came out, in the words of the table."""
    if found.runs:
        return LIMITED if any("older than" in limit for limit in found.limits) else FITS
    told = {DRIVER: any("is older than" in why for why in found.reasons), GPU: any("no code" in why for why in found.reasons)}
    if any("knows no" in why for why in found.reasons):
        return BOTH if told[DRIVER] else YOUNG
    return BOTH if all(told.values()) else DRIVER if told[DRIVER] else GPU


@pytest.mark.parametrize(("torch", "wheels", "generation", "driver", "outcome"), ROWS)
def test_cell_on_driver_and_gpu(torch, wheels, generation, driver, outcome):
    """Minor-version compatibility of drivers, machine code by major generation, generations that a driver is too old for."""
    found = fitting.judge(cell(torch, wheels), hardware(driver, generation))
    assert outcome_of(found) == outcome
    assert len(found.reasons) == len(found.cures)
    assert found.uses_gpu is (found.runs and wheels != "cpu")


def image_of(one):
    """Return what an image of a cell knows about itself, as its file has it."""
    labels = runtime.labels(one, "base", LOCK, "unknown")
    named = {name.removeprefix("torchstrata."): value for name, value in labels.items()}
    return image_facts._facts(named | {"driver_floor": named.get("driver.floor")})


LOCK = SimpleNamespace(digest="0" * 64, exclude_newer="2026-11-01")
"""The two facts of a lock that labels have."""


def supported_by(driver):
    """Return the newest CUDA that a driver supports, as the driver itself says it."""
    known = [name for name, cuda in compat.facts().cuda.items() if cuda.driver and fitting.at_least(driver, cuda.driver)]
    return max(tuple(map(int, name.split("."))) for name in known) if known else (11, 4)


@pytest.mark.parametrize(("torch", "wheels", "generation", "driver", "outcome"), ROWS)
def test_images_judge_as_the_host_does(torch, wheels, generation, driver, outcome):
    """What the preflight of a container complains of is what its host was told, but for what no container can meet: a GPU without its driver."""
    host = fitting.judge(cell(torch, wheels), hardware("" if outcome == YOUNG else driver, generation))
    one = image_of(cell(torch, wheels))
    device = fitting.generation(generation)
    is_told = bool(image_gpu.judge_driver(supported_by(driver), one) or image_gpu.judge_generations([device], one))
    assert is_told is not host.runs


@pytest.mark.parametrize(
    ("code", "device"), [*itertools.product([((7, 0), (8, 0), (8, 6), (9, 0)), ((5, 0),), ()], itertools.product(range(5, 13), range(10)))]
)
def test_code_serves_devices_as_in_images(code, device):
    """One rule, in two programs that share no code."""
    assert fitting.serves(code, device) == image_gpu.served(device, code)


@pytest.mark.parametrize(("generation", "runs", "says"), [("12.1", True, "only PTX for sm_121"), ("11.0", False, "no code for sm_110")])
def test_ptx_is_compiled_for_later_generations(generation, runs, says, monkeypatch):
    """Where a wheel has PTX, a later generation than its code runs it, on a driver that is not older than its CUDA."""
    found = _with_ptx(monkeypatch, ("12.0",), hardware("580.65.06", generation))
    assert found.runs is runs
    assert says in "; ".join(found.limits + found.reasons)


def test_ptx_needs_the_driver_of_its_cuda(monkeypatch):
    """Minor-version compatibility ends there."""
    found = _with_ptx(monkeypatch, ("12.0",), hardware("580.65.06", "12.1"), wheels="cu132", torch="2.15")
    assert found.reasons == ("sm_121 has only PTX, which needs driver 595.45.04, that of CUDA 13.2",)


def _with_ptx(monkeypatch, ptx, machine, wheels="cu130", torch="2.14"):
    """Judge a build whose machine code ends with sm_90, and which has PTX."""
    real = compat.facts()
    release = real.torch[torch]
    build = compat.msgspec.structs.replace(release.builds[wheels], architectures=("8.0", "9.0"), ptx=ptx)
    release = compat.msgspec.structs.replace(release, builds={**release.builds, wheels: build})
    with compat.supposing(compat.msgspec.structs.replace(real, torch={**real.torch, torch: release})):
        return fitting.judge(cell(torch, wheels), machine)


@pytest.mark.parametrize(
    ("name", "generation", "is_for_data_centres"),
    [
        ("NVIDIA H200", "9.0", True),
        ("NVIDIA A100-SXM4-80GB", "8.0", True),
        ("NVIDIA GH200 480GB", "9.0", True),
        ("Tesla T4", "7.5", True),
        ("Tesla V100-PCIE-16GB", "7.0", True),
        ("NVIDIA L40S", "8.9", True),
        ("NVIDIA GeForce RTX 4090", "8.9", False),
        ("NVIDIA TITAN V", "7.0", False),
        ("Quadro RTX 6000", "7.5", False),
        ("NVIDIA RTX A6000", "8.6", None),
        ("", "9.0", True),
        ("", "8.9", None),
    ],
)
def test_forward_compatibility_is_for_data_centres(name, generation, is_for_data_centres):
    """What may help is said of those, refused for others, and left open where nobody can tell."""
    machine = hardware("530.30.02", generation, name=name)
    assert machine.gpus[0].is_for_data_centres is is_for_data_centres
    (cure, *_) = fitting.judge(cell("2.15", "cu132"), machine).cures
    assert cure.startswith("install driver 580 or newer")
    says = {True: "on these data-centre GPUs NVIDIA's cuda-compat-13-2 does", False: "for data-centre GPUs only", None: "if these are data-centre GPUs"}
    assert says[is_for_data_centres] in cure


CELLS = matrix.load().cells


@pytest.mark.parametrize(
    ("driver", "generation", "torch", "cuda"),
    [
        ("530.30", "sm_70", "2.10", "cu128"),
        ("595.45.04", "9.0", "2.15", "cu132"),
        ("580.65.06", "12.0", "2.15", "cu132"),
        ("570.26", "sm_120", "2.10", "cu128"),
        ("550.54.14", "sm_61", "2.8", "cu126"),
        ("470.10", "8.0", "2.13", "cpu"),
        ("", "7.0", "2.10", "cu128"),
        ("535.54.03", "", "2.10", "cu128"),
    ],
)
def test_the_newest_torch_that_runs_is_recommended(driver, generation, torch, cuda):
    """On the default OS; without a GPU that fits, one that needs none. A driver or a GPU alone counts alone."""
    machine = hardware(driver, *filter(None, [generation]))
    best = fitting.recommended([fitting.judge(one, machine) for one in CELLS])
    assert (best.cell.torch, best.cell.cuda, best.cell.is_default_os) == (torch, cuda, True)


def test_machines_without_gpu_take_a_cell_without_cuda():
    """The others run, too."""
    found = [fitting.judge(one, Hardware()) for one in CELLS]
    assert all(one.runs for one in found)
    assert fitting.recommended(found).cell.facts.cuda_version is None
    assert fitting.recommended([one for one in found if one.cell.facts.cuda_version]).cell.torch == "2.15"
    assert fitting.recommended([]) is None


def test_one_without_limits_is_known():
    """Where the recommended one has some."""
    found = [fitting.judge(one, hardware("530.30.02", "7.0")) for one in CELLS]
    assert fitting.recommended(found).limits
    assert fitting.unlimited(found).cell.short == "2.4-cu121"


@pytest.mark.parametrize("text", ["sm_90", "sm90", "9.0", "90", "compute_90", "SM_90", "sm_90a"])
def test_ways_to_write_a_generation(text):
    """All that people copy from somewhere."""
    assert fitting.generation(text) == (9, 0)


NO_GENERATION, NO_DRIVER = "is no GPU generation", "is no version of NVIDIA's driver"


@pytest.mark.parametrize(
    ("read", "text", "what"),
    [
        *((fitting.generation, text, NO_GENERATION) for text in ("", "sm_", "hopper", "9", "9.0.1", "-9.0", "sm_9000")),
        *((fitting.check_driver, text, NO_DRIVER) for text in ("", "53", "530.30.02.1", "530.x", "newest", "cuda 12")),
    ],
)
def test_what_is_no_generation_or_driver(read, text, what):
    """Is refused with the way to write one."""
    with pytest.raises(MachineError, match=what):
        read(text)


@pytest.mark.parametrize(("version", "floor", "enough"), [("530.30", "530.30.02", True), ("580", "580.65.06", True), ("530.29", "530.30.02", False)])
def test_drivers_are_compared_as_far_as_they_are_written(version, floor, enough):
    """Nobody types all numbers."""
    assert fitting.at_least(version, floor) is enough


def test_an_image_knows_the_same_jetsons():
    """It sends their users where the doctor sends them."""
    assert fitting.JETSON == image_gpu.JETSON
