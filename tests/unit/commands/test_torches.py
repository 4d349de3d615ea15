"""A torch is one command: it reads what indexes publish, in parts, and writes all that lists it, or nothing."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import trees
from tests.standin import FLAVOURS, MATRIX, PackageIndex
from tests.wheelhouse import forged, wheel
from torchstrata.commands import torches
from torchstrata.commands.options import AddTorchOptions, DropTorchOptions
from torchstrata.errors import FetchError, IntegrityError, MatrixError, StoreError
from torchstrata.layers import published
from torchstrata.locks import lockfile
from torchstrata.matrix import compat, entries, matrix
from torchstrata.verification import size_budget

GIT = "0123456789abcdef0123456789abcdef01234567"
FLAGS = b"ipc_handlesm_75 sm_80 sm_120\0other\0"
CUDA_12 = ("nvidia-cudnn-cu12==9.99.1", "nvidia-nccl-cu12==2.99.1; platform_system == 'Linux'", "triton~=3.9.0", "optree>=0.13; extra == 'optree'")
README = "| cell | wheels |\n|---|---|\n| `2.8-cu128` | ... |\n| `2.8-cu126` | ... |\n\nThe end.\n"
LINE = "| `2.16-cu128` | 2.16.1 for CUDA 12.8 | 525.60.13 | new, old | `v2.16`; no torchaudio |\n"
ROW = '  - {torch: "2.16", cuda: cu128, default: true, os: [new, old]}\n'
NOBODY = "http://127.0.0.1:9/simple"


def torch_files(version, cuda="12.8", flags=FLAGS):
    """Return the files of a wheel of torch that say what it is."""
    local = f"+cu{cuda.replace('.', '')}" if cuda else ""
    named = f"__version__ = '{version}{local}'\ndebug = False\ncuda: Optional[str] = {cuda!r}\ngit_version = '{GIT}'\nhip: Optional[str] = None\n"
    return {"torch/version.py": named.encode(), "torch/lib/libtorch_python.so": flags, "torch/lib/large.so": os.urandom(1 << 18)}


def publish(  # noqa: PLR0913  # what makes an upload
    index, name, version, *requires, files=(), python="cp313", machine="x86_64", uploaded="2026-11-02T10:00:00Z", libc="manylinux_2_28"
):
    """Publish a wheel as upstream builds them."""
    more = "\n".join(f"Requires-Dist: {each}" for each in requires)
    made = wheel(index.folder, name, version, dict(files), more=more, tag=f"{python}-{python}-{libc}_{machine}")[1]
    index.uploads[made.name] = uploaded
    return made


@functools.cache
def torch_wheel(version, requires, cuda, flags, python, machine):  # noqa: PLR0913, PLR0917  # what makes it
    """Return name and content of a wheel of torch, which takes long to make."""
    with tempfile.TemporaryDirectory() as folder:
        there = PackageIndex(folder=Path(folder), is_dated=True)
        path = publish(there, "torch", version, *requires, files=torch_files(version.partition("+")[0], cuda, flags), python=python, machine=machine)
        return path.name, path.read_bytes()


def publish_torch(index, version, *requires, cuda="12.8", flags=FLAGS, machine="x86_64", uploaded="2026-11-02T10:00:00Z"):  # noqa: PLR0913  # what makes an upload
    """Publish torch for two Pythons."""
    made = [torch_wheel(version, requires, cuda, flags, python, machine) for python in ("cp311", "cp313")]
    for name, content in made:
        (index.folder / name).write_bytes(content)
        index.uploads[name] = uploaded
    return [index.folder / name for name, _ in made]


def furnish(default, upstream):
    """Publish two patch releases of a torch that the facts do not know, what needs them, and what must not be taken."""
    publish_torch(default, "2.16.0", uploaded="2026-10-30T10:00:00Z")
    publish_torch(default, "2.16.1", *CUDA_12)
    publish_torch(default, "2.16.2rc1")
    publish(default, "torchvision", "0.31.0", "torch==2.16.0", uploaded="2026-10-30T11:00:00Z")
    publish(default, "torchvision", "0.31.1", "torch==2.16.1", uploaded="2026-11-02T11:00:00Z")
    publish(default, "torchaudio", "2.11.1", "torch>=2.11")
    publish_torch(upstream, "2.16.1+cu126", "nvidia-cudnn-cu12==9.98", cuda="12.6", flags=b"\0sm_50 sm_90 compute_90\0")


@pytest.fixture
def indexes(tmp_path, monkeypatch, unconfigured_pip):
    """Serve the index that pip is configured with, and PyTorch's own."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    with (
        PackageIndex(folder=tmp_path / "default", is_dated=True).serve() as default,
        PackageIndex(folder=tmp_path / "upstream", is_dated=False).serve() as upstream,
    ):
        monkeypatch.setenv("PIP_INDEX_URL", default.url)
        yield default, upstream


