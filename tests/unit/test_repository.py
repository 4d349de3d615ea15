"""The repository as a whole: what must agree between files, and what no file may contain."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import tomllib
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.waiting import PATIENCE
from torchstrata import errors
from torchstrata.matrix import compat, entries, matrix

ROOT = matrix.ROOT
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
UPSTREAM = "download.pytorch" + ".org"
"""PyTorch's own indexes are no client's default, and each has other wheels of one version: which one a build is on is a fact about it."""
REGISTRIES = ("py" + "pi.org", "pythonhosted" + ".org", "deb.debian" + ".org", "security.debian" + ".org", "archive.ubuntu" + ".com")
REGISTRIES += ("ports.ubuntu" + ".com", "npm" + "js.", "crates" + ".io", "conda.anaconda" + ".org", UPSTREAM)
MACHINES = (r"/home/(?!dev\b)[a-z]", r"/Users/[a-z]", r"/opt/t" + r"s\b", r"/opt/py" + r"pi", r"(?<![\w.{}$/-])/wo" + r"rk/")
"""Directories of developers; ``/home/dev`` and ``/workspace`` are those of our images."""
NOWHERE = re.compile("|".join([*map(re.escape, REGISTRIES), *MACHINES]))
FACTS = compat.FACTS.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def tracked() -> list[str]:
    """Return the names of all files that git knows."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def links(name: str) -> list[str]:
    """Return the targets of a guide's links to files of the repository."""
    return [target for target in LINK.findall(FENCE.sub("", read(name))) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """Return the names by which the headings of a guide can be linked to, as forges make them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def error_classes() -> list[type[errors.TorchstrataError]]:
    """Return every class of errors.py."""
    return [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.TorchstrataError)]


def test_nothing_but_the_locks_names_versions_of_dependencies():
    """A bot that moves a lock has moved everything: pyproject.toml has names, at most with an upper bound, noxfile.py has not even those."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    names = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert [name for name in names if any(each.operator != "<" for each in Requirement(name).specifier)] == []
    assert "# /// script" not in read("noxfile.py")


@pytest.mark.parametrize("name", GUIDES)
def test_links_of_guides_lead_somewhere(name):
    """Every relative link names a file, and a heading of it where it has a fragment."""
    lost = []
    for target in links(name):
        place, _, fragment = target.partition("#")
        path = (ROOT / name).parent / place if place else ROOT / name
        if not path.exists() or (fragment and fragment not in anchors(path)):
            lost.append(target)
    assert lost == []


def tables(name: str) -> list[list[str]]:
    """Return the rows of each table of a guide."""
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", FENCE.sub("", read(name)), re.MULTILINE)]


@pytest.mark.parametrize("name", GUIDES)
def test_rows_of_tables_fit_their_headings(name):
    """Each has as many cells: forges drop what is too much, and show nothing where something lacks. A bar within a cell has a backslash before it."""
    bar = re.compile(r"(?<!\\)\|")
    for heading, *rows in tables(name):
        assert [row for row in rows if len(bar.findall(row)) != len(bar.findall(heading))] == []


@pytest.mark.parametrize("name", GUIDES)
def test_no_row_stands_twice_in_a_table(name):
    """As a merge of two changes of it leaves them: with the same beginning, and an end that contradicts."""
    for rows in tables(name):
        beginnings = Counter(tuple(re.split(r"\s*(?<!\\)\|\s*", row)[1:3]) for row in rows)
        assert [beginning for beginning, count in beginnings.items() if count > 1] == []


def test_the_start_leads_to_every_guide():
    """README for who reads it on a forge, and the menu for who reads the site."""
    guides = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {target.removeprefix("docs/") for target in links("README.md") if "#" not in target} >= guides
    menu = chain.from_iterable(section.values() for section in yaml.safe_load(read("mkdocs.yml"))["nav"])
    assert set(chain.from_iterable(menu)) >= guides


def test_error_codes_are_unique():
    """An exit code tells which error it was."""
    named = [(each.code, each.__name__) for each in error_classes()]
    counts = Counter(code for code, _ in named)
    assert [each for each in named if counts[each[0]] > 1] == [], "give each a code of its own, which CONTRIBUTING.md's table does not have yet"


def test_error_codes_leave_those_of_shells_and_tools_alone():
    """0, 1 and 2 mean other things everywhere, from 124 on they are those of timeout and of signals, and 78 is that of our containers."""
    assert [each for each in error_classes() if not 2 < each.code < 124 or each.code == 78] == []


def test_contributing_lists_every_error():
    """The table has each class with its code, by code, and nothing else."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == sorted((each.code, each.__name__) for each in error_classes())


def test_readme_lists_every_cell():
    """The table has the short id of each row of the matrix, in its order, and nothing else."""
    listed = re.findall(r"^\| `(\d[\w.]*-\w+)` \|", read("README.md"), re.MULTILINE)
    assert listed == [cell.short for cell in matrix.load().cells if cell.is_default_os]


@pytest.mark.parametrize("short", [cell.short for cell in matrix.load().cells if cell.is_default_os])
def test_readme_tells_the_truth_about_cells(short):
    """Each row names the version, the CUDA, the oldest driver and the OSes of its cells, and the tag that names them."""
    cells = [cell for cell in matrix.load().cells if cell.short == short]
    default = cells[0]
    _, wheels, driver, systems, note = re.findall(rf"^\| `({re.escape(short)})` \| (.*) \| (.*) \| (.*) \|(.*)\|$", read("README.md"), re.MULTILINE)[0]
    cuda = f"CUDA {default.facts.cuda_version}" if default.facts.cuda_version else "CPU"
    assert wheels == f"{default.version} for {cuda}"
    assert driver == (default.facts.driver_floor or "none")
    assert systems.split(", ") == [cell.os.id for cell in cells]
    assert (f"`v{default.torch}`" in note) == default.named


def test_readme_lists_every_flavour():
    """The table has all flavours, parents first, as their files describe them; `inv new-flavour` writes it."""
    assert entries.with_flavours(read("README.md"), matrix.load()) == read("README.md")


def test_images_has_no_other_flavours():
    """A directory of images is a flavour of the matrix, or what all of them install packages with."""
    assert {path.name for path in (ROOT / "images").iterdir() if path.is_dir()} == {"apt", *matrix.load().flavours}


def test_files_name_no_registry_and_no_machine():
    """Where packages come from is the business of pip's and apt's configuration; where a checkout lies is nobody's.

    The facts alone name PyTorch's own indexes.
    """
    found = []
    for name in tracked():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:
            lines = content.decode("utf-8").replace(UPSTREAM if name == FACTS else "\0", "").splitlines()
            found += [f"{name}:{number}: {hit[0]}" for number, line in enumerate(lines, 1) if (hit := NOWHERE.search(line))]
    assert found == []


def test_no_advice_takes_what_people_have():
    """Containers that `inv down` has stopped keep what was installed in them; who is short of space must not lose it by our advice."""
    losing = re.compile(r"docker (?:system|container|volume) prune")
    assert [name for name in tracked() if name.startswith(("torchstrata/", "images/", "docs/")) and losing.search(read_loosely(name))] == []


def read_loosely(name: str) -> str:
    """Return what is text in a file, be it a picture."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


WAITS = {"communicate", "ended", "join", "result", "run", "settimeout", "until", "wait", "wait_for"}
"""Functions and methods that may be told how long to wait."""

MAY_SLEEP = {"tests/waiting.py", "tests/system/faults.py", "tests/hostile.py"}
"""What waits for everybody, and the fault that is a late answer."""


def impatience(name: str) -> list[str]:
    """Return what in a file waits for a time, not for an event: pauses, and bounds below a minute."""
    calls = [node for node in ast.walk(ast.parse(read(name))) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)]
    return [f"{name}:{call.lineno}" for call in calls if (_called(call) == "sleep" and name not in MAY_SLEEP) or any(bound < 60 for bound in _bounds(call))]


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id


