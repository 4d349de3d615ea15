"""Does NCCL work between the host's GPUs? One is enough for a group of one; what a group of more does needs two."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.cuda]


@pytest.fixture(scope="module")
def ranks(probe, gpus):
    """What the processes of an NCCL group got, one process for each GPU."""
    return probe("collectives", "nccl", str(gpus))


def test_group(ranks, gpus):
    """A group of all GPUs comes together, each process on a GPU of its own, and all of them get the sum."""
    assert [each["device"] for each in ranks] == [f"cuda:{rank}" for rank in range(gpus)]
    assert [each["all_reduce"] for each in ranks] == [gpus * (gpus + 1) / 2] * gpus


def test_distributed_training(ranks):
    """DistributedDataParallel trains, and all processes have the same parameters afterwards."""
    assert all(each["losses"][-1] < each["losses"][0] for each in ranks)
    assert all(each["parameters"] == ranks[0]["parameters"] for each in ranks)


@pytest.mark.multigpu
def test_collectives_between_gpus(ranks, gpus):
    """Broadcast and all_gather bring to each GPU what the others have; the GPUs learn from different data."""
    assert [each["broadcast"] for each in ranks] == [1] * gpus
    assert [each["all_gather"] for each in ranks] == [list(range(1, gpus + 1))] * gpus
    assert ranks[0]["losses"] != ranks[1]["losses"]
