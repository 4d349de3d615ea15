"""Locks: their file, what they are made from, and every way in which one can be wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torchstrata.errors import LockError
from torchstrata.locks import lock_writer, resolver, wheel_locks
from torchstrata.locks.lockfile import Lock, Pin, parse, render
from torchstrata.matrix import compat, matrix


@pytest.fixture(scope="module")
def table():
    """Return the committed matrix."""
    return matrix.load()


@pytest.fixture(scope="module")
def cell(table):
    """Return the cell of the issue."""
    return matrix.select(table, "2.8-cu121")[0]


@pytest.fixture
def copy(tmp_path):
    """Return a copy of everything that locks are made from and of all locks, to be spoilt."""
    shutil.copytree(matrix.ROOT / "locks", tmp_path / "locks")
    for path in matrix.ROOT.glob("images/*/requirements.in"):
        (tmp_path / path.relative_to(matrix.ROOT)).parent.mkdir(parents=True)
        shutil.copy(path, tmp_path / path.relative_to(matrix.ROOT))
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    """Replace ``old``, which must be there, by ``new`` in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def pin(name: str, version: str = "1.0") -> Pin:
    """Return a pin of a pure wheel."""
    return Pin(name=name, version=version, filename=f"{name}-{version}-py3-none-any.whl", sha256="ab" * 32, size=5)


def lock(*pins: Pin) -> Lock:
    """Return a lock of the given pins."""
    return Lock(
        build="2.8.0-cu128",
        python="3.13",
        flavour="base",
        platform="linux/amd64",
        requires=("torch==2.8.0", "numpy"),
        exclude_newer="2026-11-17T00:00:00Z",
        uv="0.13.9",
        pins=pins,
    )


def test_file_holds_the_lock():
    """A lock survives its file, byte for byte and value for value."""
    value = lock(pin("a"), pin("b"))
    text = render(value)
    assert parse(text, "x.lock") == value
    assert render(parse(text, "x.lock")) == text


def test_file_is_a_requirements_file():
    """Every pin is a line that pip's --require-hashes mode accepts, with file name and size in its comment."""
    line = render(lock(pin("a"))).splitlines()[-1]
    assert line == f"a==1.0 --hash=sha256:{'ab' * 32}  # a-1.0-py3-none-any.whl 5"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("# format: 1", "# format: 2", "not a lock of format 1"),
        ("# uv: 0.13.9\n", "", "not a lock of format 1"),
        ("# require: numpy", "# require: numpy<2", "its header was edited"),
        ("# python: 3.13", "# python: 3.12", "its header was edited"),
        ("# uv: 0.13.9", "# uv: \x1b[31m", "its header was edited"),
        ("# exclude-newer: 2026", "# exclude-newer: 9999-99", "its header was edited"),
        ("--hash=sha256:ab", "--hash=sha256:zz", "not a pin of one wheel: a==1.0"),
        ("a-1.0-py3-none-any.whl", "a-1.0.tar.gz", "not a pin of one wheel: a==1.0"),
    ],
)
def test_damaged_file_is_refused(old, new, what):
    """A lock that is of another format, cut, edited or not made of wheels is refused by name."""
    text = render(lock(pin("a")))
    assert old in text
    with pytest.raises(LockError, match=r"x\.lock") as caught:
        parse(text.replace(old, new), "x.lock")
    assert what in caught.value.what


def test_own_pins():
    """A flavour's own pins are those that its parent does not have; the first flavour's are all of them."""
    parent, child = lock(pin("a")), lock(pin("a"), pin("b"))
    assert wheel_locks.own(child, parent) == (pin("b"),)
    assert wheel_locks.own(parent, None) == (pin("a"),)


def test_digest_is_of_the_pins():
    """Locks with the same pins have the same digest, whatever they were asked for; another pin gives another."""
    assert lock(pin("a")).digest != lock(pin("a", "1.1")).digest
    assert lock(pin("a")).inputs == lock(pin("b")).inputs


def test_committed_locks_are_right(table):
    """Every committed lock matches matrix.yaml, the facts and the requirements, fits its Python, and contains its parent's."""
    assert wheel_locks.check(table) == ()


def is_locked(table, cell):
    """Return whether a cell must be locked, as all on the package index must, or somebody has locked it."""
    return compat.index(cell.torch, cell.wheels) is None or not wheel_locks.missing(cell, table.flavours)


def test_every_default_build_is_locked(table):
    """Every cell whose wheels are on the package index is locked, for every flavour."""
    for cell in table.cells:
        if is_locked(table, cell):
            assert [wheel_locks.read(cell, flavour).python for flavour in table.flavours] == [cell.os.python] * len(table.flavours)


