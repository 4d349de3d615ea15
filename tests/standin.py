"""Package indexes on loopback that can gain wheels, and a small checkout whose needs they have."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import pytest

from tests import trees
from tests.waiting import PATIENCE
from tests.wheelhouse import Index, wheel
from torchstrata.checkout import MARK
from torchstrata.locks import resolver

ROOT: Final = Path(__file__).parents[1]

MATRIX: Final = """
name: images
systems:
  new: {distribution: debian, release: "13", suite: trixie, python: "3.13", glibc: "2.41", compilers: [g++-13], bootstrap: mmdebstrap, verified: true}
  old: {distribution: debian, release: "12", suite: bookworm, python: "3.11", glibc: "2.36", compilers: [g++-12], bootstrap: mmdebstrap, verified: true}
all_in_one: lab
rows:
  - {torch: "2.8", cuda: cu128, default: true, os: [new, old]}
  - {torch: "2.8", cuda: cu126, os: [new]}
strata:
  own_layer_over: 40_000_000
  cuda_groups:
    - {title: CUDA, wheels: ["nvidia-*"]}
"""

FLAVOURS: Final = {"base": "", "devel": "base", "lab": "devel"}
"""Parent by flavour."""

UV: Final = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": str(round(PATIENCE))}

EARLY: Final = "2026-01-01T00:00:00Z"


@dataclass(kw_only=True)
class PackageIndex(Index):
    """An index to which wheels can be added while it serves.

    :param is_dated: it tells sizes and times of upload (PEP 691, PEP 700), as the default index does; else it is
        HTML with hashes alone, as PyTorch's own is.
    :param held: the page of that project comes once ``released`` is set.
    """

    folder: Path
    is_dated: bool
    held: str = ""
    uploads: dict[str, str] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        """Projects whose page was asked for."""
        return [path.rstrip("/").rpartition("/")[2] for path, _ in self.requests if not path.startswith("/files/")]

    def add(self, name: str, version: str, *requires: str, uploaded: str = EARLY) -> Path:
        """Publish a wheel."""
        made = wheel(self.folder, name, version, {}, more="\n".join(f"Requires-Dist: {each}" for each in requires))[1]
        self.uploads[made.name] = uploaded
        return made

    @contextlib.contextmanager
    def serve(self, context: ssl.SSLContext | None = None) -> Iterator[Self]:
        """Serve until the block ends, by TLS with a context."""
        self.folder.mkdir(exist_ok=True)
        with super().serve(context):
            try:
                yield self
            finally:
                self.released.set()

    def content(self, name: str) -> bytes:
        """Return a file."""
        return (self.folder / name).read_bytes()

    def page(self, project: str) -> tuple[str, bytes] | None:
        """Return type and content of a project's page, if it is known."""
        if project == self.held:
            self.stalled.set()
            self.released.wait(PATIENCE)
        names = [name for name in self.uploads if name.partition("-")[0].replace("_", "-") == project]
        if not names:
            return None
        files = [(name, quote(f"/files/{name}"), self.content(name)) for name in names]
        hashes = {name: hashlib.sha256(content).hexdigest() for name, _, content in files}
        if self.is_dated:
            listed = [
                {"filename": name, "url": url, "hashes": {"sha256": hashes[name]}, "size": len(content), "upload-time": self.uploads[name]}
                for name, url, content in files
            ]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": listed}).encode()
        return "text/html", "".join(f'<a href="{url}#sha256={hashes[name]}">{name}</a><br>' for name, url, _ in files).encode()


@dataclass(frozen=True)
class Said:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> list[str]:
        """The two lines of its error, without what introduces them."""
        lines = self.err.splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("error: "))
        return [lines[start].removeprefix("error: "), lines[start + 1].removeprefix("  -> ")]

    @property
    def cure(self) -> str:
        """What it says should be run."""
        return self.error[1].rpartition("run: ")[2]


