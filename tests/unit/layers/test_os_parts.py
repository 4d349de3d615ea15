"""OS parts without an engine: the bake definition, what BuildKit says, layers as they go into the store, identities."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from torchstrata.errors import AbsentError, FlavourError, LockError, OsPartError, RegistryAuthError, RegistryError, StoreError
from torchstrata.host import superuser
from torchstrata.layers import bakefile, buildkit, contexts, os_image, os_layers, os_parts
from torchstrata.layers.bakefile import Job
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import matrix
from torchstrata.process import Failed
from torchstrata.store import layer
from torchstrata.store.codec import Codec, decompressor
from torchstrata.store.store import Store

MATRIX = matrix.load()
DEBIAN13 = MATRIX.systems["debian13"]
UBUNTU = MATRIX.systems["ubuntu24.04"]
FLAVOURS = MATRIX.chain(MATRIX.all_in_one)
EPOCH = 1_795_478_400
VERSION = "[ $1 = --version ] && echo mmdebstrap 1.5.7 && exit 0"

TAIL = """\
#19 [debian13-devel stage-0 1/2] RUN --mount=from=apt,source=/apt,target=/mnt     /mnt/install no-such-package
#19 1.234 Reading package lists...
#19 1.300 E: Unable to locate package no-such-package
#19 ERROR: process "/bin/sh -c /mnt/install no-such-package" did not complete successfully: exit code: 100
------
 > [debian13-devel stage-0 1/2] RUN --mount=from=apt,source=/apt,target=/mnt     /mnt/install no-such-package:
1.300 E: Unable to locate package no-such-package
------
ERROR: target debian13-devel: failed to solve: process "/bin/sh -c /mnt/install no-such-package" did not complete successfully: exit code: 100
"""


ARM = structs.replace(DEBIAN13, platform="linux/arm64")


def job(system: matrix.OperatingSystem = DEBIAN13, below: str = "oci-layout:///store@sha256:0", **changed: object) -> Job:
    """Return the job that builds all flavours."""
    known = {"flavours": ("base", "devel"), "parent": "os", "known": 1, "epoch": EPOCH}
    return Job(system=system, below=below, **{**known, **changed})  # type: ignore[arg-type]


def defined(*jobs: Job, exporter: bakefile.Exporter = "layout") -> dict[str, dict[str, object]]:
    """Return the targets of a definition."""
    targets: dict[str, dict[str, object]] = bakefile.definition(jobs, Path("/in"), Path("/out"), exporter, {"http_proxy": "http://proxy"})["target"]
    return targets


# The bake definition


def test_flavours_are_linked_through_contexts() -> None:
    """The first flavour starts from what lies below, each next one from the target before it, never from a tag."""
    targets = defined(job())
    assert targets["debian13-base"]["contexts"] == {"os": "oci-layout:///store@sha256:0", "apt": "target:debian13-apt"}
    assert targets["debian13-devel"]["contexts"] == {"base": "target:debian13-base", "apt": "target:debian13-apt"}


def test_only_the_top_is_exported() -> None:
    """Layers leave BuildKit once, uncompressed; no other target makes an image."""
    outputs = {name: target["output"] for name, target in defined(job()).items()}
    assert outputs.pop("debian13-devel") == ["type=oci,tar=false,dest=/out/debian13-devel,compression=uncompressed"]
    assert set(map(str, outputs.values())) == {"['type=cacheonly']"}


def test_all_systems_are_in_one_definition() -> None:
    """Two systems are two groups of targets of one bake; bake allows no dots in their names."""
    definition = bakefile.definition([job(), job(UBUNTU, "docker-image://ubuntu@sha256:0")], Path("/in"), Path("/out"), "layout", {})
    assert definition["group"]["default"]["targets"] == ["debian13-devel", "ubuntu24_04-devel"]
    assert not [name for name in definition["target"] if "." in name]


def test_another_platform_is_named_and_the_default_one_is_not() -> None:
    """All targets of a job are of its platform, its own `apt` included; those of the default platform stay what they were."""
    targets = defined(job(), job(ARM, parent="os"))
    assert {name for name, target in targets.items() if target.get("platforms") == ["linux/arm64"]} == {
        "debian13-arm64-apt",
        "debian13-arm64-base",
        "debian13-arm64-devel",
    }
    assert not [name for name in defined(job()) if "platforms" in targets[name]]


def test_bootstrap_of_another_platform_differs_in_one_option() -> None:
    """The call of the default platform decides identities, and stays; another architecture is asked for by Debian's name."""
    here, there = (os_image.arguments(system, "/in", EPOCH) for system in (DEBIAN13, ARM))
    assert [word for word in there if word not in here] == ["--architectures=arm64"]
    assert not [word for word in here if "architectures" in word]


