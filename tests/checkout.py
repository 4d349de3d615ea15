"""A checkout as its users have it: builds run as ``nox -s build-...`` in a process of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from tests.waiting import until

ROOT: Final = Path(__file__).parents[1]

LONGEST: Final = 1500.0
"""Seconds after which a build hangs: an empty cache, a slow network and one core are no reason to fail."""

LEFT_OUT: Final = (".nox", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "reports", "dist")
"""What a checkout holds that is not the repository's."""

STEP: Final = re.compile(r"^(fetch|convert|compile|os|load) +(.+): [\d.]+ s(?:, .*)?$", re.MULTILINE)
ROW: Final = re.compile(r"^(\S+:\S+) +(\d+) +(\d+) +(\d+) ", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its status, and everything that it printed."""

    status: int
    output: str

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Verb and name of each step that it has done."""
        return STEP.findall(self.output)

    @property
    def closing(self) -> dict[str, tuple[int, int, int]]:
        """The closing table: runs of layers in all, reused and made, by image."""
        return {name: (int(layers), int(reused), int(made)) for name, layers, reused, made in ROW.findall(self.output)}


@dataclass(frozen=True)
class Running:
    """A command that is under way. As a context manager it is not left running.

    Its output goes to a file: programs that it leaves behind may hold a pipe open, and then nobody could tell when all of it was read.
    """

    process: subprocess.Popen[bytes]
    file: IO[bytes]

    @classmethod
    def start(cls, command: Sequence[str], **options: Any) -> Self:
        """Start it, without input unless ``options``, those of Popen, say otherwise."""
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with what is returned
        return cls(subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT, **options}), file)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        number = self.file.fileno()  # the position in the file is the command's: reading must not move it
        return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds; it must come to that before the command ends."""
        until(condition, what, alive=lambda: self.process.poll() is None, state=lambda: self.output, within=LONGEST, pause=0.02)

    def ended(self) -> Ended:
        """Wait for the end."""
        return Ended(self.process.wait(LONGEST), self.output)


@dataclass(frozen=True)
class Checkout:
    """A directory with the repository, and the environment in which its commands run.

    :param env: variables that are added.
    :param umask: of the commands; -1 for the present one.
    """

    root: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1

    def start(self, *command: str) -> Running:
        """Start a module of this Python, such as ``nox``, in the checkout."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "160", **self.env}
        return Running.start([sys.executable, "-m", *command], cwd=self.root, env=environment, umask=self.umask)

    def run(self, *command: str) -> Ended:
        """Run a module to its end."""
        return self.start(*command).ended()

    def start_build(self, cell: str, *words: str) -> Running:
        """Start ``nox -s build-CELL -- WORDS``."""
        return self.start("nox", "--session", f"build-{cell}", "--", *words)

    def build(self, cell: str, *words: str) -> Ended:
        """Run ``nox -s build-CELL -- WORDS`` to its end."""
        return self.start_build(cell, *words).ended()

    def plan(self, cells: str) -> list[dict[str, Any]]:
        """Return what ``inv plan CELLS --json`` prints."""
        ended = self.run("invoke", "plan", cells, "--json")
        assert ended.status == 0, ended.output
        found: list[dict[str, Any]] = json.loads(ended.output)
        return found

    def copy(self, to: Path, *, umask: int = -1, env: Mapping[str, str] | None = None) -> Checkout:
        """Return a copy of the repository, with the modes that a checkout under ``umask`` has."""
        shutil.copytree(self.root, to, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if umask >= 0:
            for path in (to, *to.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o777 & ~umask)
        return Checkout(root=to, env=env or {}, umask=umask)
