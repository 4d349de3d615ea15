"""Which cells run on a driver and its GPUs, why others do not, and within which limits. Pure.

The same rules as in the images' own preflight (``container/gpu.py``), and as in NVIDIA's guide to CUDA compatibility:
code runs on every driver of its CUDA's major version or a later one (minor-version compatibility), machine code runs
on GPUs of the same major and no smaller minor generation, and PTX on all later ones, where the driver is not older
than its CUDA. An older driver serves a newer CUDA only by the libraries of forward compatibility, on data-centre
GPUs; no image brings them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from torchstrata.errors import MachineError
from torchstrata.matrix import compat
from torchstrata.matrix.matrix import Cell

Generation = tuple[int, int]
"""Compute capability, such as ``(9, 0)``."""

EXCLUDED: Final = {(8, 7): ((8, 0), (8, 6)), (7, 2): ((7, 0),)}
"""Devices that code for a smaller minor version does not serve (rule ``device_cc_runs_code_cc`` of the facts)."""

JETSON: Final = frozenset({(5, 3), (6, 2), (7, 2), (8, 7)})
"""Jetsons before Thor, whose CUDA is their own; as the images' preflight has them."""

DATA_CENTRE: Final = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (10, 3)})
"""Generations of which there are data-centre GPUs, and hardly others."""

NO_CODE: Final = "take a cell that has code for it, if there is one"
"""The cure where torch has no code for a GPU: nothing that a machine could be given."""

