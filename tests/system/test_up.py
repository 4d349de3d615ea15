"""Containers that ``inv up`` starts: a person with a home, a key and a workspace, and what goes wrong for them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from itertools import chain
from pathlib import Path

import docker
import docker.errors
import pytest
import yaml

from tests import daemons, programs, registries
from tests.built import CPU, MATRIX, Disk
from tests.checkout import Checkout
from tests.registries import free_port
from tests.waiting import until
from torchstrata import errors
from torchstrata.building import engine
from torchstrata.commands import verbs, wanted_image
from torchstrata.containers import launchers
from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.containers.running import LABEL
from torchstrata.host import apt
from torchstrata.host.filesystem import CACHE_VARIABLE
from torchstrata.platforms import PLATFORM
from torchstrata.store.store import Store

IMAGE = f"{MATRIX.name}:{CPU}-ssh"
BASE = f"{MATRIX.name}:{CPU}-base"
URL = re.compile(r"http://(\S+?):(\d+)/lab\?token=(\w+)")
DEV = 1000
STORE = str(Store.open().root)
"""Where images are built from here; people of these tests have a home of their own."""
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwJuYkIHPRxz0OW3pqW285qX5+bgnA3EBIJUUvAgeoX nobody"
"""Of a private key that nobody has: most tests only need somebody who has one, and a new machine has no ssh-keygen."""

pytestmark = pytest.mark.usefixtures("own_turn")


class Person:
    """Somebody at a machine with an engine.

    :param client: of the engine, to see what became of it.
    """

    def __init__(self, root: Path, client: docker.DockerClient) -> None:
        self.root, self.client, self.name = root, client, f"ts-{uuid.uuid4().hex[:8]}"
        (root / "home" / ".ssh").mkdir(parents=True)
        self.key = root / "home" / ".ssh" / "id_ed25519"
        self.key.with_suffix(".pub").write_text(f"{PUBLIC_KEY}\n")
        self.workspace = root / "work"
        self.env = {"HOME": str(root / "home"), "XDG_STATE_HOME": str(root / "state"), "CI": "1", "TORCHSTRATA_REGISTRY": ""}

    def make_key(self):
        """Have a key of one's own, whose private part is there."""
        self.key.with_suffix(".pub").unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)

    def inv(self, *words, **env):
        """Run a verb to its end."""
        return Checkout(env=self.env | env).run("invoke", *map(str, words))

    def up(self, *words, cell=CPU, **env):
        """Run ``inv up`` for the person's container and workspace."""
        return self.inv("up", cell, "--name", self.name, "--workspace", self.workspace, *words, **env)

    def started(self, *words, **more):
        """Start the container, or go on with it, and return it."""
        ended = self.up(*words, **more)
        assert ended.status == 0, ended.output
        return self.container()

    def container(self):
        """Return the person's container, if there is one."""
        with contextlib.suppress(docker.errors.NotFound):
            return self.client.containers.get(self.name)
        return None

    def leftovers(self):
        """Return what the engine and the state directory have of the person."""
        found = [each.name for each in self.client.containers.list(all=True, ignore_removed=True) if each.name.startswith(self.name)]
        volumes = [each.name for each in self.client.volumes.list() if each.name.startswith(self.name)]
        return found + volumes + [path.name for path in (self.root / "state").rglob("*") if path.is_file() and self.name in str(path)]

    def read(self, url, token=None):
        """Ask JupyterLab for its state with a token, by default that of the address; return the status of HTTP."""
        host, port, own = URL.search(url).groups()
        with socket.create_connection((host, int(port))) as asked:
            asked.sendall(f"GET /api/status HTTP/1.0\r\nHost: {host}\r\nAuthorization: token {token or own}\r\n\r\n".encode())
            return int(asked.makefile("rb").readline().split()[1])

    def tidy(self):
        """Remove all of it."""
        for container in self.client.containers.list(all=True, ignore_removed=True):
            if container.name.startswith(self.name):
                container.remove(force=True)
        for volume in self.client.volumes.list():
            if volume.name.startswith(self.name):
                volume.remove()


@pytest.fixture
def person(tmp_path, client):
    """Give somebody at this machine."""
    made = Person(tmp_path, client)
    yield made
    made.tidy()


@pytest.fixture(scope="session")
def openssh():
    """Have OpenSSH's client on this machine."""
    apt.install(["openssh-client"], print, unless=lambda: shutil.which("ssh") is not None)


