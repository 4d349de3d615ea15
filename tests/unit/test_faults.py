"""The table of planted faults, and how their verdicts come about."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from itertools import chain
from types import SimpleNamespace
from xml.etree import ElementTree as ET  # reads what this test has written

import pytest

from tests.mutants import __main__ as mutants
from tests.mutants.faults import DOCUMENT, FAULTS, document
from torchstrata.errors import NoImageError, SurvivorError
from torchstrata.matrix.matrix import ROOT

EDIT = re.compile(r"sed -i (?P<how>'[^']*'|\S+) (?P<file>/usr/local\S+)")


def edits():
    """Yield every fault with each edit of a file that it makes."""
    for fault in FAULTS:
        for edit in chain.from_iterable(map(EDIT.finditer, fault.lines)):
            yield fault, edit


EDITS = [*edits()]


@pytest.mark.parametrize(("fault", "edit"), EDITS, ids=[fault.what for fault, _ in EDITS])
def test_a_fault_changes_the_file_that_it_edits(fault, edit, tmp_path):
    """No fault plants nothing because the line that it changes reads otherwise by now."""
    (source,) = ROOT.glob(f"images/*/rootfs{edit['file']}")
    edited = tmp_path / source.name
    shutil.copy(source, edited)
    subprocess.run(["sed", "-i", *shlex.split(edit["how"]), edited], check=True)
    assert edited.read_bytes() != source.read_bytes()


def test_an_engine_without_the_images_is_told_so(monkeypatch):
    """Before any fault is planted, with the session that makes them."""
    monkeypatch.setattr(mutants.engines, "connect", lambda: SimpleNamespace(image_id=lambda name: None if "2.8" in name else "sha256:1"))
    with pytest.raises(NoImageError) as caught:
        mutants.run([])
    assert (caught.value.what, caught.value.fix) == ("the engine has no pytorch-cuda:2.8-cu121-base", "nox -s build-2.8-cu121")


def test_document_is_written():
    """The guide's table is that of the faults."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_there_are_enough_and_each_once():
    """At least 25 faults, each described once and found by a test of a flavour that its image has."""
    assert len(FAULTS) >= 25
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("test", sorted({fault.test.partition("[")[0] for fault in FAULTS}))
def test_named_tests_exist(test):
    """The test that is named for a fault exists."""
    path, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / mutants.place(path)).read_text(encoding="utf-8"), re.MULTILINE)


REPORT = """<testsuites><testsuite>
<testcase classname="images.base.tests.test_users" name="test_root[image]"/>
<testcase classname="images.base.tests.test_users" name="test_root[uid]"><failure message="is dev">E</failure></testcase>
<testcase classname="images.base.tests.test_users" name="test_files[^a:\\\\s+$]"/>
<testcase classname="images.base.tests.test_users" name="test_files[b]"><error message="no host">F</error></testcase>
</testsuite></testsuites>"""


def test_a_test_named_without_a_case_stands_for_all_of_them():
    """What any of its cases said counts, whatever characters name them."""
    tests = {"base/test_users.py::test_root[image]", "base/test_users.py::test_root[uid]", "base/test_users.py::test_files"}
    assert mutants.reported(ET.fromstring(REPORT), tests) == {
        "base/test_users.py::test_root[image]": "",
        "base/test_users.py::test_root[uid]": "is dev\nE",
        "base/test_users.py::test_files": "no host\nF",
    }


@pytest.mark.parametrize(
    ("before", "said", "trouble"),
    [
        ("", "E  srv/key: a private key", ""),
        ("", "", "survived"),
        ("", "E  no such container", "for another reason"),
        ("E  broken", "E  srv/key: a private key", "fails on the good image"),
        (None, "E  srv/key: a private key", "did not run"),
        ("", None, "did not run"),
    ],
)
def test_verdict(before, said, trouble):
    """A fault is caught if its test passes without it and fails with it, for the reason that is named."""
    fault = next(fault for fault in FAULTS if fault.says == "srv/key: a private key")
    found = mutants.judge(fault, before, said)
    assert trouble in found
    assert bool(found) == bool(trouble)


def test_choice_by_word():
    """Words choose faults by description or test."""
    assert {fault.test for fault in mutants.chosen(["sudo"])} == {"base/test_users.py::test_no_sudo"}
    assert mutants.chosen([]) == list(FAULTS)


def test_dockerfile_puts_the_user_back():
    """Shell commands become RUN lines, and the image's user is what it was."""
    fault = next(fault for fault in FAULTS if fault.what == "sudo")
    assert fault.dockerfile == "FROM pytorch-cuda:2.13-cpu-base\nUSER 0:0\nRUN cp /bin/true /usr/bin/sudo\nUSER 1000:0\n"


def test_words_that_no_fault_contains_are_refused():
    """A run that tries nothing would be green: a mistyped word has to be told."""
    with pytest.raises(SurvivorError, match="no fault contains nonsense or gibberish") as caught:
        mutants.run(["nonsense", "gibberish"])
    assert "docs/faults.md" in caught.value.fix