DATA_CENTRE_NAME: Final = re.compile(r"(?:NVIDIA )?(?:Tesla|GH|GB|[ABHLPTV]\d+)")
CONSUMER_NAME: Final = re.compile(r"GeForce|TITAN|Quadro", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """A GPU, or one that somebody asks about.

    :param name: as the driver says it; empty if it is not known.
    :param memory: bytes; 0 if that is not known.
    """

    capability: Generation
    name: str = ""
    memory: int = 0

    @property
    def generation(self) -> str:
        """``sm_90``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    @property
    def is_for_data_centres(self) -> bool | None:
        """Whether forward compatibility is meant for it; ``None`` where its name does not tell."""
        if not self.name:
            return True if self.capability in DATA_CENTRE else None
        if CONSUMER_NAME.search(self.name):
            return False
        return True if DATA_CENTRE_NAME.match(self.name) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What decides which cells run.

    :param driver: version of NVIDIA's driver, such as ``580.95.05``, or its beginning; empty if none is known.
    """

    driver: str = ""
    gpus: tuple[Accelerator, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether there is a driver or a GPU to fit."""
        return bool(self.driver or self.gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitness:
    """Whether a cell runs.

    :param uses_gpu: torch computes on the machine's GPUs.
    :param reasons: why it does not run; empty if it does.
    :param cures: what would make it run, one for each reason.
    :param limits: what does not work, or works otherwise, where it runs.
    """

    cell: Cell
    uses_gpu: bool
    reasons: tuple[str, ...] = ()
    cures: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether nothing is against it."""
        return not self.reasons


def generation(text: str) -> Generation:
    """Return the generation that a person means by ``sm_90``, ``90`` or ``9.0``.

    :raises MachineError: the text is none.
    """
    match = re.fullmatch(r"(?:sm_?|compute_)?(\d{1,2})\.?(\d)[af]?", text.strip().lower())
    if match is None:
        raise MachineError(f"{text!r} is no GPU generation", fix="write it as nvidia-smi --query-gpu=compute_cap shows it, such as 9.0, or as sm_90")
    return int(match[1]), int(match[2])


def check_driver(text: str) -> str:
    """Return the version of a driver that a person means.

    :raises MachineError: the text is none.
    """
    if not re.fullmatch(r"\d{3}(\.\d{1,3}){0,2}", text.strip()):
        raise MachineError(f"{text!r} is no version of NVIDIA's driver", fix="write it as nvidia-smi shows it, such as 530.30.02 or 580")
    return text.strip()


def judge(cell: Cell, hardware: Hardware) -> Fitness:
    """Return whether a cell runs on some hardware.

    Where only a driver, or only GPUs are known, the other is not held against it.
    """
    if cell.facts.cuda_version is None:
        idle = ("it has no CUDA: GPUs stay idle",) if hardware.is_known else ()
        return Fitness(cell=cell, uses_gpu=False, limits=idle)
    if not hardware.is_known:
        return Fitness(cell=cell, uses_gpu=False, limits=("its CUDA is there for nothing",))
    against = [*_against_driver(cell, hardware), *_against_gpus(cell, hardware)]
    if against:
        reasons, cures = zip(*against, strict=True)
        return Fitness(cell=cell, uses_gpu=False, reasons=reasons, cures=cures)
    return Fitness(cell=cell, uses_gpu=True, limits=(*_limits_of_driver(cell, hardware), *_limits_of_gpus(cell, hardware)))


def recommended(fitnesses: Sequence[Fitness]) -> Fitness | None:
    """Return the best of those that run; ``None`` if none does.

    That is the newest torch among those that use the GPUs, else among those without CUDA. Of two of the same torch it
    is the one whose wheels the default index has, then the one that ``v<torch>`` names.
    """
    usable = [fitness for fitness in fitnesses if fitness.uses_gpu] or [
        fitness for fitness in fitnesses if fitness.runs and fitness.cell.facts.cuda_version is None
    ]
    usable = usable or [fitness for fitness in fitnesses if fitness.runs]
    return max(usable, key=_rank, default=None)


def unlimited(fitnesses: Sequence[Fitness]) -> Fitness | None:
    """Return the best of those that run on the GPUs without any limit."""
    return recommended([fitness for fitness in fitnesses if fitness.uses_gpu and not fitness.limits])


def at_least(version: str, floor: str) -> bool:
    """Return whether a driver is at least as new as another, as far as both go: ``530.30`` may be ``530.30.02``."""
    pairs = zip(map(int, version.split(".")), map(int, floor.split(".")), strict=False)
    return next((have > need for have, need in pairs if have != need), True)


def serves(code: Iterable[Generation], device: Generation) -> bool:
    """Say whether machine code for one of several generations runs on a device."""
    return any(major == device[0] and minor <= device[1] and (major, minor) not in EXCLUDED.get(device, ()) for major, minor in code)


def _rank(fitness: Fitness) -> tuple[tuple[int, ...], bool, bool, bool]:
    cell = fitness.cell
    return cell.release, compat.build(cell.torch, cell.wheels).default, cell.named, cell.is_default_os


def _against_driver(cell: Cell, hardware: Hardware) -> Iterable[tuple[str, str]]:
    """Yield why a driver is too old, and the cure."""
    floor = str(cell.facts.driver_floor)
    if not hardware.driver or at_least(hardware.driver, floor):
        return
    family = f"CUDA {compat.major(str(cell.facts.cuda_version))}"
    cure = f"install driver {floor} or newer; {_forward(cell, hardware.gpus)}"
    yield f"driver {hardware.driver} is older than {floor}, which {family} needs", cure


def _forward(cell: Cell, gpus: Sequence[Accelerator]) -> str:
    """Say whether forward compatibility would help instead of a new driver."""
    package = f"cuda-compat-{str(cell.facts.cuda_version).replace('.', '-')}"
    kinds = {gpu.is_for_data_centres for gpu in gpus}
    if False in kinds:
        return "forward compatibility is for data-centre GPUs only"
    sure = "on these data-centre GPUs" if kinds == {True} else "if these are data-centre GPUs,"
    return f"{sure} NVIDIA's {package} does, which the image does not bring"


def _against_gpus(cell: Cell, hardware: Hardware) -> Iterable[tuple[str, str]]:
    """Yield the generations that torch has no code for, or the driver does not know, and the cure."""
    code = _generations(cell.facts.architectures)
    for name, capability in sorted({(gpu.generation, gpu.capability) for gpu in hardware.gpus}, key=lambda pair: pair[1]):
        first = _first_driver(capability)
        if hardware.driver and first and not at_least(hardware.driver, first):
            yield f"driver {hardware.driver} knows no {name}, which came with {first}", f"install driver {first} or newer"
        elif not serves(code, capability) and not _has_ptx(cell, capability):
            known = ", ".join(f"sm_{major}{minor}" for major, minor in code)
            yield f"torch has no code for {name}, only for {known}", NO_CODE
        elif not serves(code, capability) and not _is_own(cell, hardware.driver):
            own = _own_driver(cell)
            yield f"{name} has only PTX, which needs driver {own}, that of CUDA {cell.facts.cuda_version}", f"install driver {own} or newer"


def _limits_of_driver(cell: Cell, hardware: Hardware) -> Iterable[str]:
    if not hardware.driver:
        yield f"if the driver is {cell.facts.driver_floor} or newer"
    elif not _is_own(cell, hardware.driver):
        cuda = cell.facts.cuda_version
        yield f"driver older than {_own_driver(cell)}, that of CUDA {cuda}: PTX of CUDA {cuda} does not run, nor do its newest calls"


def _limits_of_gpus(cell: Cell, hardware: Hardware) -> Iterable[str]:
    code = _generations(cell.facts.architectures)
    if not hardware.gpus:
        yield f"if the GPU is one of {', '.join(f'sm_{major}{minor}' for major, minor in code)}, or a later minor one"
    translated = sorted({gpu.generation for gpu in hardware.gpus if not serves(code, gpu.capability)})
    if translated:
        yield f"only PTX for {', '.join(translated)}: each kernel is compiled when it is first used"


def _generations(names: Iterable[str]) -> tuple[Generation, ...]:
    return tuple(generation(name) for name in names)


def _has_ptx(cell: Cell, capability: Generation) -> bool:
    of_build = compat.build(cell.torch, cell.wheels)
    return any(oldest <= capability for oldest in _generations(of_build.elsewhere.get(cell.platform, of_build).ptx or ()))


def _own_driver(cell: Cell) -> str | None:
    """Return the driver that the cell's own CUDA came with; ``None`` where nobody has established it."""
    return compat.facts().cuda[str(cell.facts.cuda_version)].driver


def _is_own(cell: Cell, driver: str) -> bool:
    """Say whether a driver is not older than the cell's own CUDA, as far as is known."""
    own = _own_driver(cell)
    return not driver or own is None or at_least(driver, own)


def _first_driver(capability: Generation) -> str | None:
    """Return the first driver that knows a generation; ``None`` where all that matter do."""
    cuda = compat.facts().first_cuda.get(f"{capability[0]}.{capability[1]}")
    return compat.facts().cuda[cuda].driver if cuda else None
