"""An OS from a registry, from its tag to a verified image and to the night after the tag has moved.

A registry on loopback stands in for the public one, and an image of Debian 12 for Ubuntu's: what is built is the base of the CPU cell.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from tests import registries
from tests.checkout import Checkout, Ended
from tests.registries import Served
from tests.tars import packed
from torchstrata.errors import AbsentError, LockError, RegistryError, StaleLockError
from torchstrata.image import oci
from torchstrata.image.compose import canonical
from torchstrata.image.oci import INDEX
from torchstrata.layers import contexts, os_image, os_layers, os_parts
from torchstrata.layers.os_part_builder import OsPartBuilder
from torchstrata.locks import os_locks
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import OperatingSystem
from torchstrata.registry.registry import Registry
from torchstrata.registry.upload import Source
from torchstrata.store.codec import Codec
from torchstrata.store.layer import Layer
from torchstrata.store.store import Store

DEBIAN = matrix.load().systems["debian12"]
NAME, REPOSITORY, TAG = "ubuntu24.04", "library/ubuntu", "24.04"
CELL = f"2.13-cpu-{NAME}"
IMAGE = "pt-oses"

SYSTEM = """\
  {name}:
    {{distribution: debian, release: "12", suite: bookworm, python: "3.11", glibc: "2.36", compilers: [g++-12], image: "{image}", verified: false}}
"""

NIGHT = f"""
import json
from torchstrata.matrix import matrix
from torchstrata.store.store import Store
from torchstrata.commands import nightly
from torchstrata.nightly import decisions
from torchstrata.release.ledger import Author, Ledger
table = matrix.load()
look = decisions.Look(matrix=table, cells=matrix.select(table, "{CELL}"), store=Store.open(), state=Ledger().state, root=matrix.ROOT)
report, failures = look.around(), []
written = nightly.move_locks(report.news, commit=True, author=Author(name="night", email="night@example.org"), on_failure=failures.append)
pending = decisions.pending(report.news, matrix.ROOT)
print(json.dumps(dict(document=decisions.document(report), written=[path.name for path in written], failures=failures, pending=pending)))
"""
"""What a night does to OS locks: looks, locks anew what has moved, and commits it."""


@dataclass(frozen=True)
class Public:
    """The registry that stands in for the public one, with layers of Debian in a store of its own."""

    served: Served
    store: Store
    debian: Layer

    @property
    def image(self) -> str:
        """What matrix.yaml names."""
        return f"{self.served.host}/{REPOSITORY}:{TAG}"

    def publish(self, *layers: Layer, tag: str = TAG, architecture: str = "amd64") -> str:
        """Let a tag name an index whose second image has these layers; return the digest of that image."""
        made = os_parts.plain_image(DEBIAN, layers)
        with Registry(self.served.host) as registry:
            for layer in layers:
                registry.push_blob(REPOSITORY, Source.file(self.store.open_blob(layer.digest), layer.digest))
            registry.push_blob(REPOSITORY, Source.of(made.config))
            registry.put_manifest(REPOSITORY, made.digest, made.manifest, oci.manifest(made.manifest, "it").media_type)
            itself = {"mediaType": oci.manifest(made.manifest, "it").media_type, "digest": made.digest, "size": len(made.manifest)}
            index = [{**itself, "platform": {"os": "linux", "architecture": name}} for name in ("s390x", architecture)]
            registry.put_manifest(REPOSITORY, tag, canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": index}), INDEX)
        return made.digest

    def withdraw(self, tag: str) -> None:
        """Remove what a tag names, and so the tag."""
        with Registry(self.served.host) as registry:
            registry.remove(REPOSITORY, registry.manifest(REPOSITORY, tag).digest)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Public]:
    """Give a registry whose tag names an image of Debian, made by mmdebstrap from its packages."""
    store, lock = Store(tmp_path_factory.mktemp("store")), os_locks.read(DEBIAN)
    pinless = replace(lock, sections={})
    with os_image.Command.find(print).tar(DEBIAN, pinless, contexts.apt_config(matrix.ROOT)) as tar:
        layer = os_layers.take(tar, store, Codec(name="gzip", level=1), title="Debian", epoch=lock.epoch).layer
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        found = Public(served, store, layer)
        found.publish(layer)
        yield found


def another_layer(store: Store) -> Layer:
    """Return a layer that no image had before."""
    tar = io.BytesIO(packed({"etc/stand-in": uuid.uuid4().bytes}))
    return os_layers.take(tar, store, Codec(name="gzip", level=1), title="moved", epoch=0).layer


@pytest.fixture(scope="module")
def copy(public: Public, checkout: Checkout, tmp_path_factory: pytest.TempPathFactory, client: docker.DockerClient) -> Iterator[Checkout]:
    """Give a repository of its own whose Ubuntu is the stand-in; its images go again."""
    made = checkout.copy(tmp_path_factory.mktemp("copy") / "repository")
    path = made.root / "matrix.yaml"
    text = re.sub(rf"  {NAME}:\n    {{.*}}\n", SYSTEM.format(name=NAME, image=public.image), path.read_text())
    text = text.replace("name: pytorch-cuda", f"name: {IMAGE}", 1)
    text = re.sub(r"(cuda: cpu, .*os: )\[debian12\]", rf"\1[debian12, {NAME}]", text)
    path.write_text(text)
    (made.root / "locks" / "os" / f"{NAME}.lock").unlink(missing_ok=True)
    git = made.root / ".git"
    if git.is_file():
        git.unlink()
        _git(made, "init", "--quiet")
    _commit(made, "The stand-in")
    yield made
    for image in client.images.list(name=IMAGE):
        client.images.remove(image.id, force=True)


def _commit(where: Checkout, message: str) -> None:
    _git(where, "add", "--all")
    _git(where, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message", message)


def _git(where: Checkout, *words: str) -> str:
    return subprocess.run(["git", "-C", where.root, *words], capture_output=True, text=True, check=True).stdout


def system(where: Checkout) -> OperatingSystem:
    """Return the stand-in, as the repository names it."""
    return matrix.load(where.root / "matrix.yaml").systems[NAME]


@pytest.fixture(scope="module")
def locked(copy: Checkout) -> Ended:
    """Lock it as its errors say, and commit the lock, as people do."""
    ended = copy.run("invoke", "lock", "--os", NAME)
    assert ended.status == 0, ended.output
    _commit(copy, "The lock")
    return ended


@pytest.fixture(scope="module")
def built(copy: Checkout, locked: Ended, client: docker.DockerClient) -> str:
    """Build the base of the CPU cell; give the image's ID."""
    ended = copy.build(CELL, "--flavour", "base")
    assert ended.status == 0, ended.output
    return str(client.images.get(f"{IMAGE}:{CELL}-base").id)


