"""What ``inv doctor`` prints, and how it ends."""

from __future__ import annotations

import json
import re

import pytest

from torchstrata import platforms
from torchstrata.commands import doctor, verbs
from torchstrata.errors import EngineError, MachineError, MatrixError, NoFitError, PlatformError
from torchstrata.machine import survey
from torchstrata.machine.fitting import Accelerator, Hardware
from torchstrata.machine.gpu_access import GpuAccess
from torchstrata.machine.survey import Observation, Survey

GPU = Accelerator(capability=(9, 0), name="NVIDIA H200", memory=150_000_000_000)


def options(line):
    """Return what a line asks for."""
    return verbs.find("doctor").parse(line.split())


def seen(monkeypatch, *observations, hardware=Hardware(), access=None):  # noqa: B008  # a frozen value
    """Let this machine be another one."""
    monkeypatch.setattr(survey, "look", lambda: Survey(observations=observations, hardware=hardware, access=access))


def test_a_machine_by_hand(capsys):
    """Each cell, why not, the one to take and the one without limits; this machine is not looked at."""
    doctor.run(options("--driver 530.30 --gpu sm_70"))
    output = capsys.readouterr().out
    rows = dict(line.split(maxsplit=2)[1::-1] for line in output.splitlines() if line.split()[0] in {"runs", "no"})
    assert (rows["2.15-cu132"], rows["2.8-cu121"]) == ("no", "runs")
    assert "driver 530.30 is older than 580, which CUDA 13 needs; torch has no code for sm_70" in output
    assert "take pytorch-cuda:2.10-cu128-ssh: docker run -it --gpus all --shm-size=8g -p 127.0.0.1:8888:8888 pytorch-cuda:2.10-cu128-ssh" in output
    assert "inv up" not in output
    assert "without these limits: pytorch-cuda:2.4-cu121-ssh" in output


def test_a_machine_for_programs(capsys):
    """The same as JSON."""
    doctor.run(options("2.8-cu121 --gpu 9.0 --flavour base --json"))
    document = json.loads(capsys.readouterr().out)
    assert [one["tag"] for one in document["cells"]] == ["pytorch-cuda:2.8-cu121-base"]
    assert document["recommended"]["command"].endswith("pytorch-cuda:2.8-cu121-base")
    assert (document["driver"], document["gpus"][0]["generation"]) == (None, "sm_90")


def test_a_machine_of_another_platform(capsys):
    """Cells that are offered on it, by the code that its wheels have; the name is the one of an engine there."""
    doctor.run(options("--platform linux/arm64 --driver 580.95 --gpu 12.1,9.0"))
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines() if line.split()[0] in {"runs", "no"}] == [["runs", "2.15-cu132"]]
    assert "take pytorch-cuda:2.15-cu132-ssh-arm64: docker run" in said
    with pytest.raises(NoFitError):
        doctor.run(options("--platform linux/arm64 --driver 580.95 --gpu 7.5"))


NO_PLATFORM = (PlatformError, "is no platform of images", "linux/arm64")


@pytest.mark.parametrize(
    ("line", "error", "what", "fix"),
    [
        ("2.8-cu121 --platform linux/arm64 --gpu 9.0", PlatformError, "cannot be offered on linux/arm64", ""),
        ("--platform linux/riscv64 --driver 580", *NO_PLATFORM),
        ("--platform foo", *NO_PLATFORM),
        ("--platform=", *NO_PLATFORM),
        ("--platform foo --driver 580", *NO_PLATFORM),
        ("--platform arm64 2.8-cu121", *NO_PLATFORM),
        ("--platform linux/arm64", MachineError, "this machine is no linux/arm64", "--driver"),
        ("--gpu ,", MachineError, "--gpu names no GPU", ""),
        ("--gpu=", MachineError, "--gpu names no GPU", ""),
        ("--flavour desktop", MatrixError, "unknown flavour desktop", "ssh"),
    ],
)
def test_what_cannot_be_judged_is_refused(line, error, what, fix):
    """Nothing is judged by the wheels of another platform; a description of nothing does not mean this machine."""
    with pytest.raises(error, match=what) as refused:
        doctor.run(options(line))
    assert fix in refused.value.fix


