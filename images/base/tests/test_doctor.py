"""The doctor, whole: with torch, its compiler and NCCL."""

from __future__ import annotations

import json

import pytest

from tests.images.boxes import COMPILES_ALONE, VECTORS_KNOWN


@pytest.fixture(scope="module")
def findings(start_shared, expected):
    """What the doctor finds."""
    box = start_shared("sleep", "infinity", tmpfs={"/workspace": "mode=1777"})
    done = box.run("torchstrata-doctor", "--json", env=COMPILES_ALONE | ({} if expected.flavour == "base" else VECTORS_KNOWN))
    assert done.status in {0, 1}, done.out + done.err
    return {row["subject"]: row for row in json.loads(done.out)}


@pytest.mark.parametrize(
    "subject", ["image", "user", "gpu", "shared memory", "locked memory", "memory", "libraries", "cpu", "disk", "temporary files", "mounts", "torch", "nccl"]
)
def test_subject(findings, subject):
    """Each subject is looked at, and none is in error on a host that is well."""
    assert findings[subject]["severity"] in {"ok", "warning"}


def test_torch_works(findings):
    """Torch multiplies, trains in mixed precision and compiles."""
    assert "matrix product" in findings["torch"]["what"]
    assert "compiler" in findings["torch"]["what"]


def test_text_and_status(start):
    """The text names each severity; a missing mount is a warning, and the exit status says so."""
    box = start("sleep", "infinity")
    done = box.run("torchstrata-doctor", "--quick")
    assert done.status == 1
    assert "warning  workspace" in done.out
    assert "-> -v ./workspace:/workspace" in done.out


def test_workspace_that_cannot_be_written_is_an_error(start, workspace):
    """An error is exit status 2."""
    box = start("sleep", "infinity", volumes={str(workspace): {"bind": "/workspace", "mode": "ro"}})
    done = box.run("torchstrata-doctor", "--quick", "--json")
    assert done.status == 2
    assert [row["what"] for row in json.loads(done.out) if row["severity"] == "error"] == [
        "/workspace is mounted read-only: notebooks and checkpoints cannot be saved"
    ]


def test_killed_processes_are_counted(start):
    """Processes that the memory limit has killed are reported."""
    box = start("sleep", "infinity", mem_limit="128m", memswap_limit="128m")
    box.run("/usr/bin/python3", "-c", "x = bytearray(1 << 28); x[::4096] = b'x' * len(x[::4096])")
    rows = json.loads(box.run("torchstrata-doctor", "--quick", "--json").out)
    assert any("processes were killed at the limit of 128 MiB" in row["what"] for row in rows)


def test_temporary_files_that_cannot_be_loaded(start):
    """Where ``/tmp`` is mounted noexec, as by ``--tmpfs /tmp``, the doctor names what fails; what it says cures it."""
    said = {}
    for options in ("mode=1777", "mode=1777,exec"):
        done = start("sleep", "infinity", tmpfs={"/tmp": options}).run("torchstrata-doctor", "--quick", "--json")
        (row,) = [row for row in json.loads(done.out) if row["subject"] == "temporary files"]
        said[options] = (row["severity"], "--tmpfs /tmp:exec" in row["fix"])
    assert said == {"mode=1777": ("warning", True), "mode=1777,exec": ("ok", False)}
