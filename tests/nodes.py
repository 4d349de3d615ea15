"""A fresh node: a containerd of its own, as a cluster's machine has one, that has never seen an image; run as root, with Debian's containerd and ctr."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from tests.registries import NAME, PASSWORD, Authority
from tests.waiting import PATIENCE, until

USELESS: Final = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.nri.v1.nri",
    "io.containerd.runtime.v1.linux",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
)
"""Plugins that pull nothing; some of them write outside the node's root."""


@dataclasses.dataclass(frozen=True)
class Pulled:
    """What a pull took: seconds until the image was there, and bytes that came from the registry."""

    seconds: float
    fetched: int


@dataclasses.dataclass
class Node:
    """A containerd with its own root, state and socket.

    It has a mount namespace of its own, so that no mount outlives it, and shares nothing with the engine's containerd.

    :param root: an empty directory on a real disk; overlayfs lies on no overlayfs.
    :param authority: whom it trusts, for registries with TLS.
    :param passwords: whether it logs in as the user of tests/registries.py.
    """

    root: Path
    authority: Authority | None = None
    passwords: bool = False
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.remove()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.root / "socket"

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.root / "hosts").mkdir(exist_ok=True)
        (self.root / "config.toml").write_text(self._config())
        command = ["unshare", "--mount", "containerd", "--config", str(self.root / "config.toml")]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, "a node that answers", alive=lambda: self.process is not None and self.process.poll() is None, state=lambda: self.log)

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(PATIENCE)

    def remove(self) -> None:
        """Remove all that it had; with its namespace its mounts are gone."""
        shutil.rmtree(self.root)

    @property
    def log(self) -> str:
        """The end of what it has logged."""
        return (self.root / "log").read_text()[-4000:]

    def pull(self, reference: str) -> Pulled:
        """Fetch an image and unpack it, as a node does before a container starts; what it has it does not fetch again."""
        return self._get(reference, "images", "pull", "--local")

    def fetch(self, reference: str) -> Pulled:
        """Fetch an image and leave it packed."""
        return self._get(reference, "content", "fetch")

    def _get(self, reference: str, *command: str) -> Pulled:
        self._trust(reference.partition("/")[0])
        before, begun = self.blobs(), time.monotonic()
        login = ["--user", f"{NAME}:{PASSWORD}"] if self.passwords else []
        self.run(*command, "--hosts-dir", str(self.root / "hosts"), *login, reference)
        seconds = time.monotonic() - begun
        return Pulled(seconds, sum(size for name, size in self.blobs().items() if name not in before))

    def digest(self, reference: str) -> str:
        """Return the digest that a name has here."""
        rows = [line.split() for line in self.run("images", "list", f"name=={reference}").splitlines()[1:]]
        ((_, _, digest, *_),) = rows
        return digest

    def forget(self, *references: str) -> None:
        """Remove images, and all of them that no other image needs."""
        self.run("images", "remove", "--sync", *references)

    def blobs(self) -> Mapping[str, int]:
        """Return the bytes of each blob in its content store, by name."""
        return {path.name: path.stat().st_size for path in (self.root / "data/io.containerd.content.v1.content/blobs").glob("*/*")}

    def run(self, *words: str) -> str:
        """Run ``ctr`` on it and return what it prints."""
        done = subprocess.run(self._ctr(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr[-2000:]}\n{self.log}"
        return done.stdout

    def _answers(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True, check=False).returncode == 0

    def _ctr(self, *words: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), *words]

    def _trust(self, host: str) -> None:
        place = self.root / "hosts" / host
        place.mkdir(exist_ok=True)
        scheme, trust = ("https", f'  ca = "{self.authority.certificate}"\n') if self.authority else ("http", "")
        (place / "hosts.toml").write_text(f'[host."{scheme}://{host}"]\n  capabilities = ["pull", "resolve"]\n{trust}')

    def _config(self) -> str:
        return (
            f'version = 2\nroot = "{self.root}/data"\nstate = "{self.root}/state"\ndisabled_plugins = {list(USELESS)}\n'.replace("'", '"')
            + f'[grpc]\n  address = "{self.socket}"\n[ttrpc]\n  address = "{self.socket}.ttrpc"\n'
        )


@contextlib.contextmanager
def node(root: Path, *, authority: Authority | None = None, passwords: bool = False) -> Iterator[Node]:
    """Run a node in a directory that does not exist yet, and leave nothing of it."""
    root.mkdir()
    with Node(root, authority, passwords) as running:
        yield running
