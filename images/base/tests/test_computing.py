"""Does torch work, without a GPU? Mixed precision, the compiler, groups of processes, workers, torchvision and torchaudio."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from tests.images import boxes
from tests.images.boxes import COMPILES_ALONE, ONE_THREAD, VECTORS_KNOWN

PROBES = Path(boxes.__file__).parent / "probes"
SMALL, LARGE, WORKERS = "1", "20", "2"
"""Megabytes of a batch: five of the large ones are on their way with two workers, too many for 64 MB."""


def numbers(found, due, tolerance):
    """Say whether two lists have the same numbers, nearly."""
    return found == pytest.approx(due, abs=tolerance)


@pytest.fixture(scope="module")
def found(probes, request):
    """What each probe of torch found that a test of this run asks for."""
    tests = [item for item in request.session.items if item.path == request.path]
    special = {name for name in ("vision", "audio", "audiofiles") if any(item.get_closest_marker(name) for item in tests)}
    general = {"training", "compiled", "collectives"} if any(not special & {mark.name for mark in item.iter_markers()} for item in tests) else set()
    words = {"training": ["cpu", "bfloat16"], "compiled": ["cpu"], "collectives": ["gloo", "2"], "vision": ["cpu"], "audio": [], "audiofiles": []}
    return probes({name: words[name] for name in words if name in special | general}, {"compiled": VECTORS_KNOWN | COMPILES_ALONE})


@pytest.mark.costly
def test_mixed_precision(found):
    """Training under autocast computes in bfloat16, keeps float32 parameters, and learns as full precision does."""
    runs = found("training")
    mixed, full = runs["mixed"], runs["full"]
    assert (mixed["computed"], mixed["parameters"], full["computed"]) == ("torch.bfloat16", "torch.float32", "torch.float32")
    assert mixed["finite"]
    assert numbers(mixed["losses"], full["losses"], 0.05)
    assert mixed["losses"][-1] < mixed["losses"][0]


def test_compiler(found):
    """``torch.compile`` makes one graph and native code, with the image's own compiler, that computes what eager mode does."""
    result = found("compiled")
    assert (result["graphs"], result["breaks"]) == (1, 0)
    assert {".cpp", ".so"} <= result["made"].keys()
    assert result["difference"] < 1e-5


WITHOUT_START = "import torch; print(torch.compile(lambda x: x + 1)(torch.ones(2)).tolist())"


@pytest.mark.costly
def test_compiler_needs_no_start(start):
    """``torch.compile`` works without the entrypoint, too, as a user who has neither entry nor home."""
    environment = COMPILES_ALONE | VECTORS_KNOWN | ONE_THREAD
    box = start("-c", WITHOUT_START, entrypoint=["python"], user="1234:1234", environment=environment)
    assert (box.ended(), box.container.logs(stderr=False)) == (0, b"[2.0, 2.0]\n"), box.errors


@pytest.fixture(scope="module")
def ranks(found):
    """What two processes of a gloo group got."""
    return found("collectives")


def test_collectives(ranks):
    """Both processes get the sum of both, the first one's value, and everybody's values."""
    assert [each["all_reduce"] for each in ranks] == [3, 3]
    assert [each["broadcast"] for each in ranks] == [1, 1]
    assert [each["all_gather"] for each in ranks] == [[1, 2], [1, 2]]


def test_distributed_training(ranks):
    """After steps on data of their own, from parameters of their own, both have the same parameters, and have learnt."""
    first, second = ranks
    assert first["parameters"] == second["parameters"]
    assert first["losses"] != second["losses"]
    assert all(each["losses"][-1] < each["losses"][0] for each in ranks)


def load(box, *megabytes):
    """Load batches of some sizes in workers."""
    done = box.run("/opt/venv/bin/python", "-", WORKERS, *megabytes, stdin=(PROBES / "loader.py").read_bytes())
    assert done.status == 0, done.out + done.err
    return json.loads(done.out)


@pytest.mark.native  # QEMU's own locks may hang in a process that is forked from one with threads
def test_workers(start):
    """Workers hand over batches through shared memory of the size that the guide advises, large ones too."""
    box = start("sleep", "infinity", shm_size="256m", network_mode="none")
    assert load(box, LARGE) == [{"batches": 6, "sum": 15, "shared": 256 << 20}]


@pytest.mark.native  # see test_workers
@pytest.mark.costly
def test_workers_with_little_shared_memory(start):
    """With the engine's default of 64 MB, small batches work, larger ones end in an error and not in wrong data, and the
    start has named the cure.
    """
    box = start("sleep", "infinity", shm_size="64m", network_mode="none")
    small, large = load(box, SMALL, LARGE)
    assert small == {"batches": 6, "sum": 15, "shared": 64 << 20}
    assert "error" in large
    assert "--shm-size" in box.log


@pytest.fixture(scope="module")
def vision(found):
    """What torchvision computes."""
    return functools.partial(dict.__getitem__, found("vision"))


@pytest.mark.vision
def test_operators(vision):
    """Torchvision's compiled operators give the results that were worked out by hand."""
    assert vision("nms") == [0, 2]
    assert numbers(vision("roi_align"), [5.5, 9.5, 5.5, 9.5], 1e-5)


@pytest.mark.vision
def test_transforms(vision):
    """The usual transforms make a tensor of a picture, with its colour."""
    assert vision("transforms") == {"shape": [3, 224, 224], "red": 1.0, "rest": 0.0}


@pytest.mark.vision
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b3"])
def test_network(vision, name):
    """A network answers, and a picture in a batch as if it were alone."""
    answer = vision(name)
    assert answer["shape"] == [2, 1000]
    assert answer["finite"]
    assert answer["apart"] < 1e-4


@pytest.mark.audio
def test_audio(found):
    """Torchaudio finds a tone where it is, and resamples."""
    audio = found("audio")
    assert abs(audio["loudest"] - audio["tone"]) <= audio["bin"]
    assert audio["halved"] == 1


@pytest.mark.audiofiles
@pytest.mark.parametrize("name", ["wav", "flac"])
def test_audio_files(found, name):
    """A tone that torchaudio saves is the same when it is loaded again, but for the rounding to 16 bits."""
    back = found("audiofiles")[name]
    assert (back["rate"], back["shape"]) == (16_000, [1, 16_000])
    assert back["difference"] < 1e-4