@dataclass(frozen=True)
class Scratch:
    """A small checkout with the program itself, and the two indexes in which all it needs lies.

    :param default: where pip looks unless it is told otherwise.
    :param upstream: PyTorch's own, as the facts of this checkout name it.
    """

    root: Path
    default: PackageIndex
    upstream: PackageIndex
    cache: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands: no configuration of pip but the default index, which is here."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        more = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.default.url, "UV_CACHE_DIR": str(self.cache), **UV}
        return {**own, **more, "PATH": beside, "NO_COLOR": "1", "TORCHSTRATA_CACHE": str(self.cache / "store")}

    def look_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process look for wheels where the commands of the checkout do."""
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        for name in ("PIP_CONFIG_FILE", "PIP_INDEX_URL", "UV_CACHE_DIR", *UV):
            monkeypatch.setenv(name, self.env[name])

    def start(self, command: str, **env: str) -> subprocess.Popen[str]:
        """Type a command in it."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=self.root, env={**self.env, **env}, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def typed(self, command: str, **env: str) -> Said:
        """Type a line for a shell in it, and wait for the end."""
        ended = subprocess.run(
            ["sh", "-c", command], cwd=self.root, env={**self.env, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return Said(ended.returncode, ended.stdout, ended.stderr)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace what must be there in a file."""
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new, 1))

    def locks(self) -> dict[str, bytes]:
        """Return the content of every lock of wheels, and of whatever else lies beside one."""
        found = sorted(path for path in (self.root / "locks").glob("*/cp*/*"))
        return {path.relative_to(self.root / "locks").as_posix(): path.read_bytes() for path in found}


def furnish(default: PackageIndex, upstream: PackageIndex) -> None:
    """Publish what the small matrix needs; the build for CUDA 12.6 on PyTorch's own index alone."""
    for name, version, *requires in (
        ("torch", "2.8.0", "numpy", "nvidia-x"),
        ("soundfile", "1.0"),
        ("torchvision", "0.23.0", "torch==2.8.0"),
        ("torchaudio", "2.8.0", "torch==2.8.0"),
        ("numpy", "1.0"),
        ("numpy", "2.0"),
        ("nvidia-x", "1.0"),
        ("notebook", "1.0", "numpy"),
    ):
        default.add(name, version, *requires)
    for name, version, *requires in (
        ("torch", "2.8.0+cu126", "numpy"),
        ("torchvision", "0.23.0+cu126", "torch==2.8.0"),
        ("torchaudio", "2.8.0+cu126", "torch==2.8.0"),
    ):
        upstream.add(name, version, *requires)


@functools.cache
def interpreter() -> dict[Path, bytes]:
    """Return what uv keeps of this Python, by its place in uv's cache: with an empty one each of its commands starts Python to ask."""
    with tempfile.TemporaryDirectory() as place:
        words = (resolver.program(), "python", "find", "--quiet", "--no-config", "--cache-dir", place, sys.executable)
        subprocess.run(words, check=True, capture_output=True)
        return {path.relative_to(place): path.read_bytes() for path in Path(place).glob("interpreter-*/*/*")}


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Scratch]:
    """Yield a checkout in a directory; its indexes serve until the block ends."""
    with PackageIndex(folder=place / "default", is_dated=True).serve() as default, PackageIndex(folder=place / "upstream", is_dated=False).serve() as upstream:
        furnish(default, upstream)
        for name, content in interpreter().items():
            (place / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "cache" / name).write_bytes(content)
        yield Scratch(checkout(place / "checkout", lambda variant: f"{upstream.url}/{variant}"), default, upstream, place / "cache")


def checkout(root: Path, index: Callable[[str], str]) -> Path:
    """Write a checkout with the program, the small matrix and its flavours; return where it is.

    :param index: returns the address that the facts have for a variant.
    """
    shutil.copytree(ROOT / "torchstrata", root / "torchstrata")  # with its bytecode, which every command would make anew
    shutil.copytree(ROOT / "images" / "apt", root / "images" / "apt")
    shutil.copytree(ROOT / "locks" / "toolchain", root / "locks" / "toolchain")
    for name in ("tasks.py", "pyproject.toml", "requirements.txt", "requirements-dev.txt", MARK, "flavour.schema.json"):
        shutil.copy(ROOT / name, root / name)
    for flavour, text in {"base": "numpy\n", "devel": "# nothing\n", "lab": "notebook\n"}.items():
        (root / "images" / flavour).mkdir(parents=True)
        (root / "images" / flavour / "requirements.in").write_text(text)
        (root / "images" / flavour / "Dockerfile").write_text(f"FROM os\nRUN true\nLABEL torchstrata.flavour={flavour}\n")
    trees.grow(root, FLAVOURS)
    (root / "matrix.yaml").write_text(MATRIX)
    (path,) = root.glob("torchstrata/*/facts/compat.json")
    facts = json.loads(path.read_text())
    facts["upstream"]["indexes"] = {variant: index(variant) for variant in facts["upstream"]["indexes"]}
    path.write_text(json.dumps(facts))
    return root
