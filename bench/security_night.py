"""The night of a security fix: one OS package has a newer version, and a node has yesterday's images. Torchstrata beside the
plain Dockerfile way, in one go on one machine.

    python bench/security_night.py [CELL] [--older PACKAGE=VERSION ...] [--yesterday DATE] > bench/results/security_night.json

Yesterday is made: it is today's OS lock with ``--older`` versions, which the mirrors must still offer. Both sides build and push
yesterday's images, then tonight's, to a registry on loopback (plain HTTP); then a node, a containerd of its own, pulls and unpacks
tonight's base, and from the same state tonight's all-in-one image.

- Composed: ``inv nightly --step locks --commit``, then ``--step push`` (signed), in a clone, by a runner that has nothing: no
  content store, and a comment in ``images/apt/install`` that keeps BuildKit from knowing any of it.
- Plain: bench/plain, all packages at the versions of the same locks. Tonight begins without the cache of yesterday, for want of
  disk; it would save the OS image only, since the packages are below everything else. For the same reason the node never has two
  of its images: it is given what tonight's shares with yesterday's, which is compared, not supposed.

Needs root and 25 GB of disk; the OS image of the cell must have been built here. Only what it made itself is removed from BuildKit.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine
from tests import nodes, programs, registries
from tests.nodes import Node
from tests.registries import Served
from torchstrata.layers import os_image, os_parts
from torchstrata.layers.buildkit import instruction
from torchstrata.layers.contexts import apt_config
from torchstrata.locks import os_locks, wheel_locks
from torchstrata.locks.os_locks import OsLock
from torchstrata.matrix import matrix
from torchstrata.matrix.matrix import Cell
from torchstrata.store.codec import Codec
from torchstrata.store.store import Store

KRB5 = ("libgssapi-krb5-2", "libk5crypto3", "libkrb5-3", "libkrb5support0")
OLDER = [f"{name}=1.21.3-5+deb13u1" for name in KRB5]
"""What debian13 had on 2026-11-23; the fix is 1.21.3-5+deb13u2."""

CA = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
SPARE = 6_000_000_000
"""Bytes of disk below which nothing begins."""

NOTHING = 0.1
"""MB that make no difference, such as the layer of a pip that has nothing to install, which is the same every night."""

FIELD = re.compile(r"^(ID|Parent|Description):\s+(.*)$", re.MULTILINE)
STEPS = re.compile(r"/mnt/install |/locks/\w+\.lock|python3 -m venv /opt/venv|apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes")
"""Steps of both sides' Dockerfiles that weigh something, as BuildKit describes them."""


@dataclass
class Side:
    """What one way did.

    :param night: seconds of the night, from asking or building to the last push.
    :param pushed: bytes that came into the registry by it.
    :param notes: more figures.
    :param images: by name, what the node fetched, and the layers of tonight's image that yesterday's does not have.
    """

    night: float
    pushed: int
    notes: Mapping[str, Any]
    images: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """For the result."""
        return {"night_s": round(self.night, 1), "pushed_mb": _mb(self.pushed), **self.notes, "images": self.images}


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


def say(line: str) -> None:
    """Tell the person who waits."""
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {shutil.disk_usage(tempfile.gettempdir()).free / 1e9:5.1f} GB free: {line}", file=sys.stderr, flush=True)


def begin(line: str) -> None:
    """Say what comes next, if there is room for it."""
    say(line)
    if shutil.disk_usage(tempfile.gettempdir()).free < SPARE:
        raise SystemExit(f"less than {SPARE / 1e9:.0f} GB of disk are free")


