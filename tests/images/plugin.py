"""What tests of images share: the image or machine under test, what it must be, and containers that are always removed.

A plugin of pytest, since those of a flavour lie in its own folder: ``python -m pytest -p tests.images.plugin images tests/images``.
``--image`` names an image, ``--hosts`` a machine that is not a container. An image of a flavour runs the tests of its parents and its own. Tests that do not apply are left out, never skipped: markers say what to.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import msgspec
import pytest
import testinfra
from testinfra.host import Host as Connection

from tests.images import connection
from tests.images.boxes import CLIENTS, GRACE, ONE_THREAD, Box, Result, deriving, mounted, ssh_options, starting
from tests.images.lister import Lister, section_of, tier_of
from tests.images.recorder import Recorder
from torchstrata.building import engine as engines
from torchstrata.errors import TorchstrataError
from torchstrata.host import emulator
from torchstrata.image import runtime
from torchstrata.matrix.matrix import ROOT
from torchstrata.store.layer import PLATFORM
from torchstrata.verification import leftovers, required, scope
from torchstrata.verification import subject as subjects
from torchstrata.verification.evidence import Host
from torchstrata.verification.expectation import Expectation
from torchstrata.verification.subject import Claim, Subject

HERE = Path(__file__).parent
IMAGES = ROOT / "images"
"""Where the flavours have tests of their own."""
PYTHON = "/opt/venv/bin/python"
CONTAINER_FIXTURES = {"engine", "image", "inspect", "start", "start_shared", "derive", "client"}
"""Who uses one of them needs a container engine."""

MARKERS = {
    "gpu": "needs a GPU",
    "cuda": "applies to cells with CUDA only",
    "vision": "applies to cells with torchvision only",
    "audio": "applies to cells with torchaudio only",
    "audiofiles": "applies to cells whose torchaudio loads and saves files without FFmpeg only",
    "named": "applies to cells that `v<torch>` names only",
    "multigpu": "needs two GPUs",
    scope.COSTLY: "takes many core-seconds; the full scope alone runs it",
    "container": "needs a container, not just a machine",
    "native": "needs a CPU of the image's platform: QEMU cannot do what it does",
}
FIRST = (
    "test_processes",
    "test_preflight",
    "test_authorities",
    "test_jupyter",
    "test_computing",
    "test_examples",
    "test_compiler",
    "test_notebook",
    "test_ssh",
    "test_hardening",
    "test_doctor",
)
"""Modules that begin first: the longest, and those whose tests wait most."""

UMASK = 0o022
"""Of tests: what they mount has the modes that they expect, also where a user's group may write what the user makes (Debian 13)."""

RUN_PROBE = f'd=$(mktemp -d) && trap "rm -rf $d" EXIT && printf %s "$1" | base64 -d >"$d/$2" && f=$d/$2 && shift 2 && {PYTHON} "$f" "$@"'


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say what is tested, and against what."""
    group = parser.getgroup("images", "the image or machine under test")
    group.addoption("--image", metavar="REF", help="image under test: any name or digest that the engine has")
    group.addoption("--cell", metavar="CELL", help="the cell that it must be (default: the one that its label claims)")
    group.addoption("--flavour", metavar="FLAVOUR", help="the flavour that it must be (default: the one that its label claims)")
    group.addoption("--results", metavar="DIR", help="write verify.json there")
    group.addoption("--list-to", metavar="DIR", help="write the lists of required tests into that checkout, as the tests are, and run none")
    group.addoption("--gpu", choices=("auto", "required", "none"), default="auto", help="whether to run the tests that need a GPU (default: if there is one)")
    group.addoption("--scope", choices=("quick", "full"), default="full", help="how many of the tests run (default: full)")


SUBJECT = pytest.StashKey[Subject]()
EXPECTED = pytest.StashKey[Expectation]()


def pytest_configure(config: pytest.Config) -> None:
    """Find out what is tested, before any test is collected."""
    os.umask(UMASK)
    config.pluginmanager.register(connection, "torchstrata-connection")  # after testinfra, whose fixture of that name it replaces
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if config.option.help or config.option.markers:
        return
    if config.option.list_to:
        config.pluginmanager.register(Lister(Path(config.option.list_to)), "lister")
        return
    if hasattr(config, "workerinput"):
        _set(config, msgspec.json.decode(config.workerinput["subject"], type=Subject))
        return
    leftovers.labels()
    try:
        subject, is_alive = _machine(config) if config.option.hosts else _image(config)
    except TorchstrataError as error:
        pytest.exit(str(error), returncode=error.code)
    _set(config, subject)
    config.pluginmanager.register(Recorder(config, subject, is_alive), "recorder")


def _set(config: pytest.Config, subject: Subject) -> None:
    config.stash[SUBJECT], config.stash[EXPECTED] = subject, subject.expected


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the processes that share the tests what is tested."""
    node.workerinput["subject"] = msgspec.json.encode(node.config.stash[SUBJECT]).decode()