def _bounds(call: ast.Call) -> list[float]:
    """Return the seconds that a call sets as numbers."""
    named = [word.value for word in call.keywords if word.arg in {"timeout", "within"} and _called(call) != "timedelta"]
    given = [*named, *(call.args if _called(call) in WAITS else ())]
    return [float(each.value) for each in given if isinstance(each, ast.Constant) and type(each.value) in {int, float}]


def test_tests_wait_for_events():
    """A busy machine fails no test: what is waited for is an event, by ``until``, and no bound is below a minute."""
    files = [name for name in tracked() if name.startswith("tests/") and name.endswith(".py")]
    assert [*chain.from_iterable(map(impatience, files))] == []
    assert PATIENCE > 60


def jobs(path: Path) -> dict[str, Any]:
    """Return the jobs of a workflow, by its name and theirs."""
    return {f"{path.name}: {name}": job for name, job in yaml.load(path.read_text("utf-8"), yaml.BaseLoader)["jobs"].items()}


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
JOBS = dict(chain.from_iterable(jobs(path).items() for path in WORKFLOWS))
TRUSTED = [name for name, job in JOBS.items() if "write" in job["permissions"].values()]
"""Jobs that may sign, push, or open pull requests."""

BY_HASH = ("nox -s engine", "nox -s site")
"""Sessions that install nothing, or what requirements-dev.txt has with hashes."""