def test_package_lists_are_never_from_a_cache() -> None:
    """apt-get update runs in every bake; what it finds decides whether the installations do."""
    assert defined(job())["debian13-apt"]["no-cache"] is True


def test_who_installs_nothing_waits_for_no_package_lists() -> None:
    """A mirror is asked where a flavour of the job installs something, and not for those that do not."""
    targets = defined(job(plain=frozenset({"devel"})))
    assert ("apt" in targets["debian13-base"]["contexts"], "apt" in targets["debian13-devel"]["contexts"]) == (True, False)  # type: ignore[operator]
    assert "debian13-apt" not in defined(job(plain=frozenset({"base", "devel"})))


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


def test_every_stage_knows_its_time_and_compilers() -> None:
    """SOURCE_DATE_EPOCH comes from the lock, compilers from the matrix, proxies from the host."""
    args = defined(job())["debian13-devel"]["args"]
    assert args == {"PARENT": "base", "SOURCE_DATE_EPOCH": str(EPOCH), "COMPILERS": "g++-14 g++-13", "http_proxy": "http://proxy"}


def test_classic_store_adds_the_os_image_as_a_tar() -> None:
    """The classic store knows no OCI layouts: a target unpacks the OS image, and the result is an image of the engine."""
    targets = defined(job(below="/in/below"), exporter="image")
    assert targets["debian13-os"]["dockerfile-inline"] == "FROM scratch\nADD os.tar /\n"
    assert targets["debian13-base"]["contexts"] == {"os": "target:debian13-os", "apt": "target:debian13-apt"}
    assert targets["debian13-devel"]["output"] == ["type=docker,name=torchstrata-build:debian13-devel"]


# What BuildKit says


def test_steps_are_told_when_done() -> None:
    """One line per instruction, without mounts, with the OS and the time; BuildKit's own steps are not told."""
    lines: list[str] = []
    steps = buildkit.Steps(lines.append)
    for line in [*TAIL.splitlines(), "#3 [debian13-base internal] load .dockerignore", "#3 DONE 0.1s", "#19 DONE 2.5s", "#19 DONE 2.5s"]:
        steps(line)
    assert lines == ["debian13: RUN /mnt/install no-such-package (2.5 s)"]


def test_refusal_names_the_reason() -> None:
    """The error says what apt said, not that a process failed, and quotes the end of the step's output."""
    error = buildkit.refusal(TAIL)
    assert error.what == "an OS part cannot be built: E: Unable to locate package no-such-package"
    assert "| RUN /mnt/install no-such-package" in error.fix
    assert "| Reading package lists..." in error.fix


def test_refusal_reads_the_summary_where_the_step_is_out_of_sight() -> None:
    """Buildx says again at its end what the step said last; with many targets that is all that is left of it."""
    summary = " > [stage 2/3] RUN apt-get update:\n0.538 Err:1 a mirror\n0.539 E: Failed to fetch a list\n------\nERROR: failed to solve: exit code: 100\n"
    assert buildkit.refusal(summary).what == "an OS part cannot be built: E: Failed to fetch a list"


