"""Build contexts: modes, times and what counts of a directory."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.parts import DEBIAN13, LOCKED, UBUNTU
from torchstrata.errors import FlavourError, OsPartError
from torchstrata.layers import contexts
from torchstrata.matrix import matrix
from torchstrata.store import layer

MATRIX = matrix.load()
FLAVOURS = MATRIX.with_parents(MATRIX.all_in_one)


@pytest.mark.parametrize(
    ("text", "installs"),
    [("RUN --mount=from=apt,source=/apt,target=/mnt /mnt/install less\n", True), ("# RUN --mount=from=apt\nRUN true\n", False), (None, False)],
)
def test_who_mounts_the_lists_installs(tmp_path: Path, text: str | None, installs: bool) -> None:  # noqa: FBT001  # a column of the table
    """A Dockerfile tells; where there is none, nothing is installed."""
    grown(tmp_path, {"gym": []})
    if text is not None:
        (tmp_path / "images/gym/Dockerfile").write_text(f"FROM base\n{text}")
    assert contexts.installs(tmp_path, "gym") is installs


def test_contexts_have_fixed_modes_and_times(checkout: Path, tmp_path: Path) -> None:
    """What BuildKit is sent differs between checkouts in nothing."""
    into = tmp_path / "staged"
    into.mkdir()
    contexts.stage(checkout, ("base",), {}, into)
    staged = [path for path in (into / "base").rglob("*") if not path.is_symlink()]
    assert {path.stat().st_mode & 0o777 for path in staged} == {0o755, 0o644}
    assert {int(path.stat().st_mtime) for path in staged} == {layer.EPOCH}
    assert os.access(into / "base/rootfs/usr/local/bin/torchstrata-entrypoint", os.X_OK)


def staged_times(checkout: Path, into: Path) -> dict[str, int]:
    """Return the time of everything in the staged context of base, in nanoseconds."""
    into.mkdir()
    contexts.stage(checkout, ("base",), {}, into)
    return {str(path.relative_to(into)): path.stat(follow_symlinks=False).st_mtime_ns for path in sorted(into.rglob("*"))}


def test_an_edit_that_keeps_the_size_changes_the_time(checkout: Path, tmp_path: Path) -> None:
    """BuildKit sends no file again whose size and time it knows; a checkout of another time changes nothing."""
    script = checkout / "images/base/rootfs/usr/local/bin/torchstrata-entrypoint"
    before = staged_times(checkout, tmp_path / "first")
    os.utime(script, (1, 1))
    assert staged_times(checkout, tmp_path / "second") == before
    script.write_bytes(script.read_bytes().swapcase())
    after = staged_times(checkout, tmp_path / "third")
    assert [path for path in before if before[path] != after[path]] == ["base/rootfs/usr/local/bin/torchstrata-entrypoint"]


def test_links_are_kept_and_litter_is_not(checkout: Path, tmp_path: Path) -> None:
    """A link stays a link, wherever it points, and counts; what Python leaves beside sources does not."""
    before, rootfs, into = contexts.tree(checkout, "base"), checkout / "images/base/rootfs", tmp_path / "staged"
    (rootfs / "usr/__pycache__").mkdir()
    (rootfs / "usr/__pycache__/x.pyc").touch()
    assert contexts.tree(checkout, "base") == before
    (rootfs / "usr/link").symlink_to("/nowhere")
    assert contexts.tree(checkout, "base") != before
    into.mkdir()
    contexts.stage(checkout, ("base",), {}, into)
    assert (into / "base/rootfs/usr/link").readlink() == Path("/nowhere")
    assert not (into / "base/rootfs/usr/__pycache__").exists()


def test_a_flavour_without_a_directory_says_what_to_make(checkout: Path) -> None:
    """A name alone is not enough."""
    with pytest.raises(OsPartError, match="there is no images/rstudio") as caught:
        contexts.tree(checkout, "rstudio")
    assert "images/rstudio/flavour.yaml" in caught.value.fix


def test_a_directory_of_somebody_else_is_one_line(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as root has left in a checkout."""
    closed, scandir = checkout / "images/base/rootfs/usr", os.scandir

    def refusing(path: Path | str) -> object:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(OsPartError, match="images/base/rootfs/usr cannot be read: Permission denied"):
        contexts.tree(checkout, "base")