def _image(config: pytest.Config) -> tuple[Subject, Callable[[], bool]]:
    """Return the image of ``--image``, and what tells whether its engine is alive."""
    if not config.option.image:
        raise pytest.UsageError("say what is tested: --image REF, or --hosts local://")
    engine = engines.connect()
    leftovers.sweep(engine.client)
    return subjects.examine(engine, config.option.image, _claim(config), config.option.gpu), engine.is_alive


def _machine(config: pytest.Config) -> tuple[Subject, Callable[[], bool]]:
    """Return the machine of ``--hosts``; there is no engine that could die."""
    host = testinfra.get_host(config.option.hosts)
    facts = host.file("/etc/torchstrata/image.json")
    labels = json.loads(facts.content_string)["labels"] if facts.exists else {}
    cell, flavour = _claim(config).settle(labels, config.option.hosts)
    where = Host(kernel=host.check_output("uname -r"), engine=None, cpus=int(host.check_output("nproc")), machine=host.check_output("uname -m"))
    drift, platform = labels.get(runtime.DRIFT, ""), labels.get(runtime.PLATFORM_LABEL, PLATFORM)
    subject = Subject(cell=cell, flavour=flavour, image=None, host=where, gpu=None, drift=drift, platform=platform)
    gpu = subjects.settle_gpu(subject.expected, lambda: subjects.parse_gpu(host.run(shlex.join(subjects.ASK_GPU)).stdout), config.option.gpu)
    return msgspec.structs.replace(subject, gpu=gpu), lambda: True


def _claim(config: pytest.Config) -> Claim:
    return Claim(cell=config.option.cell, flavour=config.option.flavour)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the flavours that the image does not contain, and of all what is no tests: files of images may be called like some."""
    if collection_path.parent.parent == IMAGES and collection_path.name != "tests":
        return True
    if SUBJECT not in config.stash or collection_path.parent != IMAGES:
        return None
    return None if collection_path.name in config.stash[EXPECTED].lineage else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply, note to which list of required tests the others belong, and put them in the order that ends soonest."""
    for item in items:
        _mark(item)
    if SUBJECT not in config.stash:
        return
    applies = config.stash[SUBJECT].applies
    left_out = [item for item in items if not _runs(item, applies)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=_turn)


def _runs(item: pytest.Item, applies: frozenset[str]) -> bool:
    """Return whether a test applies to the subject, which is all that ``applies`` names, and is in the scope of the run."""
    needs = {mark.name for mark in item.iter_markers()} & MARKERS.keys()
    key = required.key(dict(item.user_properties)["section"], item.nodeid)
    return needs <= applies | {scope.COSTLY} and scope.includes(item.config.option.scope, key, item.config.stash[EXPECTED])


def _turn(item: pytest.Item) -> tuple[int, str]:
    """Return what orders tests."""
    return (FIRST.index(item.path.stem), str(item.path)) if item.path.stem in FIRST else (len(FIRST), "")


def _mark(item: pytest.Item) -> None:
    """Add the markers that follow from fixtures and directory; note tier and section."""
    flavour = item.path.relative_to(IMAGES if item.path.is_relative_to(IMAGES) else HERE).parts[0]
    if CONTAINER_FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker("container")
    if flavour == "gpu":
        item.add_marker("gpu")
    item.user_properties += [("tier", tier_of(item, machine=bool(item.config.option.hosts))), ("section", section_of(item, flavour))]


@pytest.fixture(scope="session")
def expected(request: pytest.FixtureRequest) -> Expectation:
    """What the subject must be."""
    return request.config.stash[EXPECTED]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The container engine."""
    client = docker.from_env(timeout=600)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> str:
    """The image under test."""
    return str(request.config.option.image)


@pytest.fixture(scope="session")
def inspect(engine: docker.DockerClient, image: str) -> dict[str, Any]:
    """What ``docker image inspect`` says of the image."""
    found: dict[str, Any] = engine.images.get(image).attrs
    return found


@pytest.fixture
def start(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the test."""
    with starting(engine, image) as function:
        yield function


@pytest.fixture(scope="module")
def start_shared(engine: docker.DockerClient, image: str) -> Iterator[Callable[..., Box]]:
    """Start containers of the image that live as long as the module's tests."""
    with starting(engine, image) as function:
        yield function


