"""Pulling by the engine, whose registry may stay silent; pulls from real registries: tests/system/test_up.py."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import docker
import pytest

from tests.waiting import PATIENCE, until
from torchstrata import progress
from torchstrata.containers import pulling
from torchstrata.errors import RegistryAuthError, RegistryError
from torchstrata.platforms import PLATFORM

NAME = "registry.example/team/images:one"


class Notes:
    """A step that keeps what is noted."""

    def __init__(self):
        self.notes = []

    def advance(self, count):
        """Nothing is counted."""

    def note(self, text):
        """Keep it."""
        self.notes.append(text)


@contextlib.contextmanager
def engine(path, *lines, silent=None):
    """Run an engine that says lines about a pull, and yield a client of it; with an event it says nothing until that is set."""

    class EngineHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            if silent:
                silent.wait(PATIENCE)
            chunks = [json.dumps(line).encode() + b"\n" for line in lines] + [b""]
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.writelines(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)

        def address_string(self):
            return "somebody"

        def log_message(self, *_):
            pass

    server = ThreadingUnixStreamServer(str(path), EngineHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    client = docker.DockerClient(base_url=f"unix://{path}", version="1.45")
    try:
        yield client
    finally:
        if silent:
            silent.set()
        client.close()
        server.shutdown()
        server.server_close()


def test_silent_registry_ends_in_one_line(tmp_path):
    """The engine would wait for it without end."""
    with engine(tmp_path / "socket", silent=threading.Event()) as client, pytest.raises(RegistryError, match="has not answered the engine") as caught:
        pulling.pull(client, NAME, PLATFORM, Notes(), seconds=0.01)
    assert "registry.example" in caught.value.what
    assert "--registry" in caught.value.fix


def test_somebody_is_told_what_is_waited_for(tmp_path, monkeypatch, said):
    """Before the time is over: what, and how long at most."""
    monkeypatch.setattr(progress, "QUIET", 0.0)
    silent = threading.Event()

    def answer():
        until(said, "a line about the registry", pause=0.02)
        silent.set()

    with engine(tmp_path / "socket", {"status": "Pulling from team/images"}, silent=silent) as client:
        threading.Thread(target=answer, daemon=True).start()
        assert pulling.pull(client, NAME, PLATFORM, Notes(), seconds=PATIENCE)
    assert said() == f"waiting for registry.example, which the engine asks for {NAME}, {PATIENCE:.0f} s at most\n"


def test_bytes_are_noted_as_they_come(tmp_path):
    """Of all layers together."""
    lines = [{"status": "Downloading", "id": name, "progressDetail": {"current": done, "total": 10_000}} for name, done in (("a", 1_000), ("b", 9_000))]
    with engine(tmp_path / "socket", *lines) as client:
        assert pulling.pull(client, NAME, PLATFORM, step := Notes())
    assert step.notes == ["1.0 kB of 10 kB", "10 kB of 20 kB"]


@pytest.mark.parametrize(("said", "error"), [("unauthorized: log in", RegistryAuthError), ("EOF", RegistryError)])
def test_refusals_are_told(tmp_path, said, error):
    """As the engine says them in the middle of a pull."""
    with engine(tmp_path / "socket", {"error": said}) as client, pytest.raises(error, match=said):
        pulling.pull(client, NAME, PLATFORM, Notes())


def test_image_that_the_registry_has_not(tmp_path):
    """It is no error: it may be built."""
    with engine(tmp_path / "socket", {"error": "manifest unknown"}) as client:
        assert not pulling.pull(client, NAME, PLATFORM, Notes())


def test_helper_of_credentials_that_is_not_there_is_named(tmp_path, monkeypatch):
    """As in a configuration that Docker Desktop has left: the engine is well."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"credsStore": "nowhere"}')
    with engine(tmp_path / "socket") as client, pytest.raises(RegistryAuthError, match=r"credentials for registry\.example cannot be read") as caught:
        pulling.pull(client, NAME, PLATFORM, Notes())
    assert "credsStore" in caught.value.fix