def test_torch_is_locked_as_the_facts_say(table):
    """The lock holds the torch and the companions of the cell, from the build that it names."""
    for cell in table.cells:
        if is_locked(table, cell):
            versions = {pin.name: pin.version for pin in wheel_locks.read(cell, "base").pins}
            assert versions["torch"].partition("+")[0] == cell.version
            assert {name: versions.get(name) for name in ("torchvision", "torchaudio")} == {
                name: dict(pin.split("==") for pin in cell.companions).get(name) for name in ("torchvision", "torchaudio")
            }


@pytest.mark.parametrize(("short", "due"), [("2.4-cu121", True), ("2.8-cu121", True), ("2.10-cu128", False), ("2.13-cpu", False)])
def test_what_torchaudio_needs_is_locked(table, short, due):
    """Base brings what a torchaudio up to 2.8 loads files with; cells without torchaudio, or with one that takes FFmpeg, do not ask for it."""
    cell = matrix.select(table, short)[0]
    assert ("soundfile" in wheel_locks.requirements(cell, "base")) == due
    assert ("soundfile" in {pin.name for pin in wheel_locks.read(cell, "base").pins}) == due


@pytest.mark.parametrize("short", ["2.8-cu128", "2.10-cu128", "2.14-cu130", "2.15-cu132"])
def test_cuda_wheels_do_not_depend_on_the_python(table, short):
    """Every OS of a row has the same CUDA wheels, so that they are the same layers."""
    cells = matrix.select(table, f"{short}-*")
    cuda = {frozenset(pin for pin in wheel_locks.read(cell, "ssh").pins if pin.name.startswith("nvidia-")) for cell in cells}
    assert len(cells) > 2
    assert len(cuda) == 1


def test_asked_cuda_shares_the_locks_of_its_wheels(table):
    """2.8-cu121 and 2.8-cu128 are one build, and so one set of locks."""
    first, second = (matrix.select(table, short)[0] for short in ("2.8-cu121", "2.8-cu128"))
    assert wheel_locks.path_of(first, "base") == wheel_locks.path_of(second, "base") == "locks/2.8.0-cu128/cp313/base.lock"


def test_compiler_wheels_are_of_one_release(table):
    """CUDA 13's compiler, assembler and headers are locked at one release, and only from devel on."""
    cell = matrix.select(table, "2.15-cu132")[0]
    base, devel = ({pin.name: pin.version for pin in wheel_locks.read(cell, flavour).pins} for flavour in ("base", "devel"))
    assert "nvidia-cuda-nvcc" not in base
    assert {devel[name] for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl")} == {"13.2.86"}


def test_missing_lock_names_the_command(cell, copy):
    """A lock that is not there is reported with the command that makes it."""
    (copy / wheel_locks.path_of(cell, "base")).unlink()
    with pytest.raises(LockError, match=r"base\.lock is missing") as caught:
        wheel_locks.read(cell, "base", copy)
    assert caught.value.fix == "run: inv lock 2.8-cu121"


def test_unlocked_build_says_where_it_can_be_locked(table, tmp_path):
    """A build from PyTorch's own index that nobody has locked says so in one line."""
    with pytest.raises(LockError, match=r"2\.8-cu126 is not locked: its wheels are on PyTorch's own index") as caught:
        wheel_locks.read(matrix.select(table, "2.8-cu126")[0], "base", tmp_path)
    assert "inv lock 2.8-cu126" in caught.value.fix


def test_new_flavour_of_such_a_build_is_what_lacks(table, copy):
    """Where torch is locked, the file of the flavour is named: not the build, nor an index that has none of its wheels."""
    with pytest.raises(LockError, match=r"gym\.lock is missing") as caught:
        wheel_locks.read(matrix.select(table, "2.13-cpu")[0], "gym", copy)
    assert caught.value.fix == "run: inv lock 2.13-cpu"


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("numpy\n", "numpy<2\n", "now asks for numpy<2; no longer asks for numpy"),
        ("pillow\n", "", "no longer asks for pillow"),
        ("uv\n", "uv\nzstd\n", "now asks for zstd"),
    ],
)
def test_stale_lock_says_what_moved(cell, copy, old, new, moved):
    """A lock whose requirements.in has moved is refused, and says what is new and what is gone."""
    edit(copy / "images/base/requirements.in", old, new)
    with pytest.raises(LockError) as caught:
        wheel_locks.read(cell, "base", copy)
    assert f"no longer matches its inputs: {moved}" in caught.value.what
    assert caught.value.fix == "run: inv lock 2.8-cu121"


