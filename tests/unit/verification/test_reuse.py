"""Evidence that is there already: when it serves, and what makes the tests run again."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.verification.test_evidence import GOOD
from torchstrata.matrix import matrix
from torchstrata.verification import evidence, reuse, scope
from torchstrata.verification.evidence import EngineImage, Gpu
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.subject import Subject

OTHER = "sha256:" + "e" * 64
SUBJECT = Subject(cell=GOOD.cell, flavour="base", image=GOOD.image, host=GOOD.host, gpu=None)


def image(digest):
    """Return an image of another digest."""
    return EngineImage(reference="pytorch-cuda:v2.13", digest=digest, manifest=digest, config=None)


TESTS = "sha256:" + "f" * 64
"""Digest of the tests where it does not matter how it is made."""


@pytest.fixture
def known_tests(monkeypatch):
    """Let the tests of every image have a digest that is known; to make one takes half a second."""
    monkeypatch.setattr(reuse, "tests_digest", lambda _: TESTS)


def made(results, wanted="full", **changes):
    """Write evidence that the subject has passed the tests as they are, but for ``changes``; return it."""
    lists = {tier: each.digest for tier, each in scope.lists(SUBJECT, wanted).items()}
    noted = {"required": lists, "tests_digest": TESTS, "scope": wanted}
    found = msgspec.structs.replace(GOOD, **(noted | changes))
    evidence.write(found, evidence.folder(results, found.cell, found.flavour, wanted))
    return found


@pytest.mark.parametrize(("ran", "wanted"), [("full", "full"), ("full", "quick"), ("quick", "quick")])
@pytest.mark.usefixtures("known_tests")
def test_the_same_image_and_tests_need_no_second_run(tmp_path, ran, wanted):
    """What has passed in the same scope, or in a wider one, is known."""
    found = made(tmp_path, ran)
    assert reuse.find(SUBJECT, wanted, tmp_path) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"tests_digest": OTHER},
        {"required": {"free": OTHER}},
        {"image": image(OTHER)},
        {"also": (image(OTHER),)},
        {"problems": ("failed: a",)},
        {"scope": "chosen"},
        {"wanted": "quick"},
        {"tests": ()},
        {"tests_digest": ""},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.usefixtures("known_tests")
def test_whatever_has_changed_lets_the_tests_run(tmp_path, changes):
    """Other tests, lists, images, a run that left tests out, or one that did not pass: none of it serves."""
    made(tmp_path, **changes)
    assert reuse.find(SUBJECT, "full", tmp_path) is None


@pytest.mark.parametrize("changes", [{"gpu": Gpu(name="g", driver="1", count=1)}, {"image": None}], ids=["gpu", "machine"])
@pytest.mark.usefixtures("known_tests")
def test_another_subject_lets_the_tests_run(tmp_path, changes):
    """Evidence from a machine without a GPU does not have that tier; and a machine that is no container has no digest."""
    made(tmp_path)
    assert reuse.find(msgspec.structs.replace(SUBJECT, **changes), "full", tmp_path) is None


@pytest.mark.usefixtures("known_tests")
def test_a_damaged_file_lets_the_tests_run(tmp_path):
    """They write a new one."""
    made(tmp_path)
    (evidence.folder(tmp_path, GOOD.cell, GOOD.flavour) / evidence.NAME).write_text("{")
    assert reuse.find(SUBJECT, "full", tmp_path) is None


def digest(cell, flavour):
    """Return the digest of the tests of an image."""
    return reuse.tests_digest(Expectation(cell=matrix.select(matrix.load(), cell)[0], flavour=flavour))


def test_the_digest_is_of_an_image_s_own_tests(monkeypatch, tmp_path):
    """It changes with the files of its flavours, with what they share, and with what they import; not with other flavours' tests."""
    monkeypatch.setattr(reuse, "ROOT", tmp_path)
    for name in ("images/base/tests/test_a.py", "images/ssh/tests/test_b.py", "tests/images/probes/c.py", "torchstrata/d.py", "torchstrata/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "images/base/tests/test_a.py").write_text("from torchstrata import d\n")
    known = {digest("2.13-cpu", "base")}
    names = {"images/base/tests/test_a.py": True, "tests/images/probes/c.py": True, "torchstrata/d.py": True, "images/ssh/tests/test_b.py": False}
    for name, changes in names.items():
        path = tmp_path / name
        path.write_text(path.read_text() + "# more\n")
        assert (digest("2.13-cpu", "base") not in known) is changes, name
        known.add(digest("2.13-cpu", "base"))


def test_the_digest_is_of_what_the_image_must_be():
    """Other cells and flavours have others, though their tests are the same."""
    assert len({digest("2.8-cu121", "base"), digest("2.8-cu128", "base"), digest("2.8-cu121-debian12", "base"), digest("2.8-cu121", "devel")}) == 4