@pytest.fixture
def variant(person):
    """Return a function that names an image like that of the CPU cell, with another config, as a tag of a registry."""
    made = []

    def make(**config):
        container = person.client.containers.create(BASE)
        tag = f"{person.name}-{len(made)}"
        made.append(container.commit(MATRIX.name, tag, conf=config).id)
        container.remove()
        return tag

    yield make
    person.tidy()
    for identity in made:
        person.client.images.remove(identity, force=True)


def refused(ended, error):
    """Check that a verb ended with the code of an error, in two lines, one of which is a cure."""
    assert ended.status == error.code, ended.output
    lines = ended.output[ended.output.index("error: ") :].splitlines()
    assert len(lines) == 2, ended.output
    assert lines[1].startswith("  -> ")
    return ended.output


def agent(person):
    """Return what leads ssh to a program that has the person's key: it looks for keys where passwd says that home is."""
    said = subprocess.run(["ssh-agent", "-a", person.root / "agent"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(SSH_\w+)=([^;]+);", said))
    subprocess.run(["ssh-add", "-q", person.key], env=os.environ | found, check=True)
    return found


@pytest.mark.quick
def test_from_nothing_to_a_notebook(person):
    """One line: a container that is healthy, an address that lets in who has it, and files that are the person's."""
    container = person.started()
    assert container.attrs["State"]["Health"]["Status"] == "healthy"
    address = person.inv("jupyter", person.name).output
    assert person.read(address) == 200
    assert person.read(address, token="guessed") == 403
    assert container.exec_run(["touch", "/workspace/made"]).exit_code == 0
    assert (person.workspace / "made").stat().st_uid == (os.geteuid() or DEV)
    assert person.name in person.inv("ps").output
    assert "JupyterLab is ready" in person.inv("logs", person.name).output
    token = URL.search(address)[3]
    assert token not in json.dumps(container.attrs)


def test_nothing_is_lost(person):
    """The same container goes on, running or stopped, with what is in it; only --remove takes that, never workspace and home."""
    first = person.started()
    first.exec_run(["touch", "/opt/venv/installed", "/home/dev/of-home", "/workspace/of-work"])
    assert person.started().id == first.id
    address = person.inv("jupyter", person.name).output
    assert person.inv("down", person.name).status == 0
    assert person.container().status == "exited"
    assert f"{person.name}: did not run; " in person.inv("down", person.name).output
    again = person.started()
    assert again.id == first.id
    assert again.exec_run(["ls", "/opt/venv/installed"]).exit_code == 0
    assert person.read(address) == 200
    assert person.inv("down", person.name, "--remove").status == 0
    assert person.container() is None
    anew = person.started()
    assert anew.exec_run(["ls", "/home/dev/of-home", "/workspace/of-work"]).exit_code == 0
    assert anew.exec_run(["ls", "/opt/venv/installed"]).exit_code != 0


@pytest.mark.usefixtures("openssh")
def test_ssh(person):
    """By the verb and by an entry: nobody is asked about the host key, which stays though the container is made anew."""
    person.make_key()
    person.started("--ssh-entry")
    agent_of = agent(person)
    try:
        assert person.inv("ssh", person.name, "--", "cat", "/etc/torchstrata/image.json", **agent_of).status == 0
        person.started("--replace")
        assert "dev" in person.inv("ssh", person.name, "id", **agent_of).output
        entry = person.root / "home" / ".ssh" / "torchstrata.config"
        words = ["ssh", "-F", entry, "-o", "BatchMode=yes", person.name, "echo $SHELL"]
        assert subprocess.run(words, env=os.environ | agent_of, capture_output=True, text=True, check=True).stdout == "/bin/bash\n"
    finally:
        os.kill(int(agent_of["SSH_AGENT_PID"]), signal.SIGTERM)


@pytest.mark.usefixtures("openssh")
def test_an_entry_is_read_by_ssh(tmp_path, monkeypatch):
    """By a container's name alone, whatever the user's configuration says of other hosts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh, absolute = tmp_path / ".ssh", tmp_path / "absolute"
    ssh.mkdir()
    (ssh / "config").write_text("Host *.example\n    User ada\n")
    for name, port in [("one", 1), ("one.b", 2), ("one", 3)]:
        Keepsakes.of(name).add_entry("127.0.0.1", port)
    absolute.write_text((ssh / "config").read_text().replace("Include torchstrata.config", f"Include {ssh}/torchstrata.config"))
    settings = {host: settings_of(absolute, host) for host in ("one", "one.b", "a.example")}
    assert settings["one"] >= {("hostname", "127.0.0.1"), ("port", "3"), ("user", "dev"), ("hostkeyalias", "one")}
    assert ("port", "2") in settings["one.b"]
    assert ("user", "ada") in settings["a.example"]


def settings_of(configuration, host):
    """Return what ssh makes of a configuration for a host; it looks for others where passwd says that home is."""
    read = subprocess.run(["ssh", "-G", "-F", configuration, host], capture_output=True, text=True, check=True).stdout
    return {tuple(line.split(" ", 1)) for line in read.splitlines()}


def test_without_a_key_there_is_no_ssh(person):
    """No port leads nowhere; a line says why."""
    person.key.with_suffix(".pub").unlink()
    ended = person.up()
    assert "no SSH" in ended.output
    assert [*person.container().attrs["HostConfig"]["PortBindings"]] == ["8888/tcp"]
    refused(person.inv("ssh", person.name), errors.ContainerError)


def test_shell_of_an_image_without_services(person):
    """It waits for whoever comes in."""
    container = person.started("--flavour", "base")
    assert container.status == "running"
    assert container.exec_run(["python", "-c", "import torch"]).exit_code == 0


def test_services_are_those_of_the_image(person):
    """By the names that it declares; verbs that come later still know them."""
    port = free_port()
    ended = person.up("--flavour", "serve", "--port", f"serve={port}")
    assert ended.status == 0, ended.output
    assert re.search(rf"^serve +http://127\.0\.0\.1:{port}$", ended.output, re.MULTILINE), ended.output
    with socket.create_connection(("127.0.0.1", port)) as asked:
        asked.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert asked.makefile("rb").readline().split()[1] == b"200"
    assert f"serve 127.0.0.1:{port}" in person.inv("ps", COLUMNS="250").output
    refused(person.up("--flavour", "serve", "--port", "jupyter=8890", "--replace"), errors.BusyPortError)
    assert person.container().status == "running"


@pytest.mark.parametrize("words", [("--port", "jupyter={port}"), ()])
def test_busy_port(person, words):
    """One that was asked for is refused, and nothing is made; else the next one is taken."""
    with socket.socket() as busy:
        usual = 8888 if not words else free_port()
        with contextlib.suppress(OSError):  # somebody else has it, which is as good
            busy.bind(("127.0.0.1", usual))
            busy.listen()
        ended = person.up(*(word.format(port=usual) for word in words))
        if words:
            assert str(usual) in refused(ended, errors.BusyPortError)
            assert person.leftovers() == []
        else:
            assert URL.search(ended.output)[2] != str(usual)


def test_engine_that_is_not_there(person):
    """The line says where it was looked for."""
    assert "nowhere.sock" in refused(person.up(DOCKER_HOST="unix:///nowhere.sock"), errors.EngineError)
    assert (person.leftovers(), person.workspace.exists()) == ([], False)


@pytest.mark.root
def test_full_disk(person):
    """The engine's: a line says so, and nothing is half-made there."""
    with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as root:
        data = Path(root, "data")
        data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "none", data], check=True)
        try:
            with daemons.own_daemon(Path(root), "containerd") as daemon, contextlib.closing(docker.DockerClient(daemon.host)) as other:
                other.api.import_image_from_data(b"\0" * 10240, repository=MATRIX.name, tag="empty", changes=["CMD true"])
                Disk(data).fill(leave=0)
                refused(person.up(cell="empty", DOCKER_HOST=daemon.host, TORCHSTRATA_REGISTRY="127.0.0.1:1"), errors.DiskFullError)
                Disk(data).relieve()
                assert other.api.containers(all=True) == []
                assert (other.api.volumes()["Volumes"] or [], person.workspace.exists()) == ([], False)
        finally:
            subprocess.run(["umount", "--lazy", data], stderr=subprocess.DEVNULL, check=False)