def test_comments_are_no_inputs(cell, copy):
    """A comment, or the order of lines, in requirements.in leaves locks valid."""
    path = copy / "images/base/requirements.in"
    path.write_text("# said differently\n" + "\n".join(sorted(path.read_text().splitlines(), reverse=True)))
    assert wheel_locks.read(cell, "base", copy).flavour == "base"


@pytest.mark.parametrize("line", ["numpy=2.5", "-e /tmp", "--index-url x", "numpy==2 ==3 x", "six @ https://host/six-1.0-py3-none-any.whl"])
def test_a_line_that_is_no_requirement_is_named(cell, copy, line):
    """With its file, where it would be read: by builds, checks and the resolver."""
    path = copy / "images/base/requirements.in"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(LockError, match=f"images/base/requirements.in: not a requirement: {line}"):
        wheel_locks.read(cell, "base", copy)


@pytest.mark.parametrize(("short", "asked"), [("2.8-cu121", True), ("2.13-cpu", False)])
def test_an_extra_is_for_cells_with_that_companion(table, copy, short, asked):
    """And the resolver gets the requirement alone, versions and all."""
    (copy / "images/ssh/requirements.in").write_text('timm<2; extra == "torchvision"\nnumpy\n')
    cell = next(cell for cell in table.cells if cell.short == short)
    assert wheel_locks.requirements(cell, "ssh", copy) == (("numpy", "timm<2") if asked else ("numpy",))


@pytest.mark.parametrize("marker", ['extra == "torchtext"', 'extra == "torchvision" and python_version > "3.11"', 'extra != "torchvision"'])
def test_an_extra_that_is_no_companion_is_named(cell, copy, marker):
    """With its file, and what it may be."""
    (copy / "images/ssh/requirements.in").write_text(f"timm; {marker}\n")
    with pytest.raises(LockError, match=r"images/ssh/requirements\.in: not for cells with a companion of torch: timm") as caught:
        wheel_locks.requirements(cell, "ssh", copy)
    assert caught.value.fix.endswith("torchvision, torchaudio")


def test_check_reports_a_lost_parent_pin(table, copy):
    """A child's lock without a pin of its parent's is wrong."""
    path = copy / "locks/2.8.0-cu128/cp313/jupyter.lock"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("sympy==")))
    (problem,) = [problem for problem in wheel_locks.check(table, copy) if "jupyter.lock" in problem.what]
    assert problem.what == "locks/2.8.0-cu128/cp313/jupyter.lock does not contain sympy 1.14.0 of its parent"


def test_check_reports_a_wheel_of_another_python(table, copy):
    """A wheel that its Python cannot install is wrong, however good its hash."""
    edit(copy / "locks/2.8.0-cu128/cp313/ssh.lock", "torch-2.8.0-cp313-cp313", "torch-2.8.0-cp312-cp312")
    assert any("torch-2.8.0-cp312" in problem.what or "does not contain torch" in problem.what for problem in wheel_locks.check(table, copy))


def test_check_reports_a_pin_given_twice(table, copy):
    """Two versions of a package in one lock are wrong."""
    path = copy / "locks/2.13.0-cpu/cp311/base.lock"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    assert "not sorted, or one is there twice" in wheel_locks.check(table, copy)[0].what


def test_check_reports_missing_and_stray_locks(table, copy):
    """A lock that is not there, and one that no cell needs, are both reported."""
    shutil.move(copy / "locks/2.6.0-cu124/cp311", copy / "locks/2.6.0-cu124/cp39")
    problems = [problem.what for problem in wheel_locks.check(table, copy)]
    assert "locks/2.6.0-cu124/cp311/base.lock is missing" in problems
    assert "locks/2.6.0-cu124/cp39/base.lock belongs to no cell of matrix.yaml" in problems


def test_what_removes_a_stray_lock_removes_nothing_else(table, copy):
    """File managers put a space into the names of copies, and the first of two words would be the lock itself."""
    stray = copy / "locks/2.6.0-cu124/cp311 copy"
    shutil.copytree(copy / "locks/2.6.0-cu124/cp311", stray)
    (cure,) = {problem.fix for problem in wheel_locks.check(table, copy)}
    subprocess.run(cure.removeprefix("run: "), shell=True, cwd=copy, check=True)  # as people do
    assert (stray.exists(), wheel_locks.check(table, copy)) == (False, ())


@pytest.mark.parametrize("content", [b"\xff", b"#" * 5_000_000, b""])
def test_what_cures_a_lock_that_cannot_be_read(cell, copy, content):
    """It is made anew, also where git has none."""
    (copy / wheel_locks.path_of(cell, "base")).write_bytes(content)
    with pytest.raises(LockError) as caught:
        wheel_locks.read(cell, "base", copy)
    assert caught.value.fix == "run: inv lock 2.8-cu121"


