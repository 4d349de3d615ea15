"""What sessions of nox have around their work: a failure ends the session alone, and its CPU time is measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import nox
from nox.virtualenv import ProcessEnv, get_virtualenv

from torchstrata.commands.cputime import Meter
from torchstrata.errors import INTERRUPTED

Work = Callable[[nox.Session], None]

SHARED: Final = "develop"
"""Name of the environment that sessions share."""
_shared: Final[dict[str, ProcessEnv]] = {}
"""Environments that this call has brought up to date, by directory."""

TIDYING: Final = 60.0
"""Seconds that a program has to tidy up after Ctrl-C; nox would kill it after half a one."""

METER: Final = Meter()
"""What the sessions of this call have cost."""


def part(work: Work) -> Work:
    """Return ``work`` as the function of a session: its CPU time is measured, and leaving the program fails the session only."""

    @functools.wraps(work)
    def run(session: nox.Session) -> None:
        failed = True
        try:
            work(session)
            failed = False
        except SystemExit as ended:
            failed = bool(ended.code)
            _fail(session, ended)
        finally:
            METER.lap(session.name, failed=failed)

    return run


def _fail(session: nox.Session, ended: SystemExit) -> None:
    """Fail a session that has left the program; the only one of a call ends the call with its own code, which nox would make 1."""
    if ended.code == INTERRUPTED:
        raise KeyboardInterrupt from ended  # ends the call, with this code
    if not ended.code:
        return
    if len(session._runner.manifest) == 1:  # noqa: SLF001  # nothing public tells how many sessions a call has
        raise ended
    session.error(f"exit code {ended.code}")


def run(session: nox.Session, *command: str) -> None:
    """Run a program that makes containers and the like; after Ctrl-C, which it sees itself, it can remove them."""
    session.run(*command, interrupt_timeout=TIDYING, terminate_timeout=TIDYING)


def share_environment(session: nox.Session, *packages: str) -> None:
    """Let a session without an environment use the one that all such sessions share, with ``packages`` as they are now.

    Nox would make one for each: five times the work, and each begins without bytecode.
    """
    runner = session._runner  # noqa: SLF001  # nox names environments by their sessions, and offers no other way
    envdir = str(Path(runner.global_config.envdir, SHARED))
    if envdir not in _shared:
        runner.venv = get_virtualenv("uv", "virtualenv", download_python="auto", envdir=envdir, reuse_existing=True)
        runner.venv.create()
        session.install(*packages)
        _shared[envdir] = runner.venv
    runner.venv = _shared[envdir]