def run(*args: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, tolerated: str = "") -> str:
    """Run a program, with its output on standard error, and return its output; its failure is none if ``tolerated`` is in it."""
    process = subprocess.Popen(args, cwd=cwd, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stderr.write(line)
        lines.append(line)
    if process.wait() and not (tolerated and tolerated in lines[-1]):
        raise SystemExit(f"failed: {' '.join(map(str, args))[:200]}")
    return "".join(lines)


# What is in a registry


def stored(served: Served) -> int:
    """Return the bytes of all blobs in a registry."""
    return sum(path.stat().st_size for path in served.storage.glob("blobs/sha256/*/*/data"))


def layers(served: Served, repository: str, tag: str) -> list[dict[str, Any]]:
    """Return the layers of an image in a registry, bottom to top: digest, MB, and what made them."""
    manifest = json.loads(served.blob(served.tags(repository)[tag]).read_bytes())
    history = json.loads(served.blob(manifest["config"]["digest"]).read_bytes())["history"]
    steps = [entry.get("created_by", "") for entry in history if not entry.get("empty_layer")]
    return [
        {"digest": layer["digest"], "mb": _mb(layer["size"]), "step": instruction(step)[:90]} for layer, step in zip(manifest["layers"], steps, strict=True)
    ]


def compared(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many layers an image has, and those that its predecessor does not have."""
    known = {layer["digest"] for layer in old}
    return {"layers": len(new), "new_layers": [{"mb": layer["mb"], "step": layer["step"]} for layer in new if layer["digest"] not in known]}


def pulled(node: Node, reference: str) -> dict[str, Any]:
    """Pull an image, tell what it took, and let the node be as it was before."""
    took = node.pull(reference)
    node.forget(reference)
    say(f"{reference}: {_mb(took.fetched)} MB in {took.seconds:.1f} s")
    return {"pulled_mb": _mb(took.fetched), "pull_s": round(took.seconds, 2), "load": round(os.getloadavg()[0], 1)}


# Our way


@dataclass
class Checkout:
    """A clone with a remote of its own, in which nights are run.

    :param work: a directory for all of it.
    :param environment: of the programs that run there.
    """

    work: Path
    cell: Cell
    environment: dict[str, str]

    @property
    def root(self) -> Path:
        """The clone."""
        return self.work / "checkout"

    @classmethod
    def make(cls, work: Path, cell: Cell, registry: str) -> Checkout:
        """Clone HEAD, and make a key pair to sign with."""
        path = os.pathsep.join([str(Path(sys.executable).parent), str(programs.directory("cosign")), os.environ["PATH"]])
        keys = {"COSIGN_PASSWORD": "", "COSIGN_KEY": str(work / "cosign.key"), "COSIGN_PUBLIC_KEY": str(work / "cosign.pub")}
        env = {**keys, "PATH": path, "TORCHSTRATA_REGISTRY": registry, "DOCKER_CONFIG": str(work / "docker")}
        (work / "docker").mkdir()
        run(programs.directory("cosign") / "cosign", "generate-key-pair", cwd=work, env=env)
        run("git", "clone", "--quiet", "--bare", "--single-branch", ROOT, work / "origin.git")
        run("git", "clone", "--quiet", work / "origin.git", work / "checkout")
        return cls(work, cell, env)

    def commit(self, lock: OsLock) -> None:
        """Commit a lock, and a comment that makes every step of the OS parts new to stores and to BuildKit."""
        os_locks.write(lock, self.cell.os, self.root)
        with (self.root / "images/apt/install").open("a") as script:
            script.write(f"# {self.work.name} {time.time()}\n")
        who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        run("git", *who, "commit", "--quiet", "--all", "--message", "Yesterday", cwd=self.root)

    def nightly(self, *words: str, cache: Path) -> str:
        """Run a step of the night with a content store."""
        return run("inv", "nightly", self.cell.id, *words, cwd=self.root, env={**self.environment, "TORCHSTRATA_CACHE": str(cache)})


def copied(cache: Path) -> Path:
    """Make a content store that has what this machine's has, by hard links, as a runner which built the cell before."""
    own = Store.open().root
    for name in ("blobs", "parts", "listings"):
        shutil.copytree(own / name, cache / name, copy_function=os.link)
    return cache


def dated(output: str) -> dict[str, str]:
    """Return from the output of a push the immutable tag of each image, by its name: ``base``, ``v2.8``."""
    return {name: tag for tag, name in re.findall(r":([^\s:/]+-([a-z]+|v[\d.]+)-\d{8}\.\d+)\s", output)}


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[Served]:
    """Run a registry in a new directory under this one, and leave nothing of it."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="torchstrata-registry-") as root, registries.registry(Path(root)) as served:
        yield served


def composed_way(cell: Cell, old: OsLock, work: Path, where: Path) -> Side:
    """Run both nights our way, with the registry under ``where``."""
    work.mkdir()
    with registry(where) as served:
        checkout = Checkout.make(work, cell, f"{served.host}/team")
        checkout.commit(old)
        begin("composed: yesterday")
        before = checkout.nightly("--step", "push", cache=copied(work / "yesterday"))
        shutil.rmtree(work / "yesterday")
        held = stored(served)
        begin("composed: tonight")
        started = time.monotonic()
        checkout.nightly("--step", "locks", "--commit", "--send", cache=work / "tonight")
        looked = time.monotonic() - started
        after = checkout.nightly("--step", "push", cache=work / "tonight")
        side = Side(time.monotonic() - started, stored(served) - held, {"of_it_locks_and_os_parts_s": round(looked, 1), "parts": parts(after)})
        shutil.rmtree(work / "tonight")
        images = {"base": "base", "all_in_one": cell.all_in_one}
        with nodes.node(work / "node") as node:
            _pull_ours(node, served, side, {name: (tags_of(before)[image], tags_of(after)[image]) for name, image in images.items()})
    shutil.rmtree(work)
    return side


def tags_of(output: str) -> dict[str, str]:
    """Return :func:`dated`, or stop if it is not there."""
    found = dated(output)
    if not found:
        raise SystemExit("the push did not say under which tags")
    return found


def parts(output: str) -> int:
    """Return how many parts a push says that it made."""
    found = re.search(r"(\d+) new parts", output)
    return int(found[1]) if found else 0


def _pull_ours(node: Node, served: Served, side: Side, tags: Mapping[str, tuple[str, str]]) -> None:
    repository = f"team/{matrix.load().name}"
    begin("composed: the node pulls yesterday's images")
    for old, _ in tags.values():
        took = node.pull(f"{served.host}/{repository}:{old}")
        say(f"{old}: {_mb(took.fetched)} MB in {took.seconds:.1f} s")
    for name, (old, new) in tags.items():
        difference = compared(layers(served, repository, old), layers(served, repository, new))
        side.images[name] = pulled(node, f"{served.host}/{repository}:{new}") | difference


# The plain way


@dataclass(frozen=True)
class Plain:
    """Builds and pushes images of bench/plain.

    :param below: the build context of the OS image.
    """

    cell: Cell
    served: Served
    below: str

    def build(self, lock: OsLock, tag: str) -> float:
        """Build and push base and ssh with the versions of a lock; return seconds."""
        started = time.monotonic()
        packages = [f"--build-arg=PACKAGES_{name.upper()}={_pinned(lock, name)}" for name in ("base", "devel", "jupyter", "ssh")]
        more = [f"--build-context=locks={(ROOT / wheel_locks.path_of(self.cell, 'base')).parent}", f"--secret=id=ca,src={CA}", *packages]
        for target in ("base", "ssh"):
            self.push(f"{target}-{tag}", "--target", target, *more, "bench/plain")
        return time.monotonic() - started

    def push(self, tag: str, *words: str) -> None:
        """Build an image and push it; the engine does not get it.

        BuildKit pushes. With the engine's own builder, buildx then wants the engine to push as well, which fails without harm.
        """
        out = f"--output=type=image,name={self.served.host}/plain:{tag},push=true,store=false,oci-mediatypes=true"
        options = ("--progress=plain", "--provenance=false", f"--build-context=os={self.below}", out)
        run("docker", "buildx", "build", *options, *words, tolerated="tag does not exist")
        if tag not in self.served.tags("plain"):
            raise SystemExit(f"BuildKit has not pushed {tag}")


def _pinned(lock: OsLock, section: str) -> str:
    return " ".join(f"{name}={version}" for name, version in sorted(lock.sections[section].items()))


def records() -> dict[str, dict[str, str]]:
    """Return what BuildKit's cache holds, by id."""
    listed = subprocess.run(["docker", "buildx", "du", "--verbose"], check=True, capture_output=True, text=True).stdout
    found = [dict(FIELD.findall(paragraph)) for paragraph in listed.split("\n\n")]
    return {each["ID"]: each for each in found if "ID" in each}


def made_since(before: Mapping[str, Any]) -> set[str]:
    """Return the steps of both sides' Dockerfiles that are new in BuildKit's cache, with all that is built on them."""
    now = {name: each for name, each in records().items() if name not in before}
    found = {name for name, each in now.items() if STEPS.search(each.get("Description", ""))}
    while more := {name for name, each in now.items() if each.get("Parent") in found} - found:
        found |= more
    return found


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Afterwards remove from BuildKit's cache what was made meanwhile and weighs something; children go before parents."""
    before = records()
    try:
        yield
    finally:
        for _ in range(12):
            for each in made_since(before):
                subprocess.run(["docker", "buildx", "prune", "--all", "--force", f"--filter=id={each}"], check=True, capture_output=True)


def plain_way(cell: Cell, locked: tuple[OsLock, OsLock], work: Path, where: Path) -> Side:
    """Run both nights the plain way, with the registry under ``where``."""
    work.mkdir()
    with registry(where) as served:
        plain = Plain(cell, served, os_context(cell, work / "os"))
        (work / "only-os").mkdir()
        (work / "only-os/Dockerfile").write_text("FROM os\n")
        plain.push("os", str(work / "only-os"))
        begin("plain: yesterday")
        with uncached():
            plain.build(locked[0], "yesterday")
        thin(served)
        held = stored(served)
        begin("plain: tonight")
        with uncached():
            seconds = plain.build(locked[1], "tonight")
        side = Side(seconds, stored(served) - held, {})
        with nodes.node(work / "node") as node:
            _pull_plain(node, served, side)
    shutil.rmtree(work)
    return side


def thin(served: Served) -> None:
    """Remove yesterday's layers from the registry's disk, for want of room; that tonight's images have none of them is seen later."""
    kept = {layer["digest"] for layer in layers(served, "plain", "os")}
    for digest in {layer["digest"] for target in ("base", "ssh") for layer in layers(served, "plain", f"{target}-yesterday")} - kept:
        served.blob(digest).unlink()


def os_context(cell: Cell, directory: Path) -> str:
    """Return the OS image that torchstrata starts from as a build context."""
    store = Store.open()
    part = store.find(os_image.identity(cell.os, os_locks.read(cell.os), apt_config(ROOT), Codec()))
    if part is None:
        raise SystemExit(f"first: nox -s build-{cell.id}")
    return os_parts.build_context(cell.os, part.layers, store, directory)


def _pull_plain(node: Node, served: Served, side: Side) -> None:
    begin("plain: the node pulls")
    node.pull(f"{served.host}/plain:os")
    held = {layer["digest"] for layer in layers(served, "plain", "os")}
    for name, target in {"base": "base", "all_in_one": "ssh"}.items():
        old, new = (layers(served, "plain", f"{target}-{night}") for night in ("yesterday", "tonight"))
        lost = [layer for layer in new if layer["digest"] in {each["digest"] for each in old} - held]
        if sum(layer["mb"] for layer in lost) > NOTHING:
            raise SystemExit(f"the node would have more of {target} than it was given: {lost}")
        side.images[name] = pulled(node, f"{served.host}/plain:{target}-tonight") | compared(old, new)


# Both


def before(lock: OsLock, older: Mapping[str, str], date: str) -> OsLock:
    """Return a lock as it was on another day, with other versions of some packages."""
    sections = {section: {name: older.get(name, version) for name, version in packages.items()} for section, packages in lock.sections.items()}
    return replace(lock, date=date, sections=sections)


def ratios(composed: Side, plain: Side) -> dict[str, float]:
    """Return our figures as shares of the plain way's."""
    both = {"night_s": composed.night / plain.night, "pushed": composed.pushed / plain.pushed}
    for image, figures in composed.images.items():
        both |= {f"{image}_{key}": figures[key] / plain.images[image][key] for key in ("pulled_mb", "pull_s")}
    return {name: round(value, 4) for name, value in both.items()}


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description="Measure the night of a security fix.")
    parser.add_argument("cell", nargs="?", default="2.8-cu121")
    parser.add_argument("--older", nargs="+", default=OLDER, metavar="PACKAGE=VERSION", help="what yesterday's lock had")
    parser.add_argument("--yesterday", default=str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)), help="the date of yesterday's lock")
    parser.add_argument("--registry", type=Path, default=Path(tempfile.gettempdir()), help="directory for the registries, such as one in memory (5 GB)")
    parser.add_argument("--only", choices=("composed", "plain"), help="measure one side only")
    return parser.parse_args()


def main() -> None:
    """Measure both sides and print the figures as JSON; progress goes to standard error."""
    asked = options()
    cell = matrix.select(matrix.load(), asked.cell)[0]
    new = os_locks.read(cell.os)
    old = before(new, dict(pair.split("=", 1) for pair in asked.older), asked.yesterday)
    moved = [str(move) for move in os_locks.moves(old.installed(tuple(new.sections)), new.installed(tuple(new.sections)))]
    figures: dict[str, Any] = {
        **machine.about(),
        "cell": cell.id,
        "moved": moved,
        "lock": {"yesterday": old.date, "tonight": new.date},
    }
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory(prefix="torchstrata-night-") as work:
        if asked.only != "plain":
            with uncached():
                sides["composed"] = composed_way(cell, old, Path(work) / "composed", asked.registry)
            say(json.dumps(sides["composed"].figures))
        if asked.only != "composed":
            sides["plain"] = plain_way(cell, (old, new), Path(work) / "plain", asked.registry)
            say(json.dumps(sides["plain"].figures))
    figures |= {name: sides[name].figures for name in sorted(sides)}
    if len(sides) > 1:
        figures["ratio"] = ratios(sides["composed"], sides["plain"])
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