def test_a_configuration_of_dpkg_that_is_gone_is_one_line(tmp_path: Path) -> None:
    """It is part of the identity of each OS image."""
    with pytest.raises(OsPartError, match=r"dpkg\.cfg cannot be read: No such file"):
        contexts.apt_config(tmp_path)


@pytest.mark.parametrize("flavour", [name for name in FLAVOURS if (matrix.ROOT / "images" / name / "Dockerfile").exists()])
def test_dockerfiles_form_the_tree_of_the_flavours(flavour: str) -> None:
    """Each starts from its parent's context, copies its rootfs, asks for no frontend of a registry, ends with its label, fits a screen."""
    lines = (matrix.ROOT / "images" / flavour / "Dockerfile").read_text().splitlines()
    assert f"FROM {MATRIX.flavours[flavour].parent or 'os'}" in lines
    assert not [line for line in lines if line.startswith("# syntax")]
    assert ("COPY rootfs /" in lines) == (matrix.ROOT / "images" / flavour / "rootfs").exists()
    assert lines[-1] == f"LABEL {contexts.LABEL}={flavour}"
    assert len(lines) <= 48


@pytest.mark.parametrize(("files", "lines"), [((), ["ARG PARENT", "FROM $PARENT"]), (("etc/motd",), ["ARG PARENT", "FROM $PARENT", "COPY rootfs /"])])
def test_a_flavour_needs_no_dockerfile(tmp_path: Path, files: Sequence[str], lines: list[str]) -> None:
    """One that nobody has written starts from the parent, copies what there is to copy, and ends with the label."""
    grown(tmp_path, {"gym": files})
    contexts.stage(tmp_path, ["gym"], {}, tmp_path)
    assert (tmp_path / "gym" / "Dockerfile").read_text().splitlines() == [*lines, "LABEL torchstrata.flavour=gym"]


def grown(root: Path, rootfs: Mapping[str, Sequence[str]]) -> None:
    """Write flavours that have nothing but files."""
    for flavour, names in rootfs.items():
        (root / "images" / flavour).mkdir(parents=True)
        for name in names:
            (root / "images" / flavour / "rootfs" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / flavour / "rootfs" / name).write_text(flavour)


@pytest.mark.parametrize(
    ("mine", "told"),
    [
        ("etc/motd", "images/gym/rootfs/etc/motd would hide what images/base brings there"),
        ("etc/motd/more", "images/gym/rootfs/etc/motd/more would hide what images/base brings there"),
        ("usr/bin", "images/gym/rootfs/usr/bin would hide what images/devel brings there"),
    ],
)
def test_a_flavour_hides_no_file_of_a_parent(tmp_path: Path, mine: str, told: str) -> None:
    """Neither a file, nor one in a file's place above it, nor a directory with files of a parent."""
    grown(tmp_path, {"base": ["etc/motd"], "devel": ["usr/bin/tool"], "gym": [mine]})
    with pytest.raises(FlavourError) as refused:
        contexts.check_shadows(tmp_path, ["base", "devel", "gym"])
    assert refused.value.what == told
    assert refused.value.fix.startswith("give it another name")
    assert FlavourError.code == 51


def test_flavours_share_directories(tmp_path: Path) -> None:
    """Files beside those of a parent hide nothing; nor do siblings, which meet in no image."""
    grown(tmp_path, {"base": ["etc/motd"], "gym": ["etc/gym"], "vision": ["etc/gym"]})
    contexts.check_shadows(tmp_path, ["base", "gym"])
    contexts.check_shadows(tmp_path, ["base", "vision"])


def test_packages_that_an_os_lacks_are_not_asked_for(tmp_path: Path) -> None:
    """The installer that its flavours mount leaves them out, whatever stands beside them; other OSes get what is committed."""
    into = tmp_path / "staged"
    into.mkdir()
    lacking = msgspec.structs.replace(UBUNTU, lacks=("liba0", "lib+b"))
    contexts.stage(matrix.ROOT, (), {lacking: (LOCKED, ("base",)), DEBIAN13: (LOCKED, ("base",))}, into)
    script = (into / "apt-ubuntu24.04" / "install").read_text().partition("set -eu")[0] + 'printf "%s " "$@"'
    ran = subprocess.run(["sh", "-c", script, "sh", "liba", "liba0", "git", "lib+b", "lib+bb"], capture_output=True, text=True, check=True)
    assert ran.stdout == "liba git lib+bb "
    assert (into / "apt-debian13" / "install").read_text() == (matrix.ROOT / "images/apt/install").read_text()
