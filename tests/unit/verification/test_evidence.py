"""Evidence: written whole or not at all, and found by digest."""

from __future__ import annotations

import msgspec
import pytest

from tests import records
from torchstrata import errors
from torchstrata.verification import evidence
from torchstrata.verification.evidence import Counts, EngineImage

MANIFEST = "sha256:" + "a" * 64
CONFIG = "sha256:" + "b" * 64


IMAGE = EngineImage(reference="pytorch-cuda:2.13-cpu-base", digest=MANIFEST, manifest=MANIFEST, config=CONFIG)
GOOD = records.result(MANIFEST, image=IMAGE, counts=Counts(required=1, passed=1, failed=0, missing=0))


def put(results, found, flavour="base"):
    """Write evidence where a verification does."""
    return evidence.write(found, evidence.folder(results, found.cell, flavour))


@pytest.mark.parametrize("digest", [MANIFEST, CONFIG])
def test_found_by_either_digest(tmp_path, digest):
    """The digest of the manifest leads to it, and that of the config."""
    put(tmp_path, GOOD)
    assert evidence.find(digest, tmp_path) == GOOD


def test_found_for_what_was_tested_with_it(tmp_path):
    """The all-in-one image has no tests of its own: those of the flavour that it is made of are about it too."""
    other = "sha256:" + "d" * 64
    with_it = msgspec.structs.replace(GOOD, also=(EngineImage(reference="pytorch-cuda:v2.13", digest=other, manifest=other, config=None),))
    put(tmp_path, with_it)
    assert evidence.find(other, tmp_path) == with_it
    assert not GOOD.is_of(other)


def test_drift_is_told_and_what_is_as_locked_says_nothing_of_it(tmp_path):
    """Evidence of earlier versions can be read, and theirs can read that of images as locked."""
    path = put(tmp_path, GOOD)
    assert b"drift" not in path.read_bytes()
    assert (evidence.read(path), GOOD.state) == (GOOD, "as locked")
    drifted = msgspec.structs.replace(GOOD, drift=("less 1 -> 2", "make 3 -> 4"))
    assert evidence.read(put(tmp_path, drifted)).state == "drifted: less 1 -> 2 and 1 more"


def test_nothing_else_stays_beside_it(tmp_path):
    """It is written under another name first, which is gone in the end."""
    path = put(tmp_path, GOOD)
    assert [each.name for each in path.parent.iterdir()] == ["verify.json"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"passed": False}, "it was not complete"),
        ({"passed": False, "problems": ("failed: base/test_users.py::test_x",)}, "failed: base/test_users.py"),
        ({"image": None}, f"{MANIFEST} was not verified"),
        ({"image": msgspec.structs.replace(IMAGE, digest=CONFIG, manifest=CONFIG)}, f"{MANIFEST} was not verified"),
        (None, f"{MANIFEST} was not verified"),
    ],
    ids=["incomplete", "failed", "machine", "another image", "no results"],
)
def test_what_proves_nothing_of_an_image_is_refused(tmp_path, changes, why):
    """With the first reason that it gives; that of a machine, of another image and none at all name the digest."""
    if changes is not None:
        put(tmp_path, msgspec.structs.replace(GOOD, **changes))
    with pytest.raises(errors.EvidenceError, match=why):
        evidence.find(MANIFEST, tmp_path / "none" if changes is None else tmp_path)


def test_a_quick_verification_is_not_enough(tmp_path):
    """What releases ask for is complete: a quick one stands beside it, takes its place nowhere, and is named where it is all there is."""
    quick = msgspec.structs.replace(GOOD, passed=False, complete=False, scope="quick")
    evidence.write(quick, evidence.folder(tmp_path, quick.cell, "base", "quick"))
    assert quick.holds
    with pytest.raises(errors.EvidenceError, match="only a quick verification has run") as raised:
        evidence.find(MANIFEST, tmp_path)
    assert "nox -s test-2.13-cpu-debian12 runs all tests" in str(raised.value)
    put(tmp_path, GOOD)
    assert evidence.find(MANIFEST, tmp_path) == GOOD


def test_evidence_of_before_there_were_scopes(tmp_path):
    """It was full, and nobody noted the tests: it counts for releases, and is not used instead of a run."""
    path = put(tmp_path, GOOD)
    path.write_bytes(path.read_bytes().replace(b',\n  "scope": "full",\n  "tests_digest": ""', b""))
    assert b"scope" not in path.read_bytes()
    assert evidence.read(path) == GOOD


@pytest.mark.parametrize("damage", [b"", b"{}", b"no json"])
def test_unreadable(tmp_path, damage):
    """A file that is damaged is named, not passed over."""
    put(tmp_path, GOOD).write_bytes(damage)
    with pytest.raises(errors.EvidenceError, match=r"verify\.json is not evidence"):
        evidence.find(MANIFEST, tmp_path)


def test_unknown_field(tmp_path):
    """A field that this version does not know is refused: it may say something against the image."""
    path = put(tmp_path, GOOD)
    path.write_bytes(path.read_bytes().replace(b'"cell"', b'"waived": true, "cell"', 1))
    with pytest.raises(errors.EvidenceError, match="waived"):
        evidence.read(path)