def test_nothing_is_built_that_nobody_has_locked(copy: Checkout) -> None:
    """The error names the lock and the command that writes it."""
    with pytest.raises(LockError, match=rf"no locks/os/{NAME}.lock\n.*inv lock --os"):
        os_locks.read(system(copy), copy.root)


def test_the_lock_has_tag_digest_and_the_packages_of_all_flavours(public: Public, copy: Checkout, locked: Ended) -> None:
    """The digest is that of the image for our platform, not of the index; what the image itself holds is told from what flavours add."""
    lock = os_locks.read(system(copy), copy.root)
    with Registry(public.served.host) as registry:
        index = registry.manifest(REPOSITORY, TAG)
    assert lock.image == f"{public.image}@{index.document().children[1].digest}"
    assert list(lock.sections) == ["os", *matrix.load().flavours]
    assert {"dpkg", "apt"} <= lock.sections["os"].keys()
    assert {"git", "python3.11"} <= lock.sections["base"].keys()
    assert "cmake" in lock.sections["devel"]
    assert f"{NAME}.lock written" in locked.output


def test_locking_again_writes_nothing(copy: Checkout, locked: Ended) -> None:
    """Neither image nor packages have moved."""
    before = os_locks.path(system(copy), copy.root).read_bytes()
    ended = copy.run("invoke", "lock", "--os", NAME)
    assert (ended.status, "0 of 1 OS locks moved" in ended.output) == (0, True), ended.output
    assert os_locks.path(system(copy), copy.root).read_bytes() == before


def test_what_is_built_is_verified(copy: Checkout, built: str) -> None:
    """By the same tests as every base image."""
    ended = copy.run("nox", "--session", f"test-{CELL}", "--", "--flavour", "base", "--scope", "quick")
    assert ended.status == 0, ended.output


def test_a_rebuild_has_the_same_digest(copy: Checkout, built: str, client: docker.DockerClient) -> None:
    """The image is composed anew from its locks."""
    client.images.remove(f"{IMAGE}:{CELL}-base")
    ended = copy.build(CELL, "--flavour", "base", "--locked")
    assert ended.status == 0, ended.output
    assert client.images.get(f"{IMAGE}:{CELL}-base").id == built


def test_a_digest_that_is_gone_is_one_error(copy: Checkout, locked: Ended, tmp_path: Path) -> None:
    """Its code is that of what a registry does not have, and it names the cure."""
    again = copy.copy(tmp_path / "again")
    path = os_locks.path(system(again), again.root)
    path.write_text(re.sub("@sha256:[0-9a-f]{64}", f"@sha256:{'d' * 64}", path.read_text()))
    with pytest.raises(AbsentError, match=rf"the registry has no .*@sha256:{'d' * 64}\n.*inv lock --os"):
        OsPartBuilder(store=Store(tmp_path / "store"), codec=Codec(), on_line=print, root=again.root).bake([system(again)], ("base",))


