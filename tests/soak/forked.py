"""Runs verbs in processes that begin with everything imported, so that a signal finds them at work and not while Python starts.

It reads a command a line, as JSON, starts it, prints its process, and prints its status when it has ended (negative: a signal).
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torchstrata.matrix.matrix import ROOT

SMALL = "tests.soak.small"


@dataclass(frozen=True)
class Child:
    """A verb that is under way, and the file with all that it prints."""

    server: Forker
    number: int
    output: Path

    def status(self) -> int:
        """Wait for its end."""
        return int(self.server.line())


@dataclass(frozen=True)
class Forker:
    """The process that starts others, one at a time."""

    process: subprocess.Popen[str]

    @classmethod
    @contextmanager
    def ready(cls) -> Iterator[Self]:
        """Have one until the block ends."""
        command = [sys.executable, "-m", "tests.soak.forked"]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            forker = cls(process)
            assert forker.line() == "ready"
            yield forker
            assert process.stdin is not None
            process.stdin.close()

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> Child:
        """Start ``inv`` or the small build with some words; the environment is all that it has."""
        assert self.process.stdin is not None
        output.touch()
        self.process.stdin.write(json.dumps({"words": list(words), "environment": dict(environment), "output": str(output)}) + "\n")
        self.process.stdin.flush()
        return Child(self, int(self.line()), output)


def _child(asked: Mapping[str, Any]) -> None:
    """Be the verb."""
    os.setsid()
    file = os.open(asked["output"], os.O_WRONLY | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    sys.argv = list(asked["words"])
    if sys.argv[0] == "inv":
        from invoke.main import program  # noqa: PLC0415  # as its own script does

        program.run()
    else:
        runpy.run_module(SMALL, run_name="__main__")


def serve() -> None:
    """Import what verbs need, then start one after the other."""
    from torchstrata.commands import build, housekeeping, release, signatures  # noqa: F401, PLC0415  # for the children

    __import__(SMALL)
    __import__("invoke.main")
    print("ready", flush=True)
    for line in sys.stdin:
        number = os.fork()
        if not number:
            _be(json.loads(line))
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


def _be(asked: Mapping[str, Any]) -> None:
    """Run a verb in this process, and end it as Python would."""
    status = 0
    try:
        _child(asked)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  # what a person would see
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
