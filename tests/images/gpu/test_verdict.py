"""What the doctor says on a host with GPUs."""

from __future__ import annotations

import base64
import io
import json
import tarfile

import pytest

from torchstrata.matrix.matrix import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.cuda]

INSTALLED = "/usr/local/bin/torchstrata-doctor"
ROOTFS = ROOT / "images" / "base" / "rootfs" / "usr" / "local"
CARRIED = 'd=$(mktemp -d) && trap "rm -rf $d" EXIT && printf %s "$1" | base64 -d | tar -xz -C "$d" && python3 -I "$d/torchstrata" doctor --json'


@pytest.fixture(scope="module")
def findings(host):
    """What the doctor finds; a machine that has none gets the checkout's for a moment."""
    done = host.run(f"{INSTALLED} --json") if host.file(INSTALLED).exists else host.run("sh -c %s sh %s", CARRIED, packed())
    assert done.rc in {0, 1}, done.stdout + done.stderr
    return {row["subject"]: row for row in json.loads(done.stdout)}


def packed():
    """Return the doctor's program as an archive in one word."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(ROOTFS / "lib" / "torchstrata", "torchstrata", filter=lambda member: None if "__pycache__" in member.name else member)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("subject", ["gpu", "torch", "nccl"])
def test_verdict(findings, subject):
    """GPU and driver, torch and NCCL are well, by the doctor's own tests."""
    assert findings[subject]["severity"] == "ok", findings[subject]
    assert "left out" not in findings[subject]["what"]
