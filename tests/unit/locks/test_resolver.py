"""Resolving and writing locks for real, from a folder of small wheels: pip's find-links, so no network."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from tests import trees
from torchstrata.errors import LockError
from torchstrata.locks import lock_writer, resolver, wheel_locks
from torchstrata.matrix import matrix

MATRIX = """
name: images
systems:
  new: {distribution: debian, release: "13", suite: trixie, python: "3.13", glibc: "2.41", compilers: [g++-13], bootstrap: mmdebstrap, verified: true}
all_in_one: lab
rows:
  - {torch: "2.8", cuda: cu128, default: true, os: [new]}
  - {torch: "2.8", cuda: cu126, os: [new]}
strata:
  own_layer_over: 40_000_000
  cuda_groups:
    - {title: CUDA, wheels: ["nvidia-*"]}
"""

TARGET = resolver.ResolverTarget(python="3.13", platform="linux/amd64", exclude_newer="2026-11-17T00:00:00Z", undated=())


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Return a function that puts a wheel into the one folder where pip is configured to look."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {folder}\nindex-url =\nextra-index-url =\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))

    def put(name: str, version: str, *requires: str, tag: str = "py3-none-any"):
        path = folder / f"{name}-{version}-{tag}.whl"
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires), ""])
            )
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
        return path

    return put


@pytest.fixture
def checkout(tmp_path, shelf):
    """Return a small checkout whose needs are all on the shelf, and its matrix."""
    for name, version, *requires in [
        ("torch", "2.8.0", "numpy"),
        ("soundfile", "1.0"),
        ("torchvision", "0.23.0", "torch==2.8.0"),
        ("torchaudio", "2.8.0", "torch==2.8.0"),
        ("numpy", "1.0"),
        ("numpy", "2.0"),
        ("notebook", "1.0", "numpy"),
    ]:
        shelf(name, version, *requires)
    for flavour, text in {"base": "numpy\n", "devel": "# nothing\n", "lab": "notebook\n"}.items():
        (tmp_path / "images" / flavour).mkdir(parents=True)
        (tmp_path / "images" / flavour / "requirements.in").write_text(text)
    trees.grow(tmp_path, {"base": "", "devel": "base", "lab": "devel"})
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    return tmp_path, matrix.load(tmp_path / "matrix.yaml")


def test_newest_wheels_with_hash_and_size(shelf):
    """The newest wheels are pinned, with the hash and size of the very file, though find-links tells neither."""
    shelf("a", "1.0")
    path = shelf("a", "2.0", "b>=1")
    shelf("b", "1.5")
    a, b = resolver.resolve(["a"], (), TARGET)
    assert (a.name, a.version, a.filename, b.version) == ("a", "2.0", path.name, "1.5")
    assert (a.sha256, a.size) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def test_kept_pins_are_kept(shelf):
    """A pin of the parent's stays as it is, though a newer version is there."""
    shelf("a", "1.0")
    (old,) = resolver.resolve(["a"], (), TARGET)
    shelf("a", "2.0")
    assert resolver.resolve(["a"], (old,), TARGET) == (old,)


def test_no_solution_quotes_the_resolver(shelf):
    """What cannot be resolved is one line, with the resolver's reason."""
    shelf("a", "1.0", "b>=2")
    shelf("b", "1.0")
    with pytest.raises(LockError, match=r"uv finds no solution: .*b") as caught:
        resolver.resolve(["a"], (), TARGET)
    assert "\n" not in caught.value.what


def test_wheels_of_other_platforms_do_not_count(shelf):
    """A package that has wheels for another Python only is no solution."""
    shelf("a", "1.0", tag="cp310-cp310-manylinux_2_17_x86_64")
    with pytest.raises(LockError, match="uv finds no solution"):
        resolver.resolve(["a"], (), TARGET)


def test_locks_are_written_and_then_right(checkout):
    """Locking writes every flavour, each containing its parent's, and what it wrote passes the check."""
    root, table = checkout
    outcome = lock_writer.write(table, matrix.select(table, "2.8-cu128"), exclude_newer="2026-11-17", root=root)
    assert outcome.changed == tuple(f"locks/2.8.0-cu128/cp313/{flavour}.lock" for flavour in ("base", "devel", "lab"))
    base, lab = (wheel_locks.read(table.cells[0], flavour, root) for flavour in ("base", "lab"))
    assert [pin.name for pin in base.pins] == ["numpy", "soundfile", "torch", "torchaudio", "torchvision"]
    assert {pin.name: pin.version for pin in base.pins}["torchvision"] == "0.23.0"
    assert [pin.name for pin in wheel_locks.own(lab, base)] == ["notebook"]
    assert wheel_locks.check(table, root) == ()


def test_same_date_gives_the_same_bytes(checkout):
    """Locking again with the same date changes nothing."""
    root, table = checkout
    cells = matrix.select(table, "2.8-cu128")
    lock_writer.write(table, cells, exclude_newer="2026-11-17", root=root)
    before = {path: path.read_bytes() for path in root.glob("locks/*/*/*.lock")}
    outcome = lock_writer.write(table, cells, exclude_newer="2026-11-17", root=root)
    assert (outcome.changed, outcome.unchanged) == ((), 3)
    assert {path: path.read_bytes() for path in before} == before


def test_locks_name_no_place(checkout):
    """A lock holds file names, and neither an address nor a path of the machine that made it."""
    root, table = checkout
    lock_writer.write(table, matrix.select(table, "2.8-cu128"), exclude_newer="2026-11-17", root=root)
    for path in root.glob("locks/*/*/*.lock"):
        assert "://" not in path.read_text()
        assert str(root) not in path.read_text()


def test_unreachable_index_does_not_spoil_the_rest(checkout):
    """A build from PyTorch's own index fails by name where pip may ask no index, and the others are locked."""
    root, table = checkout
    lines: list[str] = []
    outcome = lock_writer.write(table, table.cells, exclude_newer="2026-11-17", root=root, on_line=lines.append)
    assert list(outcome.failed) == ["2.8-cu126"]
    assert "2.8-cu126 comes from PyTorch's own index, and pip's no-index forbids to look there" in outcome.failed["2.8-cu126"].what
    assert len(outcome.changed) == 3
    assert len(lines) == 2


def test_reachable_other_build_is_locked(checkout, shelf):
    """Where its wheels can be found, a build from PyTorch's own index is locked like any other."""
    root, table = checkout
    shelf("torch", "2.8.0+cu126", "numpy")
    shelf("torchvision", "0.23.0+cu126", "torch==2.8.0")
    shelf("torchaudio", "2.8.0+cu126", "torch==2.8.0")
    outcome = lock_writer.write(table, matrix.select(table, "2.8-cu126"), exclude_newer="2026-11-17", root=root)
    assert outcome.failed == {}
    assert {pin.name: pin.version for pin in wheel_locks.read(table.cells[1], "base", root).pins}["torch"] == "2.8.0+cu126"


def test_conflict_with_the_parent_is_reported(checkout, shelf):
    """A flavour that needs another version than its parent locked cannot be locked; nothing of the chain is written."""
    root, table = checkout
    shelf("notebook", "2.0", "numpy<2")
    (root / "images/lab/requirements.in").write_text("notebook>=2\n")
    outcome = lock_writer.write(table, matrix.select(table, "2.8-cu128"), exclude_newer="2026-11-17", root=root)
    assert "uv finds no solution" in outcome.failed["2.8-cu128"].what
    assert not list(root.glob("locks/*/*/*.lock"))