def test_name_of_somebody_else(person):
    """What inv up has not made it leaves alone."""
    other = person.client.containers.create(BASE, ["true"], name=person.name)
    refused(person.up(), errors.NameTakenError)
    refused(person.inv("down", person.name, "--remove"), errors.NameTakenError)
    assert person.container().id == other.id
    assert (person.leftovers(), person.workspace.exists()) == ([person.name], False)


def test_another_workspace(person):
    """The container is not what was asked for, and stays."""
    container = person.started()
    person.workspace = person.root / "other"
    refused(person.up(), errors.NameTakenError)
    assert not person.workspace.exists()
    assert person.container().id == container.id


def test_image_of_another_version(person, variant, client):
    """Where the tag means another image now, the container stays, and --replace makes it anew with the same home."""
    tag = variant(Labels={"made": "before"})
    old = person.started(cell=tag, TORCHSTRATA_REGISTRY="127.0.0.1:1")
    old.exec_run(["touch", "/home/dev/of-home"])
    client.images.get(f"{MATRIX.name}:{variant(Labels={'made': 'after'})}").tag(MATRIX.name, tag)
    refused(person.up(cell=tag, TORCHSTRATA_REGISTRY="127.0.0.1:1"), errors.OutdatedContainerError)
    assert "older image" in person.inv("ps", COLUMNS="250").output
    assert person.container().id == old.id
    new = person.started("--replace", cell=tag, TORCHSTRATA_REGISTRY="127.0.0.1:1")
    assert new.id != old.id
    assert new.exec_run(["ls", "/home/dev/of-home"]).exit_code == 0
    assert [each for each in person.leftovers() if each.startswith(f"{person.name}-") and not each.endswith("-home")] == []


