"""The load archive, and what is said when no engine or no buildx is there. Loads into real engines: tests/system/test_engine.py."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from tests.scripts import script
from torchstrata import progress
from torchstrata.building import engine
from torchstrata.errors import BuildxError, DiskFullError, EngineError
from torchstrata.host.docker_config import DockerContext
from torchstrata.image import compose, loadable
from torchstrata.store.layer import Layer

TLS = [
    ("tcp://192.0.2.1:2376", True, ("ca", "key"), True),
    ("tcp://192.0.2.1:2376", True, ("ca",), True),
    ("tcp://192.0.2.1:2376", False, (), True),
    ("tcp://192.0.2.1:2375", True, (), False),
    ("unix:///somewhere.sock", False, ("ca", "key"), False),
]


def blob(folder: Path, name: str, size: int) -> Layer:
    """Return a layer whose blob is ``size`` bytes in ``folder``."""
    data = name.encode() * (size // len(name))
    digest = compose.sha256(data)
    (folder / digest).write_bytes(data)
    media_type = "application/vnd.oci.image.layer.v1.tar"
    return Layer(digest=digest, diff_id=digest, size=len(data), unpacked=len(data), media_type=media_type, title=name)


def test_chain_ids_follow_the_image_specification() -> None:
    """The ChainID of one layer is its diffID; each further one hashes the chain below with the next diffID."""
    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert loadable.chain_ids([]) == ()
    assert loadable.chain_ids([first, second]) == (first, compose.sha256(f"{first} {second}".encode()))


def test_archive_is_a_layout_with_both_indexes_and_only_the_asked_blobs(tmp_path: Path) -> None:
    """It is a valid tar: layout marker, both stores' indexes, configs, manifests, and each asked blob once."""
    low, high = blob(tmp_path, "low", 999), blob(tmp_path, "high", 4096)
    images = [loadable.prefix((low,)), loadable.prefix((low, high))]
    data = b"".join(loadable.stream(images, [high, high], tmp_path.joinpath)) + loadable.END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        saved = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        packed = tar.extractfile(f"blobs/{high.digest.replace(':', '/')}").read()  # type: ignore[union-attr]
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert len(names) == len(set(names)) == 3 + 4 + 1
    assert [each["digest"] for each in index["manifests"]] == [compose.sha256(image.manifest) for image in images]
    assert [len(each["Layers"]) for each in saved] == [1, 2]
    assert compose.sha256(packed) == high.digest


def test_archive_never_holds_a_whole_blob(tmp_path: Path) -> None:
    """A large blob is passed on in chunks as it is read."""
    large = blob(tmp_path, "large", 5 * loadable.CHUNK)
    assert max(map(len, loadable.stream([loadable.prefix((large,))], [large], tmp_path.joinpath))) == loadable.CHUNK


def test_prefix_images_are_the_same_in_every_run(tmp_path: Path) -> None:
    """A prefix image of an interrupted load is found again by its digest: it depends on its layers alone."""
    layers = (blob(tmp_path, "a", 10), blob(tmp_path, "b", 10))
    assert loadable.prefix(layers) == loadable.prefix(list(layers))
    assert loadable.prefix(layers).tags == ()


def test_an_engine_that_this_user_may_not_use_is_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds and tests name the command that lets the user in, as ``nox -s engine`` does: to start Docker would not help."""
    socket = tmp_path / "docker.sock"
    socket.touch()
    socket.chmod(0o660)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EngineError, match="and you may not use it") as caught:
        engine.connect()
    assert "--groups docker" in caught.value.fix


def test_silent_engine_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing answers, the error names the address and the cure: none is set up at an address that somebody has named."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineError, match=r"no Docker engine answers at unix:.*none\.sock") as caught:
        engine.connect()
    assert "unset DOCKER_HOST" in caught.value.fix
    assert "nox -s engine" not in caught.value.fix
    assert ["nox -s engine" in engine.how_to_start(where) for where in engine.USUAL] == [True, True]


def test_engine_that_takes_connections_and_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody is told what is waited for; then the error is another than that none is there: to start one would not help."""
    where = f"unix://{tmp_path}/engine.sock"
    monkeypatch.setenv("DOCKER_HOST", where)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/engine.sock")
        silent.listen()
        with pytest.raises(EngineError, match="has not answered for") as caught:
            engine.connect()
    assert "restart it" in caught.value.fix
    assert capsys.readouterr().err.startswith(f"waiting for the engine at {where}, ")


def test_engine_of_a_context_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not this machine's usual one, which may well answer; no configuration file has to be there."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "second")
    folder = tmp_path / "contexts" / "meta" / compose.sha256(b"second").removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": "second", "Endpoints": {"docker": {"Host": f"unix://{tmp_path}/none.sock"}}}))
    with pytest.raises(EngineError, match=r"no Docker engine answers at unix:.*none\.sock"):
        engine.connect()


