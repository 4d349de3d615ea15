"""The matrix: what is read, what is refused and in which words, and how cells are chosen."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from tests import trees
from torchstrata.errors import MatrixError, PlatformError
from torchstrata.matrix import matrix, schema

SMALL = """
name: images
systems:
  new: {distribution: debian, release: "13", suite: trixie, python: "3.13", glibc: "2.41", compilers: [g++-14, g++-13], bootstrap: mmdebstrap, verified: true}
  old: {distribution: debian, release: "12", suite: bookworm, python: "3.11", glibc: "2.36", compilers: [g++-12], bootstrap: mmdebstrap, verified: true}
all_in_one: devel
rows:
  - {torch: "2.8", cuda: cu128, serves: cu121, default: true, os: [new, old]}
  - {torch: "2.8", cuda: cu128, os: [new]}
strata:
  own_layer_over: 40_000_000
  cuda_groups:
    - {title: CUDA, wheels: ["nvidia-*"]}
"""
SERVES = '  - {torch: "2.8", cuda: cu128, serves: cu121, default: true, os: [new, old]}\n'


@pytest.fixture
def small(tmp_path):
    """Return a function that loads the small matrix after replacing text in it."""

    def load(*replacements: tuple[str, str]) -> matrix.Matrix:
        text = SMALL
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "matrix.yaml"
        path.write_text(text)
        return matrix.load(trees.grow(tmp_path, trees.SMALL) / "matrix.yaml")

    return load


@pytest.fixture(scope="module")
def committed():
    """Return the committed matrix."""
    return matrix.load()


def test_ids_name_torch_cuda_and_os(small):
    """A cell's id is torch, the asked CUDA and the OS; the first OS of a row is its default, which the short id means too."""
    cells = small().cells
    assert [cell.id for cell in cells] == ["2.8-cu121-new", "2.8-cu121-old", "2.8-cu128-new"]
    assert [cell.names for cell in cells][:2] == [("2.8-cu121", "2.8-cu121-new"), ("2.8-cu121-old",)]


def test_serving_cell_is_built_from_other_wheels(committed):
    """2.8-cu121 is torch 2.8.0 from the cu128 wheels, for drivers of CUDA 12.0 and newer, and says both CUDA versions."""
    (cell,) = matrix.select(committed, "2.8-cu121")
    facts = cell.facts
    assert (cell.id, cell.build, cell.version) == ("2.8-cu121-debian13", "2.8.0-cu128", "2.8.0")
    assert (facts.asked_cuda, facts.cuda_version, facts.driver_floor, facts.require_cuda) == ("12.1", "12.8", "525.60.13", "cuda>=12.0")
    assert facts.architectures == ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
    assert facts.missing_architectures == ("10.0", "12.0")


def test_cpu_cell_asks_for_no_driver(committed):
    """The CPU cell has no CUDA, no driver floor, no compiler and no companions."""
    (cell,) = matrix.select(committed, "2.13-cpu")
    facts = cell.facts
    assert (cell.build, cell.companions) == ("2.13.0-cpu", ())
    assert (facts.cuda_version, facts.asked_cuda, facts.driver_floor, facts.require_cuda, facts.nvcc) == (None, None, None, None, None)


def test_companions_follow_the_facts(committed):
    """Torchvision and torchaudio follow torch, and its CUDA where their own version does not say which torch they are for."""
    (old,), (new,) = matrix.select(committed, "2.8-cu128"), matrix.select(committed, "2.15-cu132")
    assert old.companions == ("torchvision==0.23.0", "torchaudio==2.8.0")
    assert new.companions == ("torchvision==0.29.2", "torchaudio==2.11.1")


def test_one_cell_of_each_torch_is_named(committed):
    """v2.8 and its like mean exactly one cell each, on its row's default OS."""
    named = [cell for cell in committed.cells if cell.named]
    assert sorted(cell.torch for cell in named) == sorted({cell.torch for cell in committed.cells})
    assert all(cell.is_default_os for cell in named)
    assert "2.8-cu121-debian13" in [cell.id for cell in named]