def test_refusal_without_a_step_quotes_buildx() -> None:
    """Where no step failed, what buildx says last is the reason."""
    assert buildkit.refusal("ERROR: no builder found\n").what == "an OS part cannot be built: no builder found"


def test_labels_tell_whose_layer_is_whose() -> None:
    """Layers up to a flavour's label are its own; instructions that make no layer do not count."""
    history = [
        {"created_by": "ADD os.tar /"},
        {"created_by": "RUN a"},
        {"created_by": "LABEL torchstrata.flavour=base", "empty_layer": True},
        {"created_by": "ARG X", "empty_layer": True},
        {"created_by": "RUN b"},
        {"created_by": "LABEL torchstrata.flavour=devel", "empty_layer": True},
    ]
    assert buildkit.owners(history, ("base", "devel")) == ["base", "base", "devel"]


def test_missing_label_is_an_error_with_the_line_to_add() -> None:
    """A Dockerfile without its label cannot be told from its child."""
    with pytest.raises(OsPartError, match=r"LABEL torchstrata.flavour=devel"):
        buildkit.owners([{"created_by": "LABEL torchstrata.flavour=base", "empty_layer": True}, {"created_by": "RUN b"}], ("base", "devel"))


def test_history_reads_like_the_dockerfile() -> None:
    """Shell, build arguments and BuildKit's mark are left out of a layer's title."""
    assert buildkit.instruction("RUN |2 A=1 B=g++-14 g++-13 /bin/sh -c /mnt/install   cmake # buildkit") == "RUN /mnt/install cmake"
    assert buildkit.instruction("COPY rootfs / # buildkit") == "COPY rootfs /"


# Layers


@pytest.mark.parametrize(
    "path",
    [
        "dev/null",
        "run/lock",
        "tmp/x",
        "etc/machine-id",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/passwd-",
        "etc/ssh/ssh_host_ed25519_key",
        "var/log/dpkg.log",
        "var/log/apt/.wh.history.log",
        "var/lib/apt/lists/lock",
        "var/lib/dpkg/status-old",
        "var/cache/ldconfig/aux-cache",
        "var/cache/debconf/config.dat-old",
        "var/cache/apt/archives/git.deb",
    ],
)
def test_what_tells_builds_apart_is_left_out(path: str) -> None:
    """Logs, caches, lists, backups, keys and identities are in no layer."""
    assert os_layers.left_out(path, is_directory=False)


@pytest.mark.parametrize(
    "path", ["etc/passwd", "usr/bin/git", "var/lib/dpkg/status", "var/cache/debconf/config.dat", "etc/ssh/sshd_config", "devel", "var/.wh.spool"]
)
def test_everything_else_stays(path: str) -> None:
    """What packages install is in the layer."""
    assert not os_layers.left_out(path, is_directory=False)


def test_directories_stay() -> None:
    """Programs find the directories of their logs and sockets; device directories come from the engine."""
    assert not os_layers.left_out("var/log/apt", is_directory=True)
    assert not os_layers.left_out("run/sshd", is_directory=True)
    assert os_layers.left_out("dev/pts", is_directory=True)


def packed(prefix: str, mtime: float) -> io.BytesIO:
    """Return a tar as two builds make it: other names, times and owners' names for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in (
            ("etc", tarfile.DIRTYPE, b""),
            ("etc/x", tarfile.REGTYPE, b"x"),
            ("etc/y", tarfile.LNKTYPE, b""),
            ("etc/.wh.z", tarfile.REGTYPE, b""),
        ):
            member = tarfile.TarInfo(f"{prefix}{name}")
            member.type, member.mtime, member.size, member.uname = kind, mtime, len(content), prefix
            member.linkname = f"{prefix}etc/x" if kind == tarfile.LNKTYPE else ""
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def test_builds_at_other_times_give_the_same_layer(tmp_path: Path) -> None:
    """Times after the lock's, names of owners and a leading ./ leave no trace in the bytes."""
    store = Store(tmp_path)
    first, second = (os_layers.take(tar, store, Codec(), title="x", epoch=EPOCH).layer for tar in (packed("./", EPOCH + 5.5), packed("", EPOCH + 99)))
    assert first == second
    assert [(entry.path, entry.kind) for entry in store.listing(first.diff_id)] == [("etc", "dir"), ("etc/x", "file"), ("etc/y", "file"), ("etc/z", "whiteout")]