@pytest.mark.parametrize("case", [("none", AbsentError.code, "the registry has no "), ("other", RegistryError.code, "no image for linux/amd64")])
def test_a_tag_that_is_not_there_or_not_for_us_is_one_error(public: Public, copy: Checkout, tmp_path: Path, case: tuple[str, int, str]) -> None:
    """Two lines, a code of its own, and nothing is written."""
    tag, status, says = case
    public.publish(public.debian, tag="other", architecture="arm64")
    again = copy.copy(tmp_path / "again")
    (again.root / "matrix.yaml").write_text((again.root / "matrix.yaml").read_text().replace(f"{REPOSITORY}:{TAG}", f"{REPOSITORY}:{tag}"))
    before = sorted(path.name for path in (again.root / "locks/os").iterdir())
    ended = again.run("invoke", "lock", "--os", NAME)
    assert ended.status == status, ended.output
    assert [line for line in ended.output.splitlines() if line.startswith("error: ") and says in line]
    assert "Traceback" not in ended.output
    assert sorted(path.name for path in (again.root / "locks/os").iterdir()) == before


def night(where: Checkout) -> Any:
    """Let a night pass; return what it has found and done."""
    ran = subprocess.run([sys.executable, "-c", NIGHT], cwd=where.root, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_night_after_the_tag_has_moved_locks_the_new_image(public: Public, copy: Checkout, built: str, client: docker.DockerClient) -> None:
    """It says what moved, in the report and in the commit; the next build is another image, and the night after finds nothing."""
    old = os_locks.read(system(copy), copy.root)
    new = public.publish(public.debian, another_layer(public.store))
    found = night(copy)
    assert found["document"]["bases"] == {NAME: [old.image, f"{public.image}@{new}"]}
    assert (found["written"], found["failures"], found["pending"]) == ([f"{NAME}.lock"], [], [])
    assert os_locks.read(system(copy), copy.root).image == f"{public.image}@{new}"
    assert f"{NAME}: {public.image} {old.image.partition('@')[2][:19]} -> {new[:19]}" in _git(copy, "log", "-1", "--format=%B")
    assert copy.build(CELL, "--flavour", "base").status == 0
    assert client.images.get(f"{IMAGE}:{CELL}-base").id != built
    assert night(copy)["document"]["os"] == {}


def test_a_night_without_the_tag_says_so_and_leaves_the_lock(public: Public, copy: Checkout, built: str) -> None:
    """What was locked stays, and can be built from."""
    before = os_locks.path(system(copy), copy.root).read_bytes()
    public.withdraw(TAG)
    found = night(copy)
    assert found["document"]["failed"] == [f"the registry has no {public.image}"]
    assert found["written"] == []
    assert os_locks.path(system(copy), copy.root).read_bytes() == before
    assert copy.build(CELL, "--flavour", "base", "--locked").status == 0


def test_another_machine_makes_the_same_layers(copy: Checkout, built: str, tmp_path: Path) -> None:
    """With an empty store, and steps that BuildKit has never seen: what the lock pins decides."""
    again = copy.copy(tmp_path / "again")
    file = again.root / "images/base/Dockerfile"
    file.write_text(file.read_text().replace("/mnt/install g++", f": {uuid.uuid4()} && /mnt/install g++"))
    parts = OsPartBuilder(store=Store(tmp_path / "store"), codec=Codec(), on_line=print, locked=True, root=again.root).bake([system(again)], ("base",))
    first = OsPartBuilder(store=Store.open(), codec=Codec(), on_line=print, locked=True, root=copy.root).bake([system(copy)], ("base",))
    assert [layer.diff_id for layer in parts[NAME, "base"].layers] == [layer.diff_id for layer in first[NAME, "base"].layers]


def test_drift_is_told_or_refused(copy: Checkout, built: str, tmp_path: Path) -> None:
    """A version that its mirrors do not have is replaced and named; --locked refuses it."""
    again, lines = copy.copy(tmp_path / "again"), list[str]()
    lock = os_locks.read(system(again), again.root)
    os_locks.write(replace(lock, sections={**lock.sections, "base": {**lock.sections["base"], "less": "1-1"}}), system(again), again.root)
    builder = OsPartBuilder(store=Store(tmp_path / "store"), codec=Codec(), on_line=lines.append, root=again.root)
    builder.bake([system(again)], ("base",))
    assert [line for line in lines if line.startswith(f"{NAME}: not as locked on ") and "less 1-1 -> " in line]
    with pytest.raises(StaleLockError, match="less 1-1 -> "):
        replace(builder, locked=True).bake([system(again)], ("base",))