def test_host_compiler_fits_the_toolchain(committed):
    """Each cell takes its OS's newest g++ that its nvcc accepts: 12.4 ends at g++ 13, CUDA 13 takes 14."""
    compilers = {cell.id: cell.host_compiler for cell in committed.cells}
    assert compilers["2.8-cu121-debian13"] == "g++-13"
    assert compilers["2.15-cu132-debian13"] == "g++-14"
    assert compilers["2.8-cu121-debian12"] == "g++-12"


@pytest.mark.parametrize(
    ("globs", "ids"),
    [
        (["2.8-cu121"], ["2.8-cu121-new"]),
        (["2.8-cu121-old"], ["2.8-cu121-old"]),
        (["2.8-cu121*"], ["2.8-cu121-new", "2.8-cu121-old"]),
        (["*-old", "2.8-cu128"], ["2.8-cu121-old", "2.8-cu128-new"]),
        ([], ["2.8-cu121-new", "2.8-cu121-old", "2.8-cu128-new"]),
    ],
)
def test_select(small, globs, ids):
    """Globs match ids, a short id means the default OS, and no globs mean everything; the order is the file's."""
    assert [cell.id for cell in matrix.select(small(), *globs)] == ids


@pytest.mark.parametrize(
    ("glob", "reason"),
    [
        ("2.8-cu118", "never published torch 2.8 for cu118; the last torch with cu118 is 2.7.1"),
        ("2.8-cu129", "matrix.yaml has no such row"),
        ("2.8-cu121-sid", "sid is none of new, old"),
        ("2.15-cu126", "nobody has established that torch 2.15 was published for cu126"),
        ("2.8_cu121", "no cell matches 2.8_cu121"),
        ("2.8-cu121-arm64", "no cell matches 2.8-cu121-arm64: its end is said by --platform linux/arm64"),
        ("2.8-cu121-devel", "2.8-cu121-devel names an image, not a cell: cell 2.8-cu121, flavour devel"),
        ("2.8-cu121-old-base", "2.8-cu121-old-base names an image, not a cell: cell 2.8-cu121-old, flavour base"),
        ("v2.8", "v2.8 names an image, not a cell: cell 2.8-cu121, flavour devel"),
    ],
)
def test_unknown_cell_names_reason_and_nearest(small, glob, reason):
    """A selection that matches nothing says why, and which cells come nearest."""
    with pytest.raises(MatrixError) as caught:
        matrix.select(small(), glob)
    assert reason in caught.value.what
    assert "2.8-cu121" in caught.value.fix


ROW = '{torch: "2.8", cuda: cu128, os: [new]}'

