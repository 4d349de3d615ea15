"""Engines that a test has for itself: one may fill its disk, or kill it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, until
from torchstrata import process
from torchstrata.building import engine
from torchstrata.errors import EngineError


@dataclasses.dataclass
class Daemon:
    """A dockerd of this test run alone."""

    root: Path
    store: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Return its address."""
        return f"unix://{self.root}/docker.sock"

    def start(self) -> None:
        """Start it with its own network namespace (two daemons would share one bridge), directories and socket."""
        (self.root / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": self.store == "containerd"}}))
        options = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        arguments = [f"--{name}={self.root / value}" for name, value in options.items()]
        command = ["unshare", "--net", "dockerd", f"--host={self.host}", *arguments]
        variables = {**os.environ, "PATH": process.search_path()}  # root by sudo may have kept the PATH of a user
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        until(
            _answers, "a daemon that answers", alive=lambda: self.process and self.process.poll() is None, state=lambda: (self.root / "log").read_text()[-2000:]
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and its containerd, by their pids; killed, they leave a mount."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(PATIENCE)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.root / "exec/containerd/containerd.pid").read_text()), how)
        subprocess.run(["umount", "--lazy", self.root / "data"], stderr=subprocess.DEVNULL, check=False)


def _answers() -> bool:
    with contextlib.suppress(EngineError):
        engine.connect()
        return True
    return False


@contextlib.contextmanager
def own_daemon(root: Path, store: str) -> Iterator[Daemon]:
    """Run a daemon that a test may break."""
    made = Daemon(root, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", made.host)
        try:
            made.start()
            yield made
        finally:
            made.stop()