def test_replacement_that_fails_leaves_the_old_one(person, variant):
    """It runs as before, by its name."""
    old = person.started()
    refused(
        person.up("--replace", "--wait", "1", cell=variant(Healthcheck={"Test": ["CMD", "false"]}), TORCHSTRATA_REGISTRY="127.0.0.1:1"), errors.ContainerError
    )
    assert (person.container().id, person.container().status) == (old.id, "running")
    until(lambda: person.container().attrs["State"]["Health"]["Status"] == "healthy", "the old one answers again")
    assert person.read(person.inv("jupyter", person.name).output) == 200


@pytest.mark.parametrize("place", ["/proc/work", "closed"])
def test_workspace_that_cannot_be_written(person, place):
    """It is said before anything is made, with a cure."""
    person.workspace = Path(place) if place.startswith("/") else person.root / place
    if not place.startswith("/"):
        person.workspace.mkdir(mode=0o555)
    refused(person.up(), errors.WorkspaceError)
    assert person.leftovers() == []


def test_gpu_that_is_not_there(person):
    """Nothing is started for who needs one."""
    refused(person.up("--gpus", "all"), errors.NoGpuError)
    assert (person.leftovers(), person.workspace.exists()) == ([], False)


def test_image_that_is_nowhere(person):
    """Nobody is asked where nobody could answer; the line names the build."""
    here = set(chain.from_iterable(image.tags for image in person.client.images.list(MATRIX.name)))
    absent = next(cell for cell in MATRIX.cells if f"{MATRIX.name}:{cell.names[0]}-{MATRIX.all_in_one}" not in here)
    assert f"nox -s build-{absent.names[0]}" in refused(person.up(cell=absent.names[0]), errors.NoImageError)
    assert not person.workspace.exists()


def test_container_that_ends(person, variant):
    """What it said last is in the line, and it is not left."""
    tag = variant(Entrypoint=["sh", "-c", "echo that is why >&2; exit 3"])
    assert "that is why" in refused(person.up(cell=tag, TORCHSTRATA_REGISTRY="127.0.0.1:1"), errors.ContainerError)
    assert person.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_while_waiting(person, variant, number):
    """Nothing half-started is left: neither container nor volume nor token, nor a workspace with the directories that a start makes."""
    tag = variant(Healthcheck={"Test": ["CMD", "false"]})
    words = ("invoke", "up", tag, "--name", person.name, "--workspace", str(person.workspace), "--registry", "127.0.0.1:1")
    with Checkout(env=person.env).start(*words) as running:
        running.wait_for((person.workspace / "plots").is_dir, "the container has made its directories")
        running.process.send_signal(number)
        ended = running.ended()
    assert ended.status == errors.INTERRUPTED, ended.output
    assert verbs.STARTED in ended.output
    assert (person.leftovers(), person.workspace.exists()) == ([], False)


def test_container_of_a_run_that_was_killed(person):
    """One that was never started is made anew."""
    half = person.client.containers.create(IMAGE, name=person.name, labels={LABEL: "me"})
    assert person.started().id != half.id