REFUSED = {
    "never published": (
        (ROW, '{torch: "2.8", cuda: cu124, os: [new]}'),
        "never published torch 2.8 for cu124; the last torch with cu124 is 2.6.0",
        "cu126, cu128",
    ),
    "asked CUDA as a build": ((ROW, '{torch: "2.8", cuda: cu121, os: [new]}'), "never published torch 2.8 for cu121", "serves: cu121"),
    "unknown torch": ((ROW, '{torch: "3.0", cuda: cu128, os: [new]}'), "torch 3.0 is not a release", "2.15"),
    "python": (('python: "3.13"', 'python: "3.15"'), "new has Python 3.15, and torch 2.8.0 has wheels for 3.9, 3.10", "take new out"),
    "glibc": (('glibc: "2.36"', 'glibc: "2.17"'), "old has glibc 2.17, and torch 2.8.0 needs 2.28", "take old out"),
    "compiler": (("[g++-14, g++-13]", "[g++-14]"), "nvcc 12.4 accepts g++ up to 13, and the OS has g++-14", "older g++"),
    "torchaudio ended": (
        (ROW, '{torch: "2.13", cuda: cu130, default: true, os: [new], companions: [torchaudio]}'),
        "there is no torchaudio for torch 2.13: torchaudio ended at 2.11",
        "leave torchaudio out",
    ),
    "torchaudio pin": ((SERVES, SERVES.replace("]}", "], companions: [torchaudio==2.9.0]}")), "no torchaudio 2.9.0 for torch 2.8", "torchaudio==2.8.0"),
    "unknown key": ((ROW, ROW.replace("os:", "oses: x, os:")), "rows[1]: unknown key oses", "serves (optional)"),
    "unknown key above": (("name: images", "name: images\nimages: 1"), "top level: unknown key images", "name, systems, all_in_one, rows, strata"),
    "key that is no name": (("  old: {", "  Old: {"), "Old of systems: Expected `str` matching", "matrix.schema.json"),
    "missing key": ((', glibc: "2.36"', ""), "key glibc is missing", "distribution, release"),
    "key twice": (("name: images", "name: images\nname: twice"), "key name is given twice", "remove one"),
    "unquoted torch": ((ROW, "{torch: 2.10, cuda: cu128, os: [new]}"), "rows[1].torch is an unquoted number, so that 2.10 would be read as 2.1", '"2.10"'),
    "unquoted CUDA": ((ROW, '{torch: "2.10", cuda: 12.8, os: [new]}'), "rows[1].cuda is an unquoted number", "without the dot, such as cu128"),
    "no torch": ((ROW, "{torch: , cuda: cu128, os: [new]}"), "is read as a missing value", "write it"),
    "unquoted python": (('python: "3.13"', "python: 3.13"), "python is an unquoted number", '"2.10"'),
    "unquoted release": (('release: "13"', "release: 13"), "release is an unquoted number", '"2.10"'),
    "patch version": (('torch: "2.8", cuda: cu128, os', 'torch: "2.8.0", cuda: cu128, os'), "rows[1].torch", "matrix.schema.json"),
    "duplicate": ((ROW, f"{ROW}\n  - {ROW}"), "cell 2.8-cu128-new is there 2 times", "all but one"),
    "same OS twice": (("os: [new, old]", "os: [new, old, new]"), "cell 2.8-cu121-new is there 2 times", "all but one"),
    "unknown OS": (("os: [new, old]", "os: [new, older]"), "row 2.8-cu121: unknown OS older", "new, old"),
    "unknown all_in_one": (("all_in_one: devel", "all_in_one: all"), "all_in_one: unknown flavour all", "base, devel"),
    "serves another major": (("serves: cu121", "serves: cu118"), "cu128 wheels cannot serve cu118: minor-version compatibility ends", "of another torch"),
    "serves a newer major": (("serves: cu121", "serves: cu130"), "cu128 wheels cannot serve cu130", "of another torch"),
    "serves what exists": (("serves: cu121", "serves: cu126"), "upstream has a cu126 build of torch 2.8", "cuda: cu126"),
    "serves nonsense": (("serves: cu121", "serves: cu999"), "cu999 is no known CUDA", "cu121"),
    "no default": (("default: true, ", ""), "v2.8 names no row", "exactly one row"),
    "two defaults": ((ROW, ROW.replace("os:", "default: true, os:")), "v2.8 names 2.8-cu121 and 2.8-cu128", "exactly one row"),
    "no origin": (("g++-12], bootstrap: mmdebstrap", "g++-12]"), "system old must have a bootstrap or an image, and not both", "bootstrap: mmdebstrap"),
    "two companions for one build": (
        (ROW, ROW.replace("os:", "companions: [], os:")),
        "rows 2.8-cu121 and 2.8-cu128 share the locks of one build",
        "same companions",
    ),
    "not YAML": (("name: images", "name: [images"), "is not YAML", "correct it"),
    "empty list": (("os: [new, old]", "os: []"), "rows[0].os", "matrix.schema.json"),
}


