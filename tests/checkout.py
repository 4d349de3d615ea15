"""A checkout as its users have it: builds run as ``nox -s build-...`` in a process of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[1]

PATIENCE: Final = 1500.0
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


@dataclass
class Running:
    """A command that is under way; its output is read all the time. As a context manager it is not left running."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds; it must come to that before the command ends."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)

    def ended(self) -> Ended:
        """Wait for the end."""
        status = self.process.wait(PATIENCE)
        self._reader.join(10)  # a program that it started may hold the pipe when it was killed
        return Ended(status, "".join(self.lines))


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
        return Running(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.root,
                env=environment,
                umask=self.umask,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

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
