"""OS parts built for real: BuildKit, mmdebstrap and the distribution's mirror, with two small flavours."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from torchstrata.building import engine, loading
from torchstrata.errors import OsPartError, StaleLockError
from torchstrata.layers import buildkit, os_layers, os_parts
from torchstrata.layers.os_image_source import OsImageSource
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.layers.os_parts import Parts
from torchstrata.locks import os_locks
from torchstrata.matrix import flavours, matrix
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

SYSTEM = matrix.load().systems["debian13"]
FLAVOURS = ("base", "devel")
DOCKERFILE = """\
FROM {parent}
ARG SOURCE_DATE_EPOCH
RUN --mount=from=apt,source=/apt,target=/mnt /mnt/install {package} # {nonce}
LABEL torchstrata.flavour={flavour}
"""

Lines = list[str]


def write(root: Path, *packages: str) -> Path:
    """Write a repository whose flavours add a package each; BuildKit has seen none of its steps before."""
    shutil.copytree(matrix.ROOT / "images" / "apt", root / "images" / "apt")
    for parent, flavour, package in zip(("os", *FLAVOURS), FLAVOURS, packages, strict=False):
        (root / "images" / flavour).mkdir()
        text = DOCKERFILE.format(parent=parent, flavour=flavour, package=package, nonce=uuid.uuid4())
        (root / "images" / flavour / "Dockerfile").write_text(text)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Give a locked repository, and the store that has what its lock was made from."""
    root, store = write(tmp_path_factory.mktemp("repository"), "less", "make"), Store(tmp_path_factory.mktemp("store"))
    written = OsPartBuilder(store=store, codec=Codec(), on_line=print, root=root).relock([SYSTEM], FLAVOURS)
    assert written == [os_locks.path(SYSTEM, root)]
    return root, store


@pytest.fixture
def again(made: tuple[Path, Store], tmp_path: Path) -> tuple[Path, Store]:
    """Give a fresh checkout with the same lock, and a copy of the store: only the OS image is still of use in it."""
    root, store = made
    shutil.copytree(root / "locks", write(tmp_path / "repository", "less", "make") / "locks")
    shutil.copytree(store.root, tmp_path / "store", ignore=shutil.ignore_patterns("tmp", "locks"))
    return tmp_path / "repository", Store(tmp_path / "store")


@pytest.fixture
def stale(again: tuple[Path, Store]) -> tuple[Path, Store]:
    """Give a checkout whose lock names a version that no mirror has."""
    root, store = again
    lock = os_locks.read(SYSTEM, root)
    sections = {**lock.sections, "base": {**lock.sections["base"], "less": "1-1"}}
    os_locks.write(os_locks.OsLock(system=lock.system, date=lock.date, sections=sections), SYSTEM, root)
    return root, store


def bake(where: tuple[Path, Store], on_line: Callable[[str], object] = print, *, locked: bool = True) -> Parts:
    """Bake both flavours."""
    root, store = where
    return OsPartBuilder(store=store, codec=Codec(), on_line=lambda line: on_line(line) and None, locked=locked, root=root).bake([SYSTEM], FLAVOURS)


def diff_ids(parts: Parts) -> dict[tuple[str, str], list[str]]:
    """Return what identifies the contents of parts."""
    return {key: [layer.diff_id for layer in part.layers] for key, part in parts.items()}