@pytest.mark.parametrize(("replacement", "what", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused(small, replacement, what, fix):
    """Each impossible matrix has a one-line error of its own, and a line that says what is possible."""
    with pytest.raises(MatrixError) as caught:
        small(replacement)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert "\n" not in caught.value.what + caught.value.fix


def test_a_cell_on_another_platform(committed):
    """It has the same id, versions and names; facts and packages of its own; and only where its row offers it."""
    (cell,) = matrix.select(committed, "2.15-cu132")
    arm = cell.on("linux/arm64")
    assert (arm.id, arm.name, arm.os.name, arm.names) == (cell.id, "2.15-cu132-debian13-arm64", "debian13-arm64", cell.names)
    assert (cell.facts.architectures, arm.facts.architectures) == (
        ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0"),
        ("8.0", "9.0", "10.0", "11.0", "12.0"),
    )
    assert arm.on("linux/amd64").on("linux/arm64") == arm
    assert matrix.select_on(committed, "linux/arm64") == tuple(each.on("linux/arm64") for each in committed.cells if "linux/arm64" in each.platforms)
    assert [each.name for each in matrix.everywhere([cell])] == ["2.15-cu132-debian13", "2.15-cu132-debian13-arm64"]


@pytest.mark.parametrize(
    ("platform", "what", "fix"),
    [
        ("linux/arm64", "2.13-cpu cannot be offered on linux/arm64: the facts know no wheels of torch 2.13 cpu for it", "choose a row"),
        ("linux/riscv64", "'linux/riscv64' is no platform of images", "give one of linux/amd64, linux/arm64"),
    ],
)
def test_a_platform_that_a_row_does_not_offer(committed, platform, what, fix):
    """Who asks for it learns why not, with a code of its own."""
    with pytest.raises(PlatformError, match=re.escape(what)) as caught:
        matrix.select_on(committed, platform, "2.13-cpu")
    assert fix in caught.value.fix
    assert caught.value.code != MatrixError.code


@pytest.mark.parametrize(
    ("row", "error", "what"),
    [
        ("linux/amd64, linux/arm64", PlatformError, "row 2.8-cu121: the facts know no wheels of torch 2.8 cu128 for linux/arm64"),
        ("linux/arm64", MatrixError, "row 2.8-cu121: platforms linux/arm64 do not begin with linux/amd64"),
        ("linux/amd64, linux/amd64", MatrixError, "platforms linux/amd64, linux/amd64 name one twice"),
        ("linux/amd64, linux/s390x", MatrixError, "rows[0].platforms[1]: "),
    ],
)
def test_platforms_that_cannot_be(small, row, error, what):
    """A platform without wheels, one twice, none, and the default one left out: each is refused in one line."""
    with pytest.raises(error, match=re.escape(what)):
        small(("os: [new, old]}", f"os: [new, old], platforms: [{row}]}}"))


def test_no_file_is_one_line(tmp_path):
    """A matrix that is not there is an error of its own, not a traceback."""
    with pytest.raises(MatrixError, match="cannot be read"):
        matrix.load(tmp_path / "matrix.yaml")


@pytest.mark.parametrize(("file", "shape"), [(schema.SCHEMA, schema.MatrixFile), (schema.FLAVOUR_SCHEMA, schema.FlavourFile)])
def test_committed_schemas_are_the_generated_ones(file, shape):
    """The schemas that editors read are generated from the code."""
    assert file.read_text() == schema.generate(shape), "python -m torchstrata.matrix.schema writes them"


@pytest.mark.parametrize(("file", "where"), [("matrix.yaml", "./matrix"), *((path, "../../flavour") for path in matrix.ROOT.glob("images/*/flavour.yaml"))])
def test_files_refer_to_their_schema(file, where):
    """The first line tells editors where it is."""
    first = (matrix.ROOT / file).read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={where}.schema.json"


@pytest.mark.parametrize(
    ("globs", "systems"),
    [
        (("ubuntu24.04",), ["ubuntu24.04"]),
        (("ubuntu*", "2.4-cu121"), ["debian12", "ubuntu24.04", "ubuntu22.04"]),
        (("2.8-cu121-ubuntu24.04",), ["ubuntu24.04"]),
        ((), ["debian13", "debian12", "ubuntu24.04", "ubuntu22.04"]),
    ],
)
def test_systems_are_chosen_by_name_or_by_cell(committed, globs, systems):
    """In the order of the file, each once; no word means all."""
    assert [system.id for system in matrix.select_systems(committed, *globs)] == systems


def test_a_system_that_is_none_is_refused(committed):
    """With the nearest OSes."""
    with pytest.raises(MatrixError, match="neither an OS nor a cell matches debian14\n  -> nearest: debian13, debian12"):
        matrix.select_systems(committed, "debian14")


def test_unverified_systems_are_marked(committed):
    """Only OSes that nobody can build here may be marked so."""
    assert all(system.verified or system.image for system in committed.systems.values())


def test_three_hundred_cells(tmp_path):
    """A row of 151 OSes makes as many cells, each with names of its own."""
    names = [f"copy{number}" for number in range(150)]
    line = next(line for line in SMALL.splitlines() if line.startswith("  new:"))
    text = SMALL.replace("all_in_one:", "".join(f"  {line.strip().replace('new:', f'{name}:')}\n" for name in names) + "all_in_one:", 1)
    text = text.replace("os: [new, old]", f"os: [new, {', '.join(names)}]").replace("os: [new]", f"os: [new, {', '.join(names)}]")
    path = Path(tmp_path, "matrix.yaml")
    path.write_text(text)
    trees.grow(tmp_path, trees.SMALL)
    table = matrix.load(path)
    assert len(table.cells) == 302
    assert len(set(chain.from_iterable(cell.names for cell in table.cells))) == 304


CHANNELS = """
channels:
  nightly: {tags: ["nightly-{torch}-{cuda}-{flavour}"], max_age: 36 h}
  stable: {from: nightly, soak: 24 h, tags: ["{torch}-{cuda}-{flavour}", latest], max_age: 4 d}
"""


def test_channels_are_read(small):
    """Hours and days become durations; templates stay as they are."""
    stable = small(("\nstrata:", f"{CHANNELS}strata:")).channels["stable"]
    assert (stable.source, stable.soak.total_seconds(), stable.max_age.days) == ("nightly", 86400, 4)
    assert stable.tags == ("{torch}-{cuda}-{flavour}", "latest")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("from: nightly, ", "", "nightly and stable may take new images"),
        ("from: nightly", "from: beta", "channel stable: unknown channel beta"),
        ("from: nightly", "from: stable", "go round in a circle"),
        ("soak: 24 h, ", "", "channel stable needs both from and soak"),
        ("soak: 24 h", "soak: a day", "soak: Expected `str` matching"),
        ("latest", "'latest-{os}'", "has {os} without {cuda}"),
        ("latest", "'{cuda}-{flavour}'", "has {cuda} without {torch}"),
        ("latest", "'{torch}-{cuda}'", "has {cuda} without {flavour}"),
        ("latest", "'{python}'", "unknown {python}"),
        ("latest", "'.hidden'", ".hidden makes no tag"),
        ("latest", "'nightly-{torch}-{cuda}-{flavour}'", "is there 2 times"),
        ("max_age: 4 d", "max_age: 4 d, owner: me", "channels.stable: unknown key owner"),
    ],
)
def test_impossible_channels_are_refused(small, old, new, says):
    """Each with one line that says what is wrong."""
    text = CHANNELS.replace(old, new)
    assert text != CHANNELS
    with pytest.raises(MatrixError) as caught:
        small(("\nstrata:", f"{text}strata:"))
    assert says in caught.value.what
    assert "\n" not in caught.value.what