def test_image_of_the_registry(person, tmp_path):
    """It is pulled by the engine; files name it by the digest that it has there, and its services by what it declares there."""
    with registries.registry(tmp_path) as served:
        name = f"{served.host}/{MATRIX.name}:{CPU}-serve"
        pushed = person.inv("push", CPU, "--flavour", "serve", "--names", "--registry", served.host, **{CACHE_VARIABLE: STORE})
        assert pushed.status == 0, pushed.output
        try:
            person.started("--flavour", "serve", "--pull", "--registry", served.host)
            found = person.client.images.get(name)
            (digest,) = (each for each in found.attrs["RepoDigests"] if each.startswith(served.host))
            pod = yaml.safe_load_all(person.inv("up", CPU, "--flavour", "serve", "--k8s", "--registry", served.host).output)
            (container,) = next(document for document in pod if document["kind"] == "Pod")["spec"]["containers"]
            assert container["image"] == f"{name}@{digest.rpartition('@')[2]}"
            assert container["ports"] == [{"name": "serve", "containerPort": 8000}]
        finally:
            person.tidy()
            person.client.images.remove(name, force=True)


def test_files_are_not_written_over(person, tmp_path):
    """The same ones may be written again, others stay."""
    place = tmp_path / "files"
    assert person.inv("up", CPU, "--compose", "--output", place).status == 0
    assert person.inv("up", CPU, "--compose", "--output", place).status == 0
    (place / "compose.yaml").write_text("mine")
    refused(person.inv("up", CPU, "--compose", "--output", place), errors.LauncherError)
    assert (place / "compose.yaml").read_text() == "mine"


def test_clusters_cannot_pull_what_only_this_engine_has(person):
    """No file is written that would not work, or would run somebody else's image of that name."""
    for launcher in ("--k8s", "--slurm"):
        assert "inv push" in refused(person.inv("up", CPU, launcher), errors.LauncherError)


def test_line_of_docker(person):
    """It starts the container, in a workspace that it makes."""
    line = person.inv("up", CPU, "--name", person.name, "--workspace", "here", "--print", "--port", f"jupyter={free_port()},ssh={free_port()}").output
    (person.root / "here").mkdir()
    os.chown(person.root / "here", os.geteuid() or DEV, -1)
    subprocess.run(["sh", "-e"], input=line, text=True, cwd=person.root, env=os.environ | {"PWD": str(person.root)}, check=True)
    until(lambda: person.container().attrs["State"]["Health"]["Status"] == "healthy", "the services answer")


def compose(person, *words, **env):
    """Run Debian's Compose in the person's directory, and return what it prints."""
    program = programs.directory("docker-compose") / "docker-compose"
    return subprocess.run([program, *words], cwd=person.root, env=os.environ | env, check=True, capture_output=True, text=True).stdout


def test_compose_starts_its_file(person):
    """Debian's Compose: the container is healthy, and lets in by the token of its log; nothing is left afterwards."""
    words = ("--port", f"jupyter={free_port()},ssh={free_port()}", "--name", person.name)
    assert person.inv("up", CPU, "--compose", "--output", person.root, *words).status == 0
    (person.root / "workspace").mkdir()
    os.chown(person.root / "workspace", os.geteuid() or DEV, -1)
    try:
        compose(person, "up", "--detach", "--wait")
        found = URL.search(compose(person, "logs", "--no-color"))
        published = yaml_port(person.root / "compose.yaml")
        assert person.read(f"http://127.0.0.1:{published}/lab?token={found[3]}") == 200
    finally:
        compose(person, "down", "--volumes")


@pytest.mark.root
@pytest.mark.parametrize("uid", [1001, 0, None], ids=["another user", "root", "nobody says who"])
def test_compose_file_for_anybody_lets_its_user_write(person, uid):
    """The catalogue's: whoever starts it as it says has a workspace that the container can write to; no process there stays root."""
    owner = DEV if uid is None else uid
    image = wanted_image.here(engine.connect(), BASE, PLATFORM)
    for path, text in launchers.RENDERERS["compose"](image.describe(name=person.name, is_for_anybody=True)).items():
        (person.root / path).write_text(text)
    (person.root / "workspace").mkdir()
    os.chown(person.root / "workspace", owner, -1)
    try:
        compose(person, "up", "--detach", "--wait", **({} if uid is None else {"HOST_UID": str(uid)}))
        made = compose(person, "ps", "--quiet", "torch").strip()
        until(
            lambda: {int(each[0]) for each in person.client.containers.get(made).top(ps_args="-eo uid,pid")["Processes"]} == {owner or DEV}, "its user runs it"
        )
        subprocess.run(["docker", "exec", "--user", f"{owner or DEV}:0", made, "touch", "/workspace/there"], check=True)
    finally:
        compose(person, "down", "--volumes")


def yaml_port(path):
    """Return the port of this machine for JupyterLab in a compose file."""
    return re.search(r"127\.0\.0\.1:(\d+):8888", path.read_text())[1]