def test_lock_of_another_build_is_refused(cell, copy):
    """A lock that was copied to another place is refused by what its header says."""
    shutil.copy(copy / "locks/2.8.0-cu128/cp311/base.lock", copy / "locks/2.8.0-cu128/cp313/base.lock")
    with pytest.raises(LockError, match=r"is the lock of python 3\.11, not 3\.13"):
        wheel_locks.read(cell, "base", copy)


def test_requirements_of_other_indexes_carry_the_build(table):
    """Wheels that are not the package index's are asked for by their local version."""
    cpu, cuda = (matrix.select(table, short)[0] for short in ("2.13-cpu", "2.8-cu126"))
    assert wheel_locks.requirements(cpu, "base")[0] == "torch==2.13.0+cpu"
    assert wheel_locks.requirements(cuda, "base")[:3] == ("torch==2.8.0+cu126", "torchvision==0.23.0+cu126", "torchaudio==2.8.0+cu126")


@pytest.mark.parametrize(
    ("filename", "python", "fits"),
    [
        ("torch-2.8.0-cp313-cp313-manylinux_2_28_x86_64.whl", "3.13", True),
        ("torch-2.8.0-cp312-cp312-manylinux_2_28_x86_64.whl", "3.13", False),
        ("torch-2.8.0-cp313-cp313t-manylinux_2_28_x86_64.whl", "3.13", False),
        ("torch-2.8.0-cp313-cp313-manylinux_2_28_aarch64.whl", "3.13", False),
        ("torch-2.4.1-cp311-cp311-manylinux1_x86_64.whl", "3.11", True),
        ("x-1-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.11", True),
        ("x-1-cp314-abi3-manylinux_2_17_x86_64.whl", "3.11", False),
        ("x-1-cp311-cp311-manylinux_2_34_x86_64.whl", "3.11", False),
        ("x-1-cp311-cp311-musllinux_1_2_x86_64.whl", "3.11", False),
        ("x-1-py3-none-any.whl", "3.10", True),
    ],
)
def test_wheels_fit_by_their_tags(filename, python, fits):
    """A wheel fits if one of its tags is of the Python and of a glibc up to 2.28."""
    assert resolver.fits(filename, python, "linux/amd64") is fits


def test_the_best_wheel_is_taken():
    """Of several wheels that fit, the most specific one is pinned, with the size that the index tells."""
    names = ("y-1-py3-none-any.whl", "y-1-cp311-cp311-manylinux_2_28_x86_64.whl", "y-1-cp312-cp312-manylinux_2_28_x86_64.whl")
    package = {"name": "Y", "version": "1", "wheels": [{"url": f"file:///p/{name}", "size": 7, "hashes": {"sha256": "cd" * 32}} for name in names]}
    ranks = {tag: rank for rank, tag in enumerate(resolver.supported("3.11", "linux/amd64"))}
    assert resolver._pin(package, ranks) == Pin(name="y", version="1", filename=names[1], sha256="cd" * 32, size=7)


def test_platforms_have_the_same_versions(table, copy):
    """The committed locks of another platform are files for it, of the versions of the default one; another version is refused by name."""
    (arm,) = matrix.select_on(table, "linux/arm64", "2.15-cu132-debian13")
    for flavour in table.flavours:
        other, own = (wheel_locks.read(each, flavour) for each in (arm.on("linux/amd64"), arm))
        assert {found.name: found.version for found in own.pins} == {found.name: found.version for found in other.pins}
        assert all(resolver.fits(found.filename, "3.13", "linux/arm64") for found in own.pins)
    path = copy / wheel_locks.path_of(arm, "base")
    version = next(found.version for found in wheel_locks.read(arm, "base").pins if found.name == "numpy")
    edit(path, f"numpy=={version}", "numpy==0.1")
    said = [problem.what for problem in wheel_locks.check(table, copy)]
    assert f"locks/2.15.0-cu132/cp313-arm64/base.lock has numpy 0.1, and on linux/amd64 it is {version}" in said


def test_a_platform_follows_the_default_one(table, copy):
    """Without the locks of the default platform there are no versions to follow: what is missing is named."""
    (arm,) = matrix.select_on(table, "linux/arm64", "2.15-cu132-debian13")
    for folder in ("cp313", "cp313-arm64"):
        shutil.rmtree(copy / "locks/2.15.0-cu132" / folder)
    outcome = lock_writer.write(table, [arm], root=copy)
    assert outcome.failed["2.15-cu132"].what == "locks/2.15.0-cu132/cp313/base.lock is missing, whose versions linux/arm64 gets"
    assert not (copy / "locks/2.15.0-cu132/cp313-arm64").exists()