@pytest.mark.parametrize(("kind", "mode", "kept"), [(tarfile.REGTYPE, 0o4755, 0o755), (tarfile.LNKTYPE, 0o2755, 0o755), (tarfile.DIRTYPE, 0o2775, 0o2775)])
def test_no_file_of_a_layer_lends_rights(tmp_path: Path, kind: bytes, mode: int, kept: int) -> None:
    """Whatever package brings it, no program runs as its owner, group or with capabilities; directories hand their group on."""
    out, store = io.BytesIO(), Store(tmp_path)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("usr/bin/x")
        member.type, member.mode, member.linkname = kind, mode, "usr/bin/y" if kind == tarfile.LNKTYPE else ""
        member.pax_headers = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.kept": "y"}
        archive.addfile(member)
    out.seek(0)
    layer = os_layers.take(out, store, Codec(), title="x", epoch=EPOCH).layer
    with store.open_blob(layer.digest).open("rb") as blob, tarfile.open(fileobj=decompressor(blob, layer.media_type), mode="r|") as archive:
        found = next(iter(archive))
    assert (found.mode, found.pax_headers) == (kept, {"SCHILY.xattr.user.kept": "y"})


def test_a_tar_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    """A cut export is an error, and no blob."""
    cut = io.BytesIO(packed("", EPOCH).getvalue()[:1100])
    with pytest.raises((tarfile.TarError, StoreError)):
        os_layers.take(cut, Store(tmp_path), Codec(), title="x", epoch=EPOCH)
    assert not list((tmp_path / "blobs").rglob("*"))


