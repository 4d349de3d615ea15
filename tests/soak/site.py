"""A place where small verbs run: an index, a registry, a temporary directory of their own; and what there is to find wrong afterwards."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from tests import built, registries
from tests.registries import Served
from tests.soak import small
from tests.soak.forked import Child, Forker
from tests.waiting import until
from tests.wheelhouse import Index
from torchstrata.host import temporary
from torchstrata.store.digest import digest_of

MARK: Final = "TORCHSTRATA_SOAK"


@dataclass
class Site:
    """Where verbs run.

    :param environment: of them.
    :param count: how many have run.
    """

    work: Path
    forker: Forker
    served: Served
    environment: Mapping[str, str]
    count: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def made(cls, work: Path) -> Iterator[Site]:
        """Make one in an empty directory."""
        for name in ("wheels", "registry", "tmp", "out", "home"):
            (work / name).mkdir()
        pins = small.wheels(work / "wheels")
        (work / "pins").write_bytes(msgspec.json.encode(pins))
        files = {path.name: path.read_bytes() for path in (work / "wheels").iterdir()}
        with Forker.ready() as forker, Index(files).serve() as index, registries.registry(work / "registry") as served:
            pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url, "TORCHSTRATA_CACHE": str(work / "store")}
            own = {"TMPDIR": str(work / "tmp"), "HOME": str(work / "home"), MARK: str(work), "COLUMNS": "200"}
            plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
            yield cls(work, forker, served, {**plain, **pip, **own})

    @property
    def store(self) -> Path:
        """The content store."""
        return self.work / "store"

    @property
    def layout(self) -> Path:
        """Where images are written."""
        return self.work / "out" / "images"

    def start(self, *words: str, **more: str) -> Child:
        """Start a verb."""
        return self.forker.start(words, {**self.environment, **more}, self.work / f"{next(self.count)}.log")

    @staticmethod
    def kill(child: Child, number: signal.Signals) -> None:
        """Send a signal, if it has not ended before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.number, number)

    def run(self, *words: str, **more: str) -> float:
        """Run a verb to its good end; return seconds."""
        begun = time.monotonic()
        child = self.start(*words, **more)
        status = child.status()
        assert status == 0, f"{words}: {status}\n{child.output.read_text()[-4000:]}"
        return time.monotonic() - begun

    def build(self) -> Sequence[str]:
        """Return the words of a small build."""
        return ("small", "build", str(self.work / "pins"), str(self.layout))

    def push(self, team: str) -> Sequence[str]:
        """Return the words of a small push."""
        return ("small", "push", str(self.work / "pins"), f"{self.served.host}/{team}")

    # What can be wrong

    def corrupt(self) -> list[str]:
        """Return what is under a final name in the store or in the layout and is not what the name says."""
        return [*(built.damage(self.store) if self.store.exists() else ()), *self._corrupt_layout()]

    def _corrupt_layout(self) -> list[str]:
        blobs = self.layout / "blobs" / "sha256"
        wrong = [path.name for path in blobs.glob("[0-9a-f]*") if digest_of(path) != f"sha256:{path.name}"]
        index = self.layout / "index.json"
        named = [entry["digest"].removeprefix("sha256:") for entry in json.loads(index.read_bytes())["manifests"]] if index.exists() else []
        return wrong + [name for name in named if not (blobs / name).exists()]

    def left(self) -> list[str]:
        """Return what ended verbs have left outside of final names: files, directories, mounts, processes. Their programs may take a moment to end."""
        with contextlib.suppress(AssertionError):
            until(lambda: not self._processes(), "the end of what was started")
        claims = {self.work / "tmp" / f"torchstrata-{os.geteuid()}" / name for name in ("", "runs", "runs/claim")}
        found = [path for path in (self.work / "tmp").rglob("*") if path not in claims]
        found += [path for path in (self.store / "tmp").rglob("*") if path.parent != self.store / "tmp"]
        found += sorted((self.store / "tmp").glob("*.lock"))[1:]
        found += [*self.layout.rglob("*.partial"), *self.store.rglob("*.part")]
        return [*map(str, found), *temporary.mounts(self.work), *self._processes()]

    def _processes(self) -> list[str]:
        """Return programs of verbs that still run."""
        wanted, found = f"{MARK}={self.work}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (path / "environ").read_bytes().split(b"\0"):
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


def git(directory: Path, *words: str) -> bytes:
    """Return what git says about a repository."""
    return subprocess.run(["git", "-C", directory, *words], check=True, capture_output=True).stdout
