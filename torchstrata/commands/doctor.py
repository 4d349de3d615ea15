"""The verb ``inv doctor``: what is right and wrong with a machine, which cells run on it, and which one to take."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from torchstrata import platforms, progress
from torchstrata.commands.container_options import DoctorOptions
from torchstrata.containers.description import LOOPBACK
from torchstrata.errors import MachineError, NoFitError
from torchstrata.machine import fitting, survey
from torchstrata.machine.fitting import Accelerator, Fitness, Hardware
from torchstrata.machine.survey import Survey
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell, Matrix
from torchstrata.platforms import PLATFORM

COLOURS: Final = {"ok": None, "warning": "yellow", "error": "red", "runs": "green", "no": "dim"}
SHARED_MEMORY: Final = "--shm-size=8g"
"""What DataLoader workers and NCCL are content with (docs/running.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """A machine and the cells that were asked for.

    :param survey: what the machine has; nothing but its hardware where it is only described.
    :param is_described: it is not this machine.
    """

    matrix: Matrix
    survey: Survey
    fits: tuple[Fitness, ...]
    flavour: str
    is_described: bool

    @property
    def best(self) -> Fitness | None:
        """The cell to take."""
        return fitting.recommended(self.fits)

    def tag(self, cell: Cell) -> str:
        """Return the name of a cell's image."""
        return f"{self.matrix.name}:{cell.names[0]}-{self.flavour}{platforms.suffix(cell.platform)}"

    def command(self, fit: Fitness) -> str:
        """Return the line that starts an image here, with what it shows to a browser on this machine's own ports."""
        access = self.survey.access.words if self.survey.access else ("--gpus", "all")
        pages = (service.port for service in self.matrix.services(self.flavour) if service.health.http or service.health.https)
        published = (f"-p {LOOPBACK}:{port}:{port}" for port in pages)
        words = ("docker", "run", "-it", *(access if fit.uses_gpu else ()), SHARED_MEMORY, *published, self.tag(fit.cell))
        return " ".join(words)

    def verb(self, fit: Fitness) -> str:
        """Return the verb that does it with a workspace and free ports."""
        flavour = () if self.flavour == self.matrix.all_in_one else ("--flavour", self.flavour)
        return " ".join(("inv", "up", fit.cell.names[0], *flavour))


def run(options: DoctorOptions) -> None:
    """Look, judge and say; fail where something must be mended first.

    :raises MachineError: what is described is no machine.
    :raises PlatformError: no platform is called so; or a cell that was asked for is not offered on its platform.
    :raises NoFitError: no cell with CUDA that was asked for runs on the GPUs.
    :raises EngineError, GpuAccessError: there is no engine; or GPUs that containers cannot use.
    """
    diagnosis = diagnose(options)
    if options.json:
        sys.stdout.write(json.dumps(as_json(diagnosis), indent=2) + "\n")
    else:
        show(diagnosis)
    for observation in diagnosis.survey.observations:
        if observation.error:
            raise observation.error
    if failure := no_fit(diagnosis):
        raise failure


def diagnose(options: DoctorOptions) -> Diagnosis:
    """Return what there is to say."""
    table = matrix.load()
    flavour = table.with_parents(options.flavour or table.all_in_one)[-1]
    described = described_by(options)
    default = PLATFORM if described else platforms.here()
    platform = platforms.check(default if options.platform is None else options.platform)
    if not described and platform != platforms.here():
        raise MachineError(f"this machine is no {platform}", fix="describe the one that is: --driver VERSION, --gpu GPU")
    chosen = matrix.select_on(table, platform, *options.cells)
    cells = chosen if options.cells else tuple(cell for cell in chosen if cell.is_default_os)
    surveyed = Survey(observations=(), hardware=described, access=None) if described else survey.look()
    fits = tuple(fitting.judge(cell, surveyed.hardware) for cell in cells)
    return Diagnosis(matrix=table, survey=surveyed, fits=fits, flavour=flavour, is_described=described is not None)


def described_by(options: DoctorOptions) -> Hardware | None:
    """Return the machine that options describe; ``None`` if they mean this one.

    :raises MachineError: they describe none.
    """
    if options.driver is None and options.gpu is None:
        return None
    if options.gpu is not None and not options.gpu:
        raise MachineError("--gpu names no GPU", fix="write its generation, such as --gpu sm_90, or leave --gpu out")
    gpus = tuple(Accelerator(capability=fitting.generation(text)) for text in options.gpu or ())
    return Hardware(driver=fitting.check_driver(options.driver) if options.driver is not None else "", gpus=gpus)


def no_fit(diagnosis: Diagnosis) -> NoFitError | None:
    """Return the error where no cell with CUDA that was asked for runs on the GPUs; ``None`` where there is no GPU."""
    with_cuda = [fit for fit in diagnosis.fits if fit.cell.facts.cuda_version]
    if not diagnosis.survey.hardware.is_known or not with_cuda or any(fit.runs for fit in with_cuda):
        return None
    hardware = diagnosis.survey.hardware
    every = [fitting.judge(cell, hardware) for cell in matrix.select_on(diagnosis.matrix, with_cuda[0].cell.platform)]
    another = fitting.recommended(every)
    asked = " that was asked for" if another and another.uses_gpu else ""
    return NoFitError(f"no cell with CUDA{asked} runs on {in_words(hardware)}", fix="; or ".join(_ways_out(diagnosis, with_cuda, another)))


def _ways_out(diagnosis: Diagnosis, with_cuda: Sequence[Fitness], another: Fitness | None) -> Iterator[str]:
    """Yield what would help: an image that runs, or what would make the nearest cell run, unless nothing would."""
    gpus = {gpu.capability for gpu in diagnosis.survey.hardware.gpus}
    if gpus and gpus <= fitting.JETSON:
        yield "use NVIDIA's images for JetPack: a Jetson older than Thor has a CUDA of its own (docs/arm64.md)"
        return
    if another:
        yield f"take {diagnosis.tag(another.cell)}" + ("" if another.uses_gpu else ", which does without the GPU")
    curable = [fit for fit in with_cuda if fitting.NO_CODE not in fit.cures]
    if curable:
        yield min(curable, key=lambda fit: len(fit.reasons)).cures[0]
    elif not another:
        yield "add a torch that has code for it: inv add-torch"


def in_words(hardware: Hardware) -> str:
    """Return what the cells are judged by, such as ``driver 530.30, sm_70``."""
    driver = f"driver {hardware.driver}" if hardware.driver else ""
    generations = ", ".join(dict.fromkeys(gpu.generation for gpu in hardware.gpus))
    return ", ".join(filter(None, (driver, generations))) or "no NVIDIA GPU"


def show(diagnosis: Diagnosis) -> None:
    """Print tables on a terminal, and lines elsewhere."""
    console = progress.plain_console()
    rows: list[tuple[str, str, str, str]] = [(seen.severity, seen.subject, seen.what, seen.fix) for seen in diagnosis.survey.observations]
    rows += [("runs" if fit.runs else "no", fit.cell.names[0], *about(fit)) for fit in diagnosis.fits]
    if console.is_terminal and not os.environ.get("CI"):
        console.print(table(rows))
    else:
        for line in lines(rows):
            console.print(line)
    for line in advice(diagnosis):
        console.print(line)


def about(fit: Fitness) -> tuple[str, str]:
    """Return what is to be said of a cell, and the cure."""
    if fit.reasons:
        return "; ".join(fit.reasons), "; ".join(dict.fromkeys(fit.cures))
    return "; ".join(("on the GPU" if fit.uses_gpu else "on the CPU", *fit.limits)), ""


def table(rows: Sequence[tuple[str, str, str, str]]) -> Table:
    """Return rows for people."""
    view = progress.table("", "", "", show_header=False)
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
        return [f"nothing that was asked for runs with {in_words(diagnosis.survey.hardware)}"]
    free = fitting.unlimited(diagnosis.fits)
    lines = [f"take {diagnosis.tag(best.cell)}: {diagnosis.command(best)}"]
    if not diagnosis.is_described:
        lines.append(f"or, with a workspace that stays: {diagnosis.verb(best)}")
    if free and best.limits and free != best:
        lines.append(f"without these limits: {diagnosis.tag(free.cell)}")
    return lines


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return all of it for programs."""
    hardware, access, best = diagnosis.survey.hardware, diagnosis.survey.access, diagnosis.best
    free = fitting.unlimited(diagnosis.fits)
    return {
        "driver": hardware.driver or None,
        "gpus": [{"generation": gpu.generation, "name": gpu.name or None, "memory": gpu.memory or None} for gpu in hardware.gpus],
        "gpu_access": {"words": access.words, "how": access.how, "cure": access.cure or None} if access else None,
        "observations": [
            {"subject": seen.subject, "severity": seen.severity, "what": seen.what, "fix": seen.fix or None, "code": seen.error.code if seen.error else None}
            for seen in diagnosis.survey.observations
        ],
        "cells": [_cell(diagnosis, fit) for fit in diagnosis.fits],
        "recommended": {"tag": diagnosis.tag(best.cell), "command": diagnosis.command(best)} if best else None,
        "without_limits": diagnosis.tag(free.cell) if free else None,
    }


def _cell(diagnosis: Diagnosis, fit: Fitness) -> dict[str, Any]:
    return {
        "cell": fit.cell.id,
        "platform": fit.cell.platform,
        "tag": diagnosis.tag(fit.cell),
        "runs": fit.runs,
        "uses_gpu": fit.uses_gpu,
        "reasons": fit.reasons,
        "cures": fit.cures,
        "limits": fit.limits,
    }