SETUP = yaml.load(read(".github/actions/setup/action.yml"), yaml.BaseLoader)["runs"]["steps"]
STEPS = [*SETUP, *chain.from_iterable(job["steps"] for job in JOBS.values())]


@pytest.mark.parametrize("name", TRUSTED)
def test_who_can_sign_or_push_installs_by_hash(name):
    """Such a job installs nothing but what the action does that sets it up; after that it calls our own verbs, and sessions that install by hash."""
    steps = JOBS[name]["steps"]
    assert "./.github/actions/setup" in [step.get("uses") for step in steps]
    assert [step["run"] for step in steps if "run" in step and not step["run"].startswith("inv ") and step["run"] not in BY_HASH] == []


def test_setting_up_is_by_hash():
    """From wheels alone, so that no package runs code while it is installed."""
    installs = [step["run"] for step in SETUP if "run" in step]
    assert {install.rpartition(" ")[2] for install in installs} == {"requirements.txt", "requirements-dev.txt"}
    assert [install for install in installs if not {"--require-hashes", "--only-binary", ":all:"} <= set(install.split())] == []


@pytest.mark.parametrize("uses", sorted({step["uses"] for step in STEPS if "uses" in step}))
def test_actions_of_others_are_pinned(uses):
    """By the commit, which nobody can move."""
    assert uses.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses)


def test_archives_are_unpacked_by_one_function():
    """It knows what Debian 12's Python, the oldest that we run on, does not know."""
    calls = {name for name in tracked() if name.endswith(".py") and re.search(r"\.extractall\(", read(name))}
    assert calls == {"torchstrata/store/tarball.py"}


def test_a_clone_has_the_bytes_that_are_committed(tmp_path):
    """Also one by a git that is told to write line ends as Windows has them: no lock and no script of an image would bear them."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    (origin / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    (origin / "base.lock").write_bytes(b"a\nb\n")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "x"), ("clone", "-q", "-c", "core.autocrlf=true", ".", str(clone))):
        subprocess.run(["git", "-C", str(origin), *words], check=True, capture_output=True)
    assert (clone / "base.lock").read_bytes() == b"a\nb\n"


def test_the_gate_needs_every_job():
    """Rules of branches require it alone, so none must be forgotten."""
    names = {name.partition(": ")[2] for name in JOBS if name.startswith("ci.yml: ")}
    assert set(JOBS["ci.yml: gate"]["needs"]) == names - {"gate"}
