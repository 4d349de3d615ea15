"""What is said of this machine."""

from __future__ import annotations

import resource

import pytest

from torchstrata.building import engine as engines
from torchstrata.errors import EngineError, GpuAccessError
from torchstrata.machine import nvml, survey
from torchstrata.machine.fitting import Accelerator, Hardware
from torchstrata.machine.gpu_access import GpuAccess


@pytest.fixture
def engineless(monkeypatch):
    """Give a machine without an engine."""

    def none():
        raise EngineError("no Docker engine answers", fix="start Docker")

    monkeypatch.setattr(engines, "connect", none)


def test_a_machine_without_engine_is_looked_at_all_the_same(engineless, monkeypatch):
    """Its GPUs decide what would run."""
    machine = Hardware(driver="580.95.05", gpus=(Accelerator(capability=(9, 0), name="NVIDIA H200"),))
    monkeypatch.setattr(nvml, "read", lambda: machine)
    found = survey.look()
    subjects = {one.subject: one for one in found.observations}
    assert found.hardware == machine
    assert subjects["engine"].error.code == EngineError.code
    assert "sm_90" in subjects["gpu"].what
    assert {"disk", "shared memory", "locked memory"} <= subjects.keys()


def test_a_driver_that_fails_is_an_observation(engineless, monkeypatch):
    """What follows is judged as without a GPU."""

    def broken():
        raise GpuAccessError("the driver does not work", fix="restart")

    monkeypatch.setattr(nvml, "read", broken)
    found = survey.look()
    assert found.hardware == Hardware()
    assert [one.severity for one in found.observations if one.subject == "driver"] == ["error"]


@pytest.mark.parametrize(
    ("access", "severity", "fails"),
    [
        (GpuAccess(way="gpus", how="hook"), "ok", False),
        (GpuAccess(way="runtime", how="runtime", cure="install"), "warning", False),
        (GpuAccess(way=None, how="nothing", cure="install"), "error", True),
    ],
)
def test_gpus_that_containers_do_not_get(access, severity, fails):
    """Are an error of their own; another way than ``--gpus`` is a warning."""
    seen = survey._access(access)
    assert (seen.severity, isinstance(seen.error, GpuAccessError)) == (severity, fails)


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ("Max locked memory         8388608              8388608              bytes", 8388608),
        ("Max locked memory         unlimited            unlimited            bytes", resource.RLIM_INFINITY),
        ("Max open files            1024                 1024                 files", None),
    ],
)
def test_locked_memory_is_that_of_the_engine(row, limit, tmp_path):
    """Containers inherit it from there, and not from who asks."""
    for number, name in (("1", "init"), ("20", "containerd")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n")
        (tmp_path / number / "limits").write_text(f"Limit\n{row if name == 'containerd' else 'Max locked memory 1 1 bytes'}\n")
    assert survey.engine_memlock(tmp_path) == limit
