"""Lists of required tests: what stands against a run, and the files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torchstrata import errors
from torchstrata.matrix import matrix
from torchstrata.verification import required, suite
from torchstrata.verification.evidence import Case
from torchstrata.verification.required import Required

USERS = ("base", "test_users", "test_any_user")
LIBRARIES = ("base cuda", "test_cuda_libraries", "test_opened")
LIST = Required(tier="free", cases={USERS: 2, LIBRARIES: 1})


def case(name: str, outcome: str = "passed", section: str = "base") -> Case:
    """Return a case of a test of the base flavour."""
    return Case(id=f"images/base/tests/{name}", tier="free", section=section, outcome=outcome, seconds=0.1)


ALL = (
    case("test_users.py::test_any_user[1000:0]"),
    case("test_users.py::test_any_user[a::b]"),
    case("test_cuda_libraries.py::test_opened", section="base cuda"),
)


def test_nothing_stands_against_a_full_run():
    """Each required case passed, and no other ran."""
    assert required.problems(LIST, ALL) == ()
    assert required.missing(LIST, ALL) == 0


@pytest.mark.parametrize("outcome", ["failed", "error", "skipped", "xfailed", "xpassed"])
def test_every_other_outcome_is_named(outcome):
    """Whatever is not passed counts against the image, and as missing."""
    tests = (*ALL[1:], case("test_users.py::test_any_user[1000:0]", outcome))
    assert required.problems(LIST, tests) == (f"{outcome}: images/base/tests/test_users.py::test_any_user[1000:0]",)
    assert required.missing(LIST, tests) == 1


def test_a_case_that_did_not_run_is_named():
    """A case that was left out is missing, though the others of its test passed."""
    assert required.problems(LIST, ALL[1:]) == ("missing: 1 of 2 cases of base/test_users.py::test_any_user did not run",)


def test_a_case_that_is_not_listed_is_named():
    """Who adds a test adds it to the list."""
    tests = (*ALL, case("test_users.py::test_more"), case("test_users.py::test_any_user[0]"))
    assert [line.split(" are not")[0] for line in required.problems(LIST, tests)] == [
        "not listed: 1 of 3 cases of base/test_users.py::test_any_user",
        "not listed: 1 of 1 cases of base/test_users.py::test_more",
    ]


@pytest.mark.parametrize(
    ("lineage", "applies", "found"),
    [
        (("base",), (), {"base"}),
        (("base",), ("cuda",), {"base", "base cuda"}),
        (("base", "devel"), ("cuda", "vision"), {"base", "base cuda", "base cuda vision", "devel"}),
        (("base", "gpu"), ("vision",), {"base", "gpu"}),
    ],
)
def test_sections_of_an_image(lineage, applies, found):
    """A section applies where the flavour is contained and all that it names is there."""
    assert required.sections(lineage, applies, ["base", "base cuda", "base cuda vision", "devel", "gpu"]) == found


def test_files_come_back(tmp_path):
    """What is written is what is read, and the digest is that of the content."""
    required.write(LIST, tmp_path)
    again = required.read("free", tmp_path)
    assert (again, again.digest) == (LIST, LIST.digest)
    assert again.restrict(lambda key: key[0] == "base").digest != LIST.digest


def test_a_tier_without_a_file_requires_nothing(tmp_path):
    """Then everything that ran is not listed."""
    assert required.read("free", tmp_path).cases == {}


@pytest.mark.parametrize(("old", "new"), [("test_any_user = 2", "test_any_user = 1"), ("base = 2", "base = 1"), ("test_any_user = 2", "test_any_user = = 2")])
def test_edited_file_is_refused(tmp_path, old, new):
    """Totals and lines must fit: a line that was lost in a merge shows."""
    required.write(LIST, tmp_path)
    path = tmp_path / "images/base/tests/required/free.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(errors.VerificationError, match=r"free\.toml"):
        required.read("free", tmp_path)


def test_committed_lists_are_what_the_tests_are(tmp_path):
    """Who adds or removes a test of images changes the lists in the same commit."""
    command = [sys.executable, "-m", "pytest", "-p", suite.PLUGIN, *required.PLACES, "-q", "-p", "no:cacheprovider", "--list-to", str(tmp_path)]
    subprocess.run(command, cwd=matrix.ROOT, check=True, capture_output=True)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.toml")}
    lists = [*matrix.ROOT.glob("images/*/tests/required/*.toml"), *matrix.ROOT.glob("tests/images/required/*.toml")]
    assert written == {path.relative_to(matrix.ROOT): path.read_text() for path in lists}, "nox -s required writes them; look at the difference"