@pytest.mark.parametrize(("host", "verified", "files", "spoken"), TLS)
def test_tls_is_spoken_where_the_docker_command_does(tmp_path: Path, *, host: str, verified: bool, files: tuple[str, ...], spoken: bool) -> None:
    """Over TCP, where the context has certificates or says that none is looked at."""
    ca, certificate, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    for path in (ca, certificate, key):
        path.touch()
    pair = (certificate, key) if "key" in files else None
    context = DockerContext(host=host, is_verified=verified, ca=ca if "ca" in files else None, key_pair=pair)
    found = engine._tls(context)
    assert (found is not None) == spoken
    if found:
        assert (found.verify, found.ca_cert, found.cert) == (verified, str(ca) if "ca" in files else None, tuple(map(str, pair)) if pair else None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("echo 'docker: buildx is not a docker command' >&2; exit 1", "has no buildx"),
        ("echo 'github.com/docker/buildx v0.9.1 ed00243'", "older than 0.13"),
        ("echo 'github.com/docker/buildx unknown'", "older than 0.13"),
    ],
)
def test_missing_or_old_buildx_is_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    said: str,
    message: str,
) -> None:
    """A docker command without a usable buildx is told apart from an engine that is not there."""
    script(tmp_path / "docker", said)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BuildxError, match=message) as caught:
        _engine().buildx()
    assert "docker-buildx" in caught.value.fix


@pytest.mark.parametrize("version", ["0.13.1+ds1", "v0.29.1", "v1.0.0"])
def test_usable_buildx_says_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    """Versions are read as distributions and Docker write them."""
    script(tmp_path / "docker", f"echo 'github.com/docker/buildx {version} abc'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert _engine().buildx() == version


@pytest.mark.parametrize(
    ("status", "store"),
    [([["driver-type", "io.containerd.snapshotter.v1"]], "containerd"), ([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], "classic")],
)
def test_image_store_is_told_by_the_driver(status: list[list[str]], store: str) -> None:
    """The two image stores know images by different digests."""
    found = engine.Engine(None, {"ServerVersion": "26.1.5", "DriverStatus": status})  # type: ignore[arg-type]  # it is not asked anything
    image = loadable.Loadable(config=b"config", manifest=b"manifest", tags=(), layers=())
    assert found.store == store
    assert found.id_of(image) == compose.sha256(b"manifest" if store == "containerd" else b"config")


def test_free_space_of_a_remote_engine_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of another machine cannot be seen from here."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    assert _engine().free_space() is None


@pytest.mark.parametrize(("sizes", "shared"), [({"/": 9, "/store": 9}, True), ({"/": 9, "/store": 5}, False)])
def test_disks_are_told_apart_by_their_size(monkeypatch: pytest.MonkeyPatch, sizes: Mapping[str, int], shared: bool) -> None:  # noqa: FBT001  # a column of the table
    """Two of one size count as one; subvolumes of one file system have several numbers, and one size."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setattr(engine, "CONTAINERD_ROOT", Path("/none"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=sizes[str(path)]))
    assert _engine().shares_disk(Path("/store")) is shared


def test_a_disk_that_cannot_be_seen_may_be_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a virtual machine, whose disk is a file on this one."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    assert _engine().shares_disk(Path("/"))


GONE = (404, {"message": "failed to calculate size of image: content digest sha256:aa: not found"})
FULL = (500, {"message": "it is full: no space left on device"})
LISTED = (200, [{"Id": "sha256:aa", "RepoTags": ["here:1"], "RepoDigests": None, "Manifests": [{"ID": "sha256:aa", "Available": True}]}])


@contextlib.contextmanager
def answering(*answers: tuple[int, Any]) -> Iterator[engine.Engine]:
    """Run what answers as an engine would, one answer after the other."""
    waiting = list(answers)

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = waiting.pop(0)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.47")
        snapshotter = [["driver-type", "io.containerd.snapshotter.v1"]]
        with contextlib.closing(client):
            yield engine.Engine(client, {"ServerVersion": "27.0", "DriverStatus": snapshotter, "DockerRootDir": "/"})
        server.shutdown()


def test_an_engine_that_refuses_to_list_images_is_an_error() -> None:
    """Its refusal is no list."""
    with answering(FULL) as asked, pytest.raises(DiskFullError, match="it is full"):
        asked.whole()


@pytest.mark.parametrize("question", [engine.Engine.whole, lambda asked: asked.ask(engine.names), lambda asked: asked.ask(engine.listed)])
def test_images_that_somebody_removes_meanwhile_fail_no_list(question: Callable[[engine.Engine], Collection[Any]]) -> None:
    """The containerd store of moby 26 answers 404 then. It is asked again, but not for ever."""
    with answering(GONE, GONE, LISTED) as asked:
        assert len(question(asked)) == 1
    with answering(*[GONE] * 4) as asked, pytest.raises(EngineError, match="failed to calculate size"):
        question(asked)


def _engine() -> engine.Engine:
    return engine.Engine(None, {"ServerVersion": "26.1.5", "DockerRootDir": "/"})  # type: ignore[arg-type]  # it is not asked anything