def test_what_a_lock_was_made_from_serves_it(made: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """After relock nothing is built again: no program but the store is needed."""
    root, _ = made
    lock = os_locks.read(SYSTEM, root)
    monkeypatch.setenv("PATH", "/nowhere")
    parts = bake(made)
    assert [len(parts["debian13", flavour].layers) for flavour in FLAVOURS] == [2, 1]
    assert "less" in lock.sections["base"]
    assert list(lock.sections["devel"]) == ["make"]


def test_builds_without_cache_are_identical(made: tuple[Path, Store], again: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another checkout under another umask and time zone, with pins instead of none and no cached step, gives the same blobs."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        parts = bake(again)
    finally:
        os.umask(before)
    assert diff_ids(parts) == diff_ids(bake(made))
    assert not [part for part in parts.values() if "drift" in part.notes]


def test_classic_stores_way_gives_the_same_layers(made: tuple[Path, Store], again: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that leave through an image of the engine equal those of an OCI layout, and the image goes again."""
    monkeypatch.setattr(buildkit, "exporter", lambda: "image")
    assert diff_ids(bake(again)) == diff_ids(bake(made))
    assert engine.connect().image_id("torchstrata-build:debian13-devel") is None


def test_dropped_version_is_replaced_told_and_noted(stale: tuple[Path, Store]) -> None:
    """Where the mirror no longer has a locked version, today's is used; one line says so, and the part records it."""
    lines: Lines = []
    parts = bake(stale, lines.append, locked=False)
    told = [line for line in lines if "not as locked" in line]
    assert len(told) == 1
    assert "less 1-1 -> " in told[0]
    assert parts["debian13", "base"].notes["drift"].startswith("less 1-1 -> ")
    assert bake(stale, locked=False) == parts


def test_locked_refuses_a_dropped_version(stale: tuple[Path, Store]) -> None:
    """With ``locked`` the same is an error that names the package, and nothing is remembered, not even by a build that was not locked."""
    with pytest.raises(StaleLockError, match=r"less 1-1 -> .*\n.*inv lock --os"):
        bake(stale)
    assert stale[1].find(os_parts.identity(SYSTEM, ("base",), Codec(), stale[0])) is None


def test_edit_during_a_build_is_refused(again: tuple[Path, Store]) -> None:
    """Who edits images/ while parts are made from it is told; what was made is kept neither for the files as they were nor as they are."""
    root, store = again
    file = root / "images" / "base" / "Dockerfile"
    before = file.read_text()
    with pytest.raises(OsPartError, match="images/base changed while"):
        bake(again, lambda _: file.write_text(f"{before}# edited\n"))
    assert store.find(os_parts.identity(SYSTEM, ("base",), Codec(), root)) is None
    file.write_text(before)
    assert store.find(os_parts.identity(SYSTEM, ("base",), Codec(), root)) is None


def test_only_the_missing_flavour_is_built_over_the_store(made: tuple[Path, Store], again: tuple[Path, Store]) -> None:
    """A touched Dockerfile of devel starts from base's layers in the store; base's steps do not run."""
    root, store = again
    shutil.copy(made[0] / "images" / "base" / "Dockerfile", root / "images" / "base" / "Dockerfile")
    lines: Lines = []
    parts = bake(again, lines.append)
    assert diff_ids(parts) == diff_ids(bake(made))
    assert [line for line in lines if "/mnt/install make" in line]
    assert not [line for line in lines if "/mnt/install less" in line]
    assert store.find(os_parts.identity(SYSTEM, FLAVOURS, Codec(), root)) is not None


def test_an_older_apt_learns_of_archives_from_a_newer_one(again: tuple[Path, Store]) -> None:
    """Debian 12's apt knows no snapshot archive. That of Debian 13's OS image, which the store has, does."""
    root, store = again
    shutil.copy(matrix.MATRIX, root)
    for flavour in map(flavours.path_of, matrix.load().flavours):
        (root / flavour).parent.mkdir(exist_ok=True)
        shutil.copy(matrix.ROOT / flavour, root / flavour)
    older = matrix.load().systems["debian12"]
    builder = OsPartBuilder(store=store, codec=Codec(), on_line=print, root=root)
    images = OsImageSource(settings=builder, locks={older: os_locks.read(older)})
    assert images.settings_of_others(older)


def test_unknown_package_is_one_clear_error(again: tuple[Path, Store]) -> None:
    """What apt says reaches the user, the step is named, and no half-made part stays."""
    root, store = again
    file = root / "images" / "devel" / "Dockerfile"
    file.write_text(file.read_text().replace("install make", "install no-such-package"))
    with pytest.raises(OsPartError, match=r"Unable to locate package no-such-package\n[\s\S]*RUN /mnt/install no-such-package"):
        bake(again)
    assert store.find(os_parts.identity(SYSTEM, FLAVOURS, Codec(), root)) is None
    assert not [path for path in store.scratch().iterdir() if path.is_dir()]


def test_no_layer_tells_builds_apart(made: tuple[Path, Store]) -> None:
    """No layer has logs, caches, package lists, keys, identities or devices, nor anything of the payload."""
    _, store = made
    layers = chain.from_iterable(part.layers for part in bake(made).values())
    entries = [*chain.from_iterable(store.listing(layer.diff_id) for layer in layers)]
    assert not [entry for entry in entries if os_layers.left_out(entry.path, is_directory=entry.kind == "dir")]
    assert not [entry for entry in entries if entry.path.startswith(("opt/", "mnt/", "apt/"))]


def test_image_runs_the_systems_python_and_compiler_free_of_network(made: tuple[Path, Store]) -> None:
    """An image of the OS parts alone runs with the engine; loading it again sends nothing."""
    root, store = made
    image = os_parts.image(SYSTEM, FLAVOURS, store, Codec(), root)
    here = engine.connect()
    loading.load(here, [image], store.open_blob)
    try:
        assert loading.load(here, [image], store.open_blob).sent == 0
        ran = subprocess.run(["docker", "run", "--rm", "--network", "none", image.tags[0], "make", "--version"], capture_output=True, text=True, check=False)
        assert ran.stdout.startswith("GNU Make"), ran.stderr
    finally:
        subprocess.run(["docker", "image", "rm", image.tags[0]], capture_output=True, check=False)