@pytest.fixture
def derive(engine: docker.DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Build images as ``docker build`` does, removed at the end: ``derive("FROM IMAGE", base=NAME, context=DIRECTORY)`` returns a name."""
    with deriving(engine, image, tmp_path_factory.mktemp("context")) as function:
        yield function


@pytest.fixture(scope="session")
def shared(engine: docker.DockerClient, image: str, request: pytest.FixtureRequest) -> Iterator[Box]:
    """One container without a network, for all tests that only read."""
    gpus = list(subjects.ALL_GPUS) if request.config.stash[SUBJECT].gpu else []
    with starting(engine, image) as function:
        yield function("sleep", "infinity", network_mode="none", shm_size="1g", device_requests=gpus)


@pytest.fixture(scope="session")
def probe(host: Connection) -> Callable[..., Any]:
    """Run a script of ``probes/`` on the host and return the JSON that it prints: ``probe("name", "argument", env={...})``."""

    def run(name: str, *arguments: str, env: dict[str, str] | None = None) -> Any:
        script = base64.b64encode(_source(name).encode()).decode()
        variables = (f"{key}={value}" for key, value in (ONE_THREAD | (env or {})).items())
        words = ("env", *variables, "sh", "-c", RUN_PROBE, "sh", script, f"{name}.py", *arguments)
        done = host.run(shlex.join(words))
        return _printed(name, done.rc, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def probes(probe: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Callable[[str], Any]]:
    """Run scripts of ``probes/`` that share one import of torch: ``probes({"name": ["argument"]}, {"name": {"VARIABLE": "value"}})``.

    It returns what gives the JSON that a script printed, by name.
    """
    subject = request.config.stash[SUBJECT]
    cpu = GRACE if subject.is_emulated and subject.platform == "linux/arm64" and emulator.concern(subject.platform) is None else {}

    def run(wanted: dict[str, list[str]], env: dict[str, dict[str, str]]) -> Callable[[str], Any]:
        document = [{"name": name, "source": _source(name), "arguments": words, "environment": env.get(name, {})} for name, words in wanted.items()]
        ended = dict(zip(wanted, probe("together", json.dumps(document), env=cpu), strict=True))
        return lambda name: _printed(name, **ended[name])

    return run


def _source(name: str) -> str:
    return (HERE / "probes" / f"{name}.py").read_text(encoding="utf-8")


def _printed(name: str, status: int, out: str, err: str) -> Any:
    assert status == 0, f"probe {name} failed with status {status}:\n{out[-2000:]}\n{err[-4000:]}"
    return json.loads(out)


@pytest.fixture(scope="session")
def gpus(request: pytest.FixtureRequest) -> int:
    """The number of GPUs, on the gpu tier."""
    found = request.config.stash[SUBJECT].gpu
    assert found, "a test that asks for GPUs needs the marker gpu"
    return int(found.count)


@pytest.fixture(scope="session")
def client(engine: docker.DockerClient, image: str) -> Iterator[Box]:
    """A second container, from which services are used over the network."""
    with starting(engine, image) as function:
        yield function("sleep", "infinity")


@pytest.fixture(scope="session")
def public_key(client: Box) -> str:
    """The public key that belongs to the client's good key; only images with SSH have what makes it."""
    for kind in ("good", "bad"):
        assert client.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/tmp/{kind}").status == 0
    return client.run("cat", "/tmp/good.pub").out.strip()


@pytest.fixture(scope="session")
def ssh(client: Box, public_key: str) -> Callable[..., Result]:
    """Run ``ssh`` from the client: ``ssh(box, "command", options=[...])``."""

    def connect(box: Box, *command: str, options: tuple[str, ...] = (), key: str = "good", port: int = 22, stdin: bytes | None = None) -> Result:
        return client.run("ssh", *ssh_options(key), "-p", str(port), *options, f"dev@{box.address}", *command, stdin=stdin)

    return connect


@pytest.fixture(scope="session")
def notebook(client: Box) -> Callable[..., Result]:
    """Use Jupyter from the client: ``notebook(box, token, "kernel", "print(1)")`` or ``"terminal", "echo 1"``."""

    def use(box: Box, token: str, what: str, code: str, *, base: str = "/") -> Result:
        script = (CLIENTS / "notebook.py").read_bytes()
        return client.run("/opt/venv/bin/python", "-", f"http://{box.address}:8888{base}", token, what, code, stdin=script)

    return use


@pytest.fixture
def give(start: Callable[..., Box]) -> Iterator[Callable[[Path, str], None]]:
    """Give a file or directory of the host, with all that is in it, to another user: ``give(path, "0:0")``. At the end it comes back."""
    given: list[Path] = []

    def change(path: Path, owner: str) -> None:
        given.append(path)
        _give(start, path, owner)

    yield change
    for path in given:
        _give(start, path, f"{os.geteuid()}:{os.getegid()}")


def _give(start: Callable[..., Box], path: Path, owner: str) -> None:
    """Change an owner, as root may, and as an engine may for ordinary users."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", owner, path], check=True)
        return
    box = start("-R", owner, "/given", entrypoint=["chown"], user="0:0", network_mode="none", volumes=mounted(path, "/given"))
    assert box.ended() == 0, box.log


@pytest.fixture
def workspace(tmp_path: Path, give: Callable[[Path, str], None]) -> Path:
    """A directory of the host to mount at /workspace, owned by uid 1234; whoever runs the tests can write to it, too."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    directory.chmod(0o775)
    give(directory, f"1234:{os.getegid() or 1234}")
    return directory


@pytest.fixture
def volume(engine: docker.DockerClient) -> Iterator[str]:
    """A named volume, removed at the end."""
    made = engine.volumes.create(labels=leftovers.labels())
    yield str(made.name)
    with contextlib.suppress(docker.errors.APIError):
        made.remove(force=True)