@pytest.mark.parametrize(("flavour", "verb"), [("", "inv up 2.13-cpu"), ("--flavour jupyter", "inv up 2.13-cpu --flavour jupyter")])
def test_this_machines_image_is_started_by_a_verb(flavour, verb, monkeypatch, capsys):
    """Without ports and a workspace a line of docker shows nobody a notebook, and keeps no work."""
    seen(monkeypatch)
    doctor.run(options(f"2.13-cpu {flavour}"))
    assert f"or, with a workspace that stays: {verb}\n" in capsys.readouterr().out


def test_this_machines_own_platform(monkeypatch, capsys):
    """Is what counts where nothing is said."""
    seen(monkeypatch)
    monkeypatch.setattr(platforms.platform, "machine", lambda: "aarch64")
    doctor.run(options("--json"))
    assert {one["platform"] for one in json.loads(capsys.readouterr().out)["cells"]} == {"linux/arm64"}


def test_a_cell_without_cuda_needs_no_gpu(capsys):
    """Whoever asks for one is told of no driver."""
    doctor.run(options("2.13-cpu --driver 470"))
    output = capsys.readouterr().out
    assert output.split()[:2] == ["runs", "2.13-cpu"]
    assert "driver" not in output


JETPACK = "use NVIDIA's images for JetPack: .*"
WITHOUT = "take pytorch-cuda:2.13-cpu-ssh, which does without the GPU"


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("--driver 470 --gpu sm_60", "no cell with CUDA", f"{WITHOUT}; or install driver 525\\.60\\.13.*"),
        ("2.15-* --driver 530 --gpu 9.0", "no cell with CUDA that was asked for", ".*install driver .*"),
        ("2.15-cu132 --gpu sm_70", "no cell with CUDA that was asked for", "take pytorch-cuda:2.10-cu128-ssh"),
        ("--gpu sm_35", "no cell with CUDA", WITHOUT),
        ("--gpu sm_35 --platform linux/arm64", "no cell with CUDA", "add a torch that has code for it: inv add-torch"),
        *[(f"--gpu {gpu} --platform linux/arm64", "no cell with CUDA", JETPACK) for gpu in ("8.7", "7.2", "6.2", "5.3", "8.7,7.2")],
        ("--gpu 8.7", "no cell with CUDA", JETPACK),
        ("--gpu 8.7,7.5 --platform linux/arm64", "no cell with CUDA", "add a torch that has code for it: inv add-torch"),
        ("--driver 450.80 --gpu sm_35", "no cell with CUDA", WITHOUT),
        ("2.8-cu121 --gpu sm_35", "no cell with CUDA", WITHOUT),
    ],
)
def test_no_cell_fits(line, what, fix, capsys):
    """Has a code of its own, after all was shown. The cure is the nearest cell's; a driver is named where one helps."""
    with pytest.raises(NoFitError, match=what) as caught:
        doctor.run(options(line))
    assert re.fullmatch(fix, caught.value.fix, re.DOTALL)
    assert "no  " in capsys.readouterr().out


def test_this_machine(monkeypatch, capsys):
    """The words that give a container its GPUs are those that the engine understands."""
    seen(
        monkeypatch,
        Observation(subject="engine", what="Docker"),
        hardware=Hardware(driver="595.58.03", gpus=(GPU,)),
        access=GpuAccess(way="device", how="CDI"),
    )
    doctor.run(options(""))
    assert "docker run -it --device nvidia.com/gpu=all --shm-size=8g -p 127.0.0.1:8888:8888 pytorch-cuda:2.15-cu132-ssh" in capsys.readouterr().out


def test_what_must_be_mended_decides_the_exit_code(monkeypatch, capsys):
    """After all was shown; warnings do not."""
    error = EngineError("no Docker engine answers", fix="start Docker")
    warning = Observation(subject="buildx", what="none", fix="install it")
    seen(monkeypatch, warning, Observation(subject="engine", what=error.what, fix=error.fix, error=error))
    with pytest.raises(EngineError):
        doctor.run(options(""))
    output = capsys.readouterr().out
    assert "-> install it" in output
    assert "take pytorch-cuda:2.13-cpu-ssh" in output
