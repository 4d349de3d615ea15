"""How an engine gives GPUs to containers."""

from __future__ import annotations

import pytest

from torchstrata.machine import gpu_access
from torchstrata.machine.gpu_access import GpuParts

ALL = ("--gpus", "all")
RUNTIME = ("--runtime", "nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=all")
DEVICE = ("--device", "nvidia.com/gpu=all")


@pytest.mark.parametrize(
    ("parts", "words", "how"),
    [
        ({"engine": (26, 1)}, (), "neither"),
        ({"engine": (26, 1), "has_hook": True}, ALL, "hook"),
        ({"engine": (26, 1), "has_hook": True, "has_runtime": True}, ALL, "hook"),
        ({"engine": (26, 1), "has_runtime": True}, RUNTIME, "runtime"),
        ({"engine": (28, 3), "has_cdi": True, "has_specification": True}, DEVICE, "--device"),
        ({"engine": (28, 3), "has_cdi": True, "has_cdi_hook": True, "has_specification": True}, DEVICE, "--device"),
        ({"engine": (29, 2), "has_cdi": True, "has_cdi_hook": True, "has_specification": True}, ALL, "CDI"),
        ({"engine": (29, 2), "has_cdi": True, "has_cdi_hook": True, "has_specification": True, "has_hook": True}, ALL, "CDI"),
        ({"engine": (29, 2), "has_cdi": True, "has_cdi_hook": True, "has_hook": True}, ALL, "hook"),
        ({"engine": (29, 2), "has_cdi": True, "has_cdi_hook": True}, (), "no specification"),
        ({"engine": (25, 0), "has_specification": True, "has_cdi_hook": True}, (), "neither"),
    ],
)
def test_way(parts, words, how):
    """CDI before the hook where Docker asks for it first; by name where ``--gpus`` has nobody; a cure where nothing does."""
    found = gpu_access.way(GpuParts(**parts))
    assert found.words == words
    assert how in found.how
    assert bool(found.cure) is (words in {(), RUNTIME})


@pytest.mark.parametrize(
    ("name", "content", "counts"),
    [
        ("nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n", True),
        ("nvidia.json", '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": []}', True),
        ("other.yaml", "kind: vendor.com/net\n", False),
        ("nvidia.yaml.bak", "kind: nvidia.com/gpu\n", False),
        ("nvidia.yml", "kind: nvidia.com/gpuish", True),
    ],
)
def test_specification(name, content, counts, tmp_path):
    """By its kind, in either of its forms."""
    (tmp_path / name).write_text(content)
    assert gpu_access.specified([tmp_path, tmp_path / "missing"]) is (counts and "gpuish" not in content)


def test_an_engine_elsewhere_is_known_by_what_it_says():
    """Nothing of this machine is looked at."""
    info = {
        "ServerVersion": "29.3.0-rc1",
        "Runtimes": {"runc": {}, "nvidia": {}},
        "CDISpecDirs": ["/etc/cdi"],
        "DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}],
    }
    parts = gpu_access.parts_of(info, is_local=False)
    assert parts == GpuParts(engine=(29, 3), has_runtime=True, has_hook=True, has_cdi=True, has_cdi_hook=True, has_specification=True)
    assert gpu_access.parts_of({"ServerVersion": "26.1.5+dfsg1"}, is_local=False) == GpuParts(engine=(26, 1))