@pytest.fixture
def root(tmp_path, indexes):
    """Give the files of a checkout that list each torch."""
    place = tmp_path / "checkout"
    (place / torches.FACTS).parent.mkdir(parents=True)
    facts = json.loads(compat.FACTS.read_text())
    facts["upstream"]["indexes"] = dict.fromkeys(facts["upstream"]["indexes"], indexes[1].url)
    (place / torches.FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    (trees.grow(place, FLAVOURS) / torches.ROWS).write_text(MATRIX)
    (place / torches.README).write_text(README)
    return place


def content(root):
    """Return all files below a directory."""
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def add(root, torch="2.16", **options):
    """Add a torch for good."""
    torches.add(AddTorchOptions(torch=torch, yes=True, **options), root)


def refused(root, error, says, torch="2.16", **options):
    """See that adding a torch ends in an error that says why, and that nothing is written."""
    before = content(root)
    with pytest.raises(error, match=says):
        add(root, torch, **options)
    assert content(root) == before


def read(root, torch="2.16"):
    """Return the facts of a torch in a checkout."""
    return compat.of((root / torches.FACTS).read_bytes()).torch[torch]


@pytest.mark.parametrize(
    ("cuda", "version", "expected"),
    [
        ("12.8", "2.16.1", {"linux/arm64": (("9.0", "12.0"), ())}),
        (None, "2.16.1", {}),
        ("12.8", "2.16.0", {}),
    ],
)
def test_other_platforms_have_code_of_their_own(root, indexes, cuda, version, expected):
    """What the same version for the same CUDA has for aarch64 is read from that wheel; CPU wheels and other versions are none."""
    furnish(*indexes)
    publish_torch(indexes[0], version, *CUDA_12, cuda=cuda, flags=b"\0sm_90 sm_120\0", machine="aarch64")
    add(root)
    found = {platform: (build.architectures, build.ptx) for platform, build in read(root).builds["cu128"].elsewhere.items()}
    assert found == expected
    assert read(root).builds["cu128"].architectures != ("9.0", "12.0")


def test_facts_follow_from_what_is_published(root, indexes):
    """The newest patch release, its Pythons, pins, binary and companions; a range on torch alone is no companion."""
    furnish(*indexes)
    add(root)
    release = read(root)
    assert (release.version, release.released, release.git, release.glibc) == ("2.16.1", "2026-11-02", GIT, "2.28")
    assert (release.pythons, release.triton, release.cuda_toolkit) == (("3.11", "3.13"), "~=3.9.0", None)
    assert (release.torchvision, release.torchaudio) == ("0.31.1", None)
    build = release.builds["cu128"]
    assert (build.cuda, build.default, build.cudnn, build.nccl) == ("12.8", True, "9.99.1", "2.99.1")
    assert (build.architectures, build.ptx) == (("7.5", "8.0", "12.0"), ())
    assert not release.builds["cpu"].default
    assert not {"cu128", "cpu"} & {*release.unknown_builds}


def test_row_and_line_stand_in_order_and_all_else_stays(root, indexes):
    """The newest torch is the first; without its lines every file is what it was."""
    furnish(*indexes)
    before = content(root)
    add(root)
    rows, readme = (root / torches.ROWS).read_text(), (root / torches.README).read_text()
    assert f"rows:\n{ROW}" in rows
    assert f"|---|---|\n{LINE}" in readme
    assert (rows.replace(ROW, "").encode(), readme.replace(LINE, "").encode()) == (before[torches.ROWS], before[torches.README])
    assert entries.without_facts((root / torches.FACTS).read_text(), "2.16").encode() == before[torches.FACTS]


def test_no_wheel_is_downloaded(root, indexes, monkeypatch):
    """Of those of torch the large binary is never asked for."""
    furnish(*indexes)
    monkeypatch.setattr(published, "PIECE", 1 << 12)
    add(root)
    parts = [part.removeprefix("bytes=").split("-") for path, part in indexes[0].downloads() if path.startswith("/files/torch-")]
    assert parts
    assert sum(int(last) - int(first) + 1 for first, last in parts) < 1 << 17


def test_a_second_call_changes_nothing_and_says_so(root, indexes, capsys):
    """It does not even ask an index."""
    furnish(*indexes)
    add(root)
    made = content(root)
    indexes[0].requests.clear()
    add(root)
    assert (content(root), indexes[0].asked) == (made, [])
    assert "2.16-cu128 is there already: nothing to do" in capsys.readouterr().out


def test_a_line_that_is_missing_is_written_by_the_second_call(root, indexes):
    """As after a kill between two files."""
    furnish(*indexes)
    add(root)
    made = content(root)
    (root / torches.README).write_text(README)
    add(root)
    assert content(root) == made


def test_facts_that_a_row_lacks(root, indexes):
    """The error that names the command is cured by it: the row stays as it was written."""
    furnish(*indexes)
    row = '  - {torch: "2.16", cuda: cu128, default: true, os: [old]} # mine\n'
    (root / torches.ROWS).write_text(MATRIX.replace("rows:\n", f"rows:\n{row}"))
    with pytest.raises(MatrixError) as refused:
        matrix.load(root / torches.ROWS)
    assert refused.value.fix.endswith("or run: inv add-torch 2.16")
    add(root)
    assert row in (root / torches.ROWS).read_text()
    with compat.supposing(compat.of((root / torches.FACTS).read_bytes())):
        assert matrix.load(root / torches.ROWS).cells[0].version == "2.16.1"


def weighed(root, torch):
    """Record what images of a torch weigh, as ``inv sizes --write`` does."""
    with compat.supposing(compat.of((root / torches.FACTS).read_bytes())):
        table = matrix.load(root / torches.ROWS)
    cell = next(cell for cell in table.cells if cell.torch == torch)
    size_budget.write(table, {flavour: {cell.weighed: 10**9} for flavour in table.flavours}, root)
    (root / size_budget.RECORD).parent.mkdir(parents=True, exist_ok=True)
    size_budget.record(cell, {"torch": 10**9}, root)


def test_dropping_undoes_it(root, indexes):
    """Its locks and the sizes of its images go, too; those of others stay."""
    furnish(*indexes)
    weighed(root, "2.8")
    other = root / "locks" / "2.8.0-cu128" / "cp313" / "base.lock"
    other.parent.mkdir(parents=True)
    other.write_text("pins")
    before = content(root)
    add(root)
    weighed(root, "2.16")
    shutil.copytree(root / "locks" / "2.8.0-cu128", root / "locks" / "2.16.1-cu128")
    shutil.copytree(root / "locks" / "2.8.0-cu128", root / "locks" / f"{torches.HIDDEN}2.12.1-cu130")  # of a run that was killed
    torches.drop(DropTorchOptions(torch="2.16", yes=True), root)
    assert content(root) == before
    assert [path.name for path in (root / "locks").iterdir()] == ["2.8.0-cu128"]


def test_only_what_would_change_is_shown(root, indexes, capsys):
    """Without ``--yes``, for both verbs."""
    furnish(*indexes)
    before = content(root)
    torches.add(AddTorchOptions(torch="2.16"), root)
    assert content(root) == before
    assert f"+{ROW}" in capsys.readouterr().out
    add(root)
    made = content(root)
    torches.drop(DropTorchOptions(torch="2.16"), root)
    assert content(root) == made
    assert f"-{LINE}" in capsys.readouterr().out


def test_a_build_of_pytorchs_own_index(root, indexes):
    """It is read from there, beside the default one."""
    furnish(*indexes)
    add(root, cuda="cu126", os=("old",))
    builds = read(root).builds
    assert (builds["cu126"].cuda, builds["cu126"].default, builds["cu126"].cudnn) == ("12.6", False, "9.98")
    assert (builds["cu126"].architectures, builds["cu126"].ptx) == (("5.0", "9.0"), ("9.0",))
    assert builds["cu128"].default
    assert '{torch: "2.16", cuda: cu126, default: true, os: [old]}' in (root / torches.ROWS).read_text()


def test_another_build_of_a_torch_that_has_a_row(root, indexes):
    """It stands below the others of its torch, and ``v2.8`` goes on naming what it named."""
    publish_torch(indexes[0], "2.8.0", *CUDA_12)
    publish(indexes[0], "torchvision", "0.23.0", "torch==2.8.0")
    add(root, "2.8", cuda="cu129", os=("old",))
    assert 'cuda: cu126, os: [new]}\n  - {torch: "2.8", cuda: cu129, os: [old]}\n' in (root / torches.ROWS).read_text()
    assert "| `2.8-cu126` | ... |\n| `2.8-cu129` | 2.8.0 for CUDA 12.9 | 525.60.13 | old | |\n" in (root / torches.README).read_text()


def test_what_looks_for_another_build_of_a_torch_that_was_added(root, indexes):
    """The command reads one build; the error says how it reads another one, and that does."""
    furnish(*indexes)
    add(root)
    with pytest.raises(MatrixError, match=r"nobody has established that torch 2\.16 was published for cu126") as caught:
        add(root, cuda="cu126")
    assert caught.value.fix.endswith("inv drop-torch 2.16 --yes && inv add-torch 2.16 --cuda cu126 --yes")
    torches.drop(DropTorchOptions(torch="2.16", yes=True), root)
    add(root, cuda="cu126")
    assert {"cu126", "cu128"} < {*read(root).builds}


def test_facts_of_people_stay(root, indexes, capsys):
    """Where they are not what an index says, that is shown; dropping leaves them."""
    facts = (root / torches.FACTS).read_bytes()
    publish_torch(indexes[0], "2.9.7", *CUDA_12)
    publish(indexes[0], "torchvision", "0.24.9", "torch==2.9.7")
    add(root, "2.9")
    assert "facts of torch 2.9.1: version is 2.9.1, and indexes say 2.9.7; what the facts say stays" in capsys.readouterr().out
    assert (root / torches.FACTS).read_bytes() == facts
    torches.drop(DropTorchOptions(torch="2.9", yes=True), root)
    assert (root / torches.FACTS).read_bytes() == facts


@pytest.mark.parametrize(
    ("torch", "options", "says"),
    [
        ("2.61", {}, "no index has wheels of a torch 2.61"),
        ("2.16.1", {}, "2.16.1 is no minor version"),
        ("2.16", {"cuda": "12.6"}, "12.6 is no build of torch"),
        ("2.16", {"cuda": "cu999"}, "name no index of builds for cu999"),
        ("2.16", {"cuda": "cu129"}, "upstream never published torch 2.16.1 for cu129"),
        ("2.8", {"cuda": "cu132"}, "upstream never published torch 2.8 for cu132"),
        ("2.8", {"os": ("old",)}, "has 2.8-cu128 already, on new, old"),
        ("2.16", {"os": ("newest",)}, "unknown OS newest"),
        ("2.16", {"architectures": "7.5"}, "architectures are told with their source"),
        ("2.16", {"architectures": "7.5 sm_80", "source": "notes"}, "sm_80 is no architecture"),
        ("2.16", {"released": "November"}, "November is no day"),
    ],
)
def test_what_cannot_be_added(root, indexes, torch, options, says):
    """One line says why, and nothing is written."""
    furnish(*indexes)
    refused(root, MatrixError, says, torch, **options)


def test_a_torch_that_no_row_has_cannot_be_dropped(root):
    """The nearest ones are named."""
    with pytest.raises(MatrixError, match=r"no row of torch 2\.61") as refused:
        torches.drop(DropTorchOptions(torch="2.61", yes=True), root)
    assert "2.8" in refused.value.fix


@pytest.mark.parametrize(
    ("cuda", "requires", "says"),
    [
        ("13.9", (), "is built for CUDA 13.9, of which the facts know nothing"),
        ("13.2", ("cuda-toolkit[nvcc]==13.2.9",), "no CUDA 13.2 compiler is known for torch 2.16"),
    ],
)
def test_what_is_not_in_wheels_is_asked_for(root, indexes, cuda, requires, says):
    """A CUDA of which nothing is known is none that could be guessed."""
    publish_torch(indexes[0], "2.16.0", *requires, cuda=cuda)
    publish(indexes[0], "torchvision", "0.31.0", "torch==2.16.0")
    refused(root, MatrixError, says)


@pytest.mark.parametrize("flags", [b"none", b"\0sm_75 sm_80\0sm_90 sm_120\0"])
def test_architectures_are_told_where_the_binary_does_not_say_them(root, indexes, flags):
    """In no place or in two: the error names the option, and with it the facts have them and their source."""
    publish_torch(indexes[0], "2.16.0", flags=flags)
    publish(indexes[0], "torchvision", "0.31.0", "torch==2.16.0")
    with pytest.raises(MatrixError) as refused:
        add(root)
    assert "--architectures" in refused.value.fix
    add(root, architectures="7.5 9.0", source="release notes")
    build = read(root).builds["cu128"]
    assert (build.architectures, build.architectures_source, build.ptx) == (("7.5", "9.0"), "release notes", None)


def test_an_index_that_tells_no_times(root, indexes):
    """The day of the release is asked for."""
    indexes[0].is_dated = False
    furnish(*indexes)
    with pytest.raises(MatrixError) as refused:
        add(root)
    assert "--released" in refused.value.fix
    add(root, released="2026-11-03")
    assert (read(root).released, read(root).torchvision) == ("2026-11-03", "0.31.1")


def test_a_companion_that_is_not_there_yet(root, indexes):
    """Without torchvision, which follows some days later, there is no row."""
    publish_torch(indexes[0], "2.16.0")
    with pytest.raises(MatrixError, match=r"no torchvision on the index pins torch 2\.16\.0"):
        add(root)


def publish_companion(index, name, requires, variant):
    """Publish a companion whose ``version.py`` names a CUDA, as upstream builds them."""
    text = f"__version__ = '0.31.1{f'+{variant}' if variant else ''}'\n"
    publish(index, name, "0.31.1", requires, files={f"{name}/version.py": text.encode()})


@pytest.mark.parametrize(
    ("requires", "variant", "taken"),
    [
        ("torch>=2.14.0", "cu128", True),
        ("torch>=2.14.0", "cu130", False),
        ("torch>=2.14.0", "", False),
        ("torch>=2.17", "cu128", False),
        ("torch", "cu128", False),
    ],
)
def test_a_companion_that_allows_this_torch(root, indexes, requires, variant, taken):
    """Since 0.29.1 torchvision pins no torch: one that allows it is its companion if it says that it was built for the same CUDA."""
    publish_torch(indexes[0], "2.16.1", *CUDA_12)
    publish(indexes[0], "torchvision", "0.31.0", "torch==2.16.1")
    publish_companion(indexes[0], "torchaudio", requires, variant)
    add(root)
    release = read(root)
    assert (release.torchaudio, release.torchaudio_builds) == (("0.31.1", ("cu128",)) if taken else (None, None))


def test_torchvision_that_allows_this_torch(root, indexes):
    """It is what a torch is added with; one for another CUDA is not, and the error says so."""
    publish_torch(indexes[0], "2.16.1", *CUDA_12)
    publish_companion(indexes[0], "torchvision", "torch>=2.14.0", "cu130")
    refused(root, MatrixError, r"no torchvision on the index pins torch 2\.16\.1, or allows it and is built for cu128")
    publish_companion(indexes[0], "torchvision", "torch>=2.14.0", "cu128")
    add(root)
    assert read(root).torchvision == "0.31.1"


def test_a_pin_is_better_than_a_range(root, indexes):
    """Though what allows this torch was uploaded nearer to it."""
    publish_torch(indexes[0], "2.16.1", *CUDA_12)
    publish_companion(indexes[0], "torchvision", "torch>=2.14", "cu128")
    publish(indexes[0], "torchvision", "0.31.0", "torch==2.16.1", uploaded="2026-11-09T10:00:00Z")
    add(root)
    assert read(root).torchvision == "0.31.0"


@pytest.mark.parametrize(("libc", "glibc"), [("manylinux1", "2.5"), ("manylinux2014", "2.17"), ("manylinux_2_17", "2.17")])
def test_old_names_of_platforms(root, indexes, libc, glibc):
    """Torch up to 2.6 has the names of before PEP 600."""
    publish(indexes[0], "torch", "2.16.1", *CUDA_12, files=torch_files("2.16.1"), libc=libc)
    publish(indexes[0], "torchvision", "0.31.1", "torch==2.16.1")
    add(root, os=("new",))
    assert read(root).glibc == glibc


def said(text):
    """Return the files of a wheel of torch 2.16.1 whose METADATA has ``text``."""
    return {"torch-2.16.1.dist-info/METADATA": f"Metadata-Version: 2.1\n{text}\n".encode(), **torch_files("2.16.1")}


LIES = {
    "another package": said("Name: torchx\nVersion: 2.16.1"),
    "another version": said("Name: torch\nVersion: 2.8.0"),
    "no requirement": said("Name: torch\nVersion: 2.16.1\nRequires-Dist: =="),
    "another torch within": torch_files("2.8.0"),
    "a half of it": None,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_index_that_lies(root, indexes, lie):
    """What a wheel says of itself must be what its name says, before anything of it counts."""
    furnish(*indexes)
    for python in ("cp311", "cp313"):
        path = indexes[0].folder / f"torch-2.16.1-{python}-{python}-manylinux_2_28_x86_64.whl"
        forged(path, lie) if lie else path.write_bytes(path.read_bytes()[:2000])
    refused(root, IntegrityError, r"torch-2\.16\.1.* is not what its name says")


@pytest.mark.parametrize("wrong", ["silent", "whole"])
def test_an_index_that_does_not_answer(root, indexes, monkeypatch, wrong):
    """At all, or not with the part that was asked for: what would be the whole wheel is not taken."""
    furnish(*indexes)
    monkeypatch.setenv("PIP_INDEX_URL", NOBODY if wrong == "silent" else indexes[0].url)
    indexes[0].ranges = False
    refused(root, FetchError, "does not answer")


def test_no_index_forbids_to_look(root, monkeypatch):
    """The option of pip is named."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match="no-index"):
        add(root)


@pytest.mark.parametrize("verb", ["add", "drop"])
def test_what_cannot_be_written_leaves_everything_as_it_was(root, indexes, monkeypatch, verb):
    """The last file fails: the first ones are put back, and directories of locks as well."""
    furnish(*indexes)
    if verb == "drop":
        add(root)
        (root / "locks" / "2.16.1-cu128").mkdir()
        (root / "locks" / "2.16.1-cu128" / "base.lock").write_text("pins")
    before = content(root)
    real = lockfile.replaced

    def replaced(path, text):
        if path.name == "README.md" and text.encode() != before[torches.README]:
            raise StoreError("disk", fix="x")
        return real(path, text)

    monkeypatch.setattr(lockfile, "replaced", replaced)
    with pytest.raises(StoreError):
        add(root) if verb == "add" else torches.drop(DropTorchOptions(torch="2.16", yes=True), root)
    assert content(root) == before


@pytest.mark.parametrize("torch", ["1.13", "2.1", "2.8", "2.9", "2.12", "2.13", "2.16"])
def test_a_row_comes_and_goes_in_the_matrix_of_today(torch):
    """Whatever stands beside it, comments and rows of several lines included."""
    text = matrix.MATRIX.read_text()
    with_it = entries.with_row(text, torch, "cu128", ["debian13"], default=True)
    (line,) = set(with_it.splitlines()) - set(text.splitlines())
    assert line == f'  - {{torch: "{torch}", cuda: cu128, default: true, os: [debian13]}}'
    if all(cell.torch != torch for cell in matrix.load().cells):
        assert entries.without_rows(with_it, torch) == text


def test_rows_go_with_the_comments_above_them():
    """A remark on what is no longer there says nothing."""
    without = entries.without_rows(matrix.MATRIX.read_text(), "2.13")
    assert "For machines without a GPU" not in without
    assert "rows:" in without


def test_a_row_of_another_shape_is_for_people():
    """It is not guessed where it ends."""
    with pytest.raises(MatrixError, match="not in braces"):
        entries.with_row('rows:\n  - torch: "2.8"\n    cuda: cu128\n', "2.9", "cu128", ["debian13"], default=True)


def test_facts_of_today_are_formatted_as_they_are_written():
    """Else adding a torch would change lines of others."""
    text = compat.FACTS.read_text()
    assert entries.without_facts(entries.with_facts(text, "2.99", compat.torch("2.8")), "2.99") == text
    with pytest.raises(MatrixError, match="indented"):
        entries.without_facts(json.dumps(json.loads(text)), "2.8")