# Identities and contexts


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what OS parts are made from, with the modes of another umask."""
    for name in ("images", "locks/os"):
        shutil.copytree(matrix.ROOT / name, tmp_path / "checkout" / name, symlinks=True)
    for path in (tmp_path / "checkout").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    return tmp_path / "checkout"


def identities(root: Path) -> list[str]:
    """Return the identity of each flavour on debian13."""
    return [os_parts.identity(DEBIAN13, MATRIX.chain(flavour), Codec(), root) for flavour in FLAVOURS]


def test_identity_does_not_depend_on_the_checkout(checkout: Path) -> None:
    """Another directory and another umask give the same identities."""
    assert identities(checkout) == identities(matrix.ROOT)


def test_a_touched_dockerfile_changes_its_flavour_and_its_children(checkout: Path) -> None:
    """Nothing below it is made again."""
    before = identities(checkout)
    with (checkout / "images" / "devel" / "Dockerfile").open("a") as file:
        file.write("# touched\n")
    assert [old == new for old, new in zip(before, identities(checkout), strict=True)] == [True, False, False, False]


def test_python_requirements_are_none_of_its_business(checkout: Path) -> None:
    """OS parts know nothing of the payload."""
    before = identities(checkout)
    (checkout / "images" / "devel" / "requirements.in").write_text("numpy\n")
    assert identities(checkout) == before


def test_codec_is_part_of_the_identity() -> None:
    """Layers of gzip are others."""
    assert os_parts.identity(DEBIAN13, ("base",), Codec()) != os_parts.identity(DEBIAN13, ("base",), Codec(name="gzip", level=6))


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


@pytest.mark.parametrize("name", ["flavour.yaml", "requirements.in", "tests/test_gym.py", "tests/required/free.toml"])
def test_what_changes_no_os_part(checkout: Path, tmp_path: Path, name: str) -> None:
    """What a flavour says of itself, its wheels and its tests are in no identity and in no build context."""
    before = identities(checkout)
    (checkout / "images/base" / name).parent.mkdir(exist_ok=True, parents=True)
    (checkout / "images/base" / name).write_text("changed\n")
    contexts.stage(checkout, ["base"], {}, tmp_path)
    assert identities(checkout) == before
    assert not (tmp_path / "base" / name).exists()


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


def test_image_of_parts_that_are_not_there(tmp_path: Path) -> None:
    """An image cannot be had before its parts are baked."""
    with pytest.raises(StoreError, match="not in the store"):
        os_parts.image(DEBIAN13, ("base",), Store(tmp_path), Codec())


# The OS image


LOCKED = OsLock(system=UBUNTU.id, date="2026-11-24", sections={"os": {"bash": "5"}, "base": {"git": "2"}}, image=f"{UBUNTU.image}@sha256:{'1' * 64}")


def test_an_os_from_a_registry_is_what_its_lock_pins() -> None:
    """Its name, its tag for people, and the digest that counts; a lock without one says what to do."""
    assert os_image.reference(UBUNTU, LOCKED) == f"docker.io/library/ubuntu:24.04@sha256:{'1' * 64}"
    with pytest.raises(LockError, match=r"no digest of docker.io/library/ubuntu:24.04\n.*inv lock --os"):
        os_image.reference(UBUNTU, dataclasses.replace(LOCKED, image=""))


def test_the_digest_of_an_os_image_is_part_of_identities(tmp_path: Path) -> None:
    """The same packages on another image are another OS part, and so are those of an OS that does without one of them."""
    system = msgspec.structs.replace(UBUNTU, lacks=("git",))
    found = set[str]()
    for of, lock in ((UBUNTU, LOCKED), (UBUNTU, dataclasses.replace(LOCKED, image=f"{UBUNTU.image}@sha256:{'2' * 64}")), (system, LOCKED)):
        found.add(os_parts.identity_by(of, ("base",), lock, Codec(), matrix.ROOT))
    assert len(found) == 3


def test_an_os_image_of_a_registry_gets_dpkgs_configuration() -> None:
    """Bootstrapped ones have it from the start: what packages leave out is the same on all OSes. A question changes nothing."""
    job_of_image = job(UBUNTU, "docker-image://ubuntu:24.04@sha256:0", known=0)
    targets = defined(job_of_image)
    assert targets["ubuntu24_04-os"]["dockerfile-inline"] == "FROM os\nCOPY dpkg.cfg /etc/dpkg/dpkg.cfg.d/99torchstrata\n"
    assert targets["ubuntu24_04-os"]["contexts"] == {"os": "docker-image://ubuntu:24.04@sha256:0"}
    assert targets["ubuntu24_04-base"]["contexts"] == {"os": "target:ubuntu24_04-os", "apt": "target:ubuntu24_04-apt"}
    asked = bakefile.question(job_of_image, "FROM os", Path("/in"), Path("/out"), {})["target"]
    assert {name: target["contexts"] for name, target in asked.items()} == {"ubuntu24_04-devel": {"os": "docker-image://ubuntu:24.04@sha256:0"}}


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


@pytest.mark.parametrize(
    ("why", "error"),
    [
        (f"{LOCKED.image}: not found", AbsentError),
        ('failed to do request: Head "https://r/": dial tcp: connection refused', RegistryError),
        ("pull access denied, repository does not exist or may require authorization", RegistryAuthError),
    ],
)
def test_an_os_image_that_cannot_be_had_is_told_from_a_step_that_failed(why: str, error: type[RegistryError]) -> None:
    """The error names the image, and each reason has its code."""
    found = buildkit.refusal(f"#3 ERROR: x\nERROR: failed to solve: failed to resolve source metadata for {LOCKED.image}: {why}\n")
    assert type(found) is error
    assert LOCKED.image in found.what


def test_bootstrap_names_no_mirror() -> None:
    """The program's own default decides where packages come from, and the tar goes to standard output."""
    command = os_image.arguments(DEBIAN13, "/in", EPOCH)
    assert command[-2:] == ("trixie", "-")
    assert f"SOURCE_DATE_EPOCH={EPOCH}" in command
    assert "://" not in " ".join(command)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let this machine have only the programs that a test writes, each of which says something and ends with a status."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(os_image.CONTAINER_VARIABLE, raising=False)
    monkeypatch.setattr(superuser, "_words", lambda _: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(os_image, "KEYRING", tmp_path)

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_a_named_image_is_used_for_bootstrapping(bare: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever names an image gets a container of it, with few rights and the proxies of this machine, that is on the list of its run."""
    monkeypatch.setenv(os_image.CONTAINER_VARIABLE, "some/debian")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    bare("docker", "exit 0")
    lines: list[str] = []
    command = os_image.Command.find(lines.append)
    assert command.image == "some/debian"
    assert lines == ["mmdebstrap runs in a container of some/debian"]
    words = command.around(str(tmp_path / "inputs"), ("mmdebstrap", "trixie"))
    assert words[-2:] == ("mmdebstrap", "trixie")
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=http_proxy=http://proxy.example:3128"} <= set(words)
    assert "--privileged" not in words
    (name,) = (word.removeprefix("--name=") for word in words if word.startswith("--name="))
    assert f'"{name}"' in (tmp_path / "leavings.jsonl").read_text()


def test_pinned_image_is_pulled_where_nothing_else_is_left(bare: Callable[..., None]) -> None:
    """A user with an engine and without mmdebstrap needs to name nothing: the matrix pins an image by digest."""
    bare("docker", 'if [ "$1" = image ]; then exit 1; fi')
    image = os_image.Command.find(lambda _: None).image
    assert image is not None
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize(
    ("programs", "what", "fix"),
    [
        ({}, "mmdebstrap is not installed, and no engine", "nox -s engine"),
        ({"apt-get": "", "apt-config": ""}, "mmdebstrap is not installed, and no engine", "run: sudo apt-get install --yes mmdebstrap"),
        ({"apt-get": "", "apt-config": "", "docker": "echo no route to host >&2; exit 1"}, "no route to host", "run: sudo apt-get install --yes mmdebstrap"),
        ({"mmdebstrap": "[ $1 = --version ] && echo mmdebstrap 0.8.4", "apt-get": ""}, "is too old", "run: sudo apt-get install"),
        ({"mmdebstrap": f"{VERSION}; echo E: cannot find newuidmap >&2; exit 1", "apt-get": ""}, "cannot find newuidmap", "uidmap"),
        ({"mmdebstrap": f"{VERSION}; echo E: failed to parse /etc/subuid and /etc/subgid >&2; exit 1"}, "/etc/subuid", "usermod --add-subuids"),
        ({"mmdebstrap": f"{VERSION}; echo E: unshare syscall failed: no >&2; exit 1", "apt-get": ""}, "unshare syscall failed", "nox -s engine"),
    ],
)
def test_no_way_to_bootstrap_names_the_command_that_cures_it(bare: Callable[..., None], programs: Mapping[str, str], what: str, fix: str) -> None:
    """Without root, sudo and an engine, the error says what is missing and the one command that helps."""
    for name, script in programs.items():
        bare(name, script)
    with pytest.raises(OsPartError, match=re.escape(what)) as caught:
        os_image.Command.find(print)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("W: GPG error: trixie InRelease: NO_PUBKEY 762F67A0B2C39DE4\nE: failed\n", "upgrade debian-archive-keyring"),
        ("E: apt-get update failed: Could not resolve host\nE: mmdebstrap failed to run\n", "Could not resolve host"),
    ],
)
def test_failed_bootstrap_says_why(tail: str, message: str) -> None:
    """Old keys and an unreachable mirror are told apart."""
    with pytest.raises(OsPartError, match=message):
        raise os_image.refusal(DEBIAN13, Failed(("mmdebstrap",), 1, tail))
