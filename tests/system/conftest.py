"""Fixtures for builds: real ones in the user's own content store, and a small disk for what breaks things."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import docker
import msgspec
import pytest
from filelock import FileLock

from tests import desks, programs, registries
from tests.built import BUILDS, CPU, CUDA, DISK, Built, Disk, cell_of
from tests.checkout import Checkout, Ended
from tests.signed import SigningTeam

FIRST = ("test_disturbed", "test_fresh_node", "test_build", "test_verification", "test_driver")
"""Files that begin first: the longest, then those that need the images for themselves, so that no two of these wait for each other."""


AS_ROOT = frozenset({"daemon", "disk", "machine", "node", "small_disk"})
"""Fixtures that only root can set up. What uses them has the marker ``root``; other users leave it out: see CONTRIBUTING.md."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say how much of the system is tested, and how thoroughly."""
    parser.addoption("--scope", choices=("quick", "full"), default="full", help="quick: only tests with the marker quick (default: full)")
    parser.addoption("--cells", default=",".join(BUILDS), help="build these only, and leave out what needs others (default: %(default)s)")
    parser.addoption("--every", type=int, default=8, metavar="N", help="disturb every Nth request of a push (default: 8; 1 at night)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not in the scope, and put the files in the order that ends soonest, where several processes share them."""
    left_out = [item for item in items if not _runs(item, config)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


def _runs(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether a test is in the scope, needs only cells that are built, and may do what it does."""
    names = getattr(item, "fixturenames", ())
    if not AS_ROOT.isdisjoint(names):
        item.add_marker("root")
    in_scope = config.option.scope == "full" or item.get_closest_marker("quick") is not None
    allowed = os.geteuid() == 0 or item.get_closest_marker("root") is None
    return in_scope and allowed and _cells(item, names) <= set(config.option.cells.split(","))


def _cells(item: pytest.Item, names: Collection[str]) -> set[str]:
    """Return the cells whose images a test needs."""
    chosen = {item.callspec.params["built"][0]} if "built" in names and hasattr(item, "callspec") else set()
    return chosen | ({CUDA} if "cuda_base" in names or item.get_closest_marker("cuda") else set())


def pytest_configure(config: pytest.Config) -> None:
    """Register markers. Take Ctrl-C though a shell's background job, such as CI may be, ignores it and hands that down to what it starts."""
    config.addinivalue_line("markers", "cuda: needs the images of the cell with CUDA")
    config.addinivalue_line("markers", "root: mounts, makes namespaces or starts daemons of its own, which only root may")
    config.addinivalue_line("markers", "quick: the short part of the system's tests: build, registry, release, engine")
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(name="desk")
def _desk(tmp_path: Path) -> Iterator[desks.Desk]:
    """Give a person with a checkout, and a registry and a git remote of their own."""
    with desks.desk(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Let programs find cosign, and this process's settings be those of a file of tests alone."""
    with programs.alone(tmp_path_factory, "") as patch:
        yield patch


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch) -> Iterator[SigningTeam]:
    """Give a registry, a bare repository and a key pair."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as served:
        yield SigningTeam.at(served.host, tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="session")
def every(request: pytest.FixtureRequest) -> int:
    """Which requests are disturbed, each in a push of its own: every Nth, with another first one for each test."""
    return int(request.config.option.every)


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """Connect to the engine that builds use."""
    found = docker.from_env(timeout=600)
    yield found
    found.close()


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    """Give this checkout, with the user's own content store."""
    return Checkout()


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Give a directory of this run that the processes share which run its tests."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def turn(common: Path) -> FileLock:
    """Give the lock of the images built here, which the processes share that run tests."""
    return FileLock(common / "images.lock")


@pytest.fixture(scope="module")
def own_turn(builds: Mapping[str, Ended], turn: FileLock) -> Iterator[None]:
    """Have the images alone while a file is tested that uses them: some tests take them away for a moment."""
    with turn:
        yield


@pytest.fixture(scope="session")
def builds(checkout: Checkout, common: Path, request: pytest.FixtureRequest) -> Mapping[str, Ended]:
    """Build for real, as the README says, in the process that comes first; by cell."""
    record = common / "builds.json"
    with FileLock(record.with_suffix(".lock")):
        if not record.exists():
            asked = request.config.option.cells.split(",")
            done = {cell: checkout.build(cell, *_flavours(BUILDS[cell])) for cell in asked}
            record.write_bytes(msgspec.json.encode(done))
    ended = msgspec.json.decode(record.read_bytes(), type=dict[str, Ended])
    for one in ended.values():
        assert one.status == 0, one.output
    return ended


def _flavours(names: Collection[str]) -> list[str]:
    """Return the words by which a build is asked for these flavours."""
    return list(itertools.chain.from_iterable(("--flavour", name) for name in names))


def _images() -> Iterator[tuple[str, str]]:
    """Yield cell and flavour of every image that is built for real."""
    for cell, flavours in BUILDS.items():
        for flavour in flavours:
            yield cell, flavour


@pytest.fixture(scope="session", params=[*_images()], ids="-".join)
def built(request: pytest.FixtureRequest, client: docker.DockerClient, builds: Mapping[str, Ended]) -> Built:
    """Give every image that is built for real."""
    cell, flavour = request.param
    return Built(client, cell_of(cell), flavour)


@pytest.fixture(scope="session")
def cuda_base(client: docker.DockerClient, builds: Mapping[str, Ended]) -> Built:
    """Give the base of the CUDA cell."""
    return Built(client, cell_of(CUDA), "base")


@pytest.fixture(scope="session")
def cpu_base(client: docker.DockerClient, builds: Mapping[str, Ended]) -> Built:
    """Give the base of the CPU cell."""
    return Built(client, cell_of(CPU), "base")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Mount a disk in memory."""
    path = tmp_path_factory.mktemp("disk")
    options = f"size={DISK},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)
