"""The verb ``inv doctor``: what is right and wrong with a machine, which cells run on it, and which one to take."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from torchstrata import progress
from torchstrata.commands.container_options import DoctorOptions
from torchstrata.errors import NoFitError, TorchstrataError
from torchstrata.machine import fitting, survey
from torchstrata.machine.fitting import Accelerator, Fitness, Hardware
from torchstrata.machine.survey import Survey
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix

COLOURS: Final = {"ok": None, "warning": "yellow", "error": "red", "runs": "green", "no": "dim"}
SHARED_MEMORY: Final = "--shm-size=8g"
"""What DataLoader workers and NCCL are content with (docs/running.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """A machine and the cells that were asked for.

    :param seen: what the machine has; nothing but its hardware where it is only described.
    """

    matrix: Matrix
    seen: Survey
    found: tuple[Fitness, ...]
    flavour: str

    @property
    def best(self) -> Fitness | None:
        """The cell to take."""
        return fitting.recommended(self.found)

    def tag(self, cell: Cell) -> str:
        """Return the name of a cell's image."""
        return f"{self.matrix.name}:{cell.names[0]}-{self.flavour}"

    def command(self, one: Fitness) -> str:
        """Return the line that starts an image here."""
        access = self.seen.access.words if self.seen.access else ("--gpus", "all")
        words = ("docker", "run", "-it", *(access if one.uses_gpu else ()), SHARED_MEMORY, self.tag(one.cell))
        return " ".join(words)


def run(options: DoctorOptions) -> None:
    """Look, judge and say; fail where something must be mended first.

    :raises MachineError: what is described is no machine.
    :raises NoFitError: no cell with CUDA that was asked for runs on the GPUs.
    :raises EngineError, GpuAccessError: there is no engine; or GPUs that containers cannot use.
    """
    diagnosis = diagnose(options)
    if options.json:
        sys.stdout.write(json.dumps(as_json(diagnosis), indent=2) + "\n")
    else:
        show(diagnosis)
    for one in diagnosis.seen.observations:
        if one.error:
            raise one.error
    if failure := no_fit(diagnosis):
        raise failure


def diagnose(options: DoctorOptions) -> Diagnosis:
    """Return what there is to say."""
    table = matrix.load()
    flavour = table.chain(options.flavour or table.all_in_one)[-1]
    cells = matrix.select(table, *options.cells) if options.cells else tuple(cell for cell in table.cells if cell.is_default_os)
    described = described_by(options)
    seen = Survey(observations=(), hardware=described, access=None) if described else survey.look()
    return Diagnosis(matrix=table, seen=seen, found=tuple(fitting.judge(cell, seen.hardware) for cell in cells), flavour=flavour)


def described_by(options: DoctorOptions) -> Hardware | None:
    """Return the machine that options describe; ``None`` if they mean this one.

    :raises MachineError: they describe none.
    """
    if options.driver is None and not options.gpu:
        return None
    gpus = tuple(Accelerator(capability=fitting.generation(text)) for text in options.gpu)
    return Hardware(driver=fitting.check_driver(options.driver) if options.driver is not None else "", gpus=gpus)


def no_fit(diagnosis: Diagnosis) -> NoFitError | None:
    """Return the error where no cell with CUDA that was asked for runs on the GPUs; ``None`` where there are none to run on."""
    with_cuda = [one for one in diagnosis.found if one.cell.facts.cuda_version]
    if not diagnosis.seen.hardware.is_known or not with_cuda or any(one.runs for one in with_cuda):
        return None
    nearest = min(with_cuda, key=lambda one: len(one.reasons))
    without = f"take {diagnosis.tag(diagnosis.best.cell)}, which does without the GPU; or " if diagnosis.best else ""
    return NoFitError(f"no cell with CUDA runs on {in_words(diagnosis.seen.hardware)}", fix=f"{without}{nearest.cures[0]}")


def in_words(hardware: Hardware) -> str:
    """Return what the cells are judged by, such as ``driver 530.30, sm_70``."""
    driver = f"driver {hardware.driver}" if hardware.driver else ""
    generations = ", ".join(dict.fromkeys(gpu.generation for gpu in hardware.gpus))
    return ", ".join(filter(None, (driver, generations))) or "no NVIDIA GPU"


def show(diagnosis: Diagnosis) -> None:
    """Print tables on a terminal, and lines elsewhere."""
    console = progress.plain_console()
    rows: list[tuple[str, str, str, str]] = [(one.severity, one.subject, one.what, one.fix) for one in diagnosis.seen.observations]
    rows += [("runs" if one.runs else "no", one.cell.names[0], *about(one)) for one in diagnosis.found]
    if console.is_terminal and not os.environ.get("CI"):
        console.print(table(rows), soft_wrap=False)
    else:
        for line in lines(rows):
            console.print(line, soft_wrap=True)
    for line in advice(diagnosis):
        console.print(line, soft_wrap=True)


def about(one: Fitness) -> tuple[str, str]:
    """Return what is to be said of a cell, and the cure."""
    if one.reasons:
        return "; ".join(one.reasons), "; ".join(dict.fromkeys(one.cures))
    return "; ".join(("on the GPU" if one.uses_gpu else "on the CPU", *one.limits)), ""


def table(rows: Sequence[tuple[str, str, str, str]]) -> Table:
    """Return rows for people."""
    view = Table("", "", "", header_style="bold", box=None, pad_edge=False, show_header=False)
    for severity, subject, what, fix in rows:
        view.add_row(severity, subject, f"{what}\n-> {fix}" if fix else what, style=COLOURS[severity])
    return view


def lines(rows: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Return rows for logs, in the form of ``torchstrata-doctor`` in the images."""
    made = (f"{severity:8} {subject:17} {what}" + (f"\n{'':27}-> {fix}" if fix else "") for severity, subject, what, fix in rows)
    return "\n".join(made).splitlines()


def advice(diagnosis: Diagnosis) -> list[str]:
    """Return which cell to take, how to start it, and the one without limits where there is another."""
    best = diagnosis.best
    if best is None:
        return [f"nothing that was asked for runs with {in_words(diagnosis.seen.hardware)}"]
    free = fitting.unlimited(diagnosis.found)
    said = [f"take {diagnosis.tag(best.cell)}: {diagnosis.command(best)}"]
    if free and best.limits and free != best:
        said.append(f"without these limits: {diagnosis.tag(free.cell)}")
    return said


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return all of it for programs."""
    hardware, access, best = diagnosis.seen.hardware, diagnosis.seen.access, diagnosis.best
    free = fitting.unlimited(diagnosis.found)
    return {
        "driver": hardware.driver or None,
        "gpus": [{"generation": gpu.generation, "name": gpu.name or None, "memory": gpu.memory or None} for gpu in hardware.gpus],
        "gpu_access": {"words": access.words, "how": access.how, "cure": access.cure or None} if access else None,
        "observations": [
            {"subject": one.subject, "severity": one.severity, "what": one.what, "fix": one.fix or None, "code": _code(one.error)}
            for one in diagnosis.seen.observations
        ],
        "cells": [_cell(diagnosis, one) for one in diagnosis.found],
        "recommended": {"tag": diagnosis.tag(best.cell), "command": diagnosis.command(best)} if best else None,
        "without_limits": diagnosis.tag(free.cell) if free else None,
    }


def _cell(diagnosis: Diagnosis, one: Fitness) -> dict[str, Any]:
    return {
        "cell": one.cell.id,
        "tag": diagnosis.tag(one.cell),
        "runs": one.runs,
        "uses_gpu": one.uses_gpu,
        "reasons": one.reasons,
        "cures": one.cures,
        "limits": one.limits,
    }


def _code(error: TorchstrataError | None) -> int | None:
    return error.code if error else None
