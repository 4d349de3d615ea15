"""The container's environment: the same for every way in, without the secrets that only a service needs."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from container import state

OF_A_PROCESS: Final = ("PWD", "OLDPWD", "SHLVL", "_")
"""What a shell says about itself, not about the container."""

OF_A_SESSION: Final = ("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_USER_AUTH", "TERM", "DISPLAY", "MAIL")
"""What sshd says about a connection."""


def public(environment: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return ``environment`` without secrets and without what describes one process."""
    hidden = secret(environment, secrets)
    return {name: value for name, value in environment.items() if name not in hidden and not matches(name, OF_A_PROCESS)}


def secret(environment: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """Return the secrets of ``environment``: services, what they start, and hooks never get them.

    A command that somebody has given gets them: it is what they were given for.

    :param secrets: those that services need; ``TORCHSTRATA_SECRETS`` adds names or patterns of names.
    """
    patterns = [*secrets, *environment.get("TORCHSTRATA_SECRETS", "").split()]
    return {name: value for name, value in environment.items() if matches(name, patterns)}


def matches(name: str, patterns: list[str] | tuple[str, ...]) -> bool:
    """Return whether ``name`` matches one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def of_session(container: Mapping[bytes, bytes], session: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the environment of an SSH session: the container's, and of sshd's only what describes the connection."""
    own = {name: value for name, value in session.items() if matches(os.fsdecode(name), OF_A_SESSION)}
    return {name: value for name, value in container.items() if not matches(os.fsdecode(name), OF_A_SESSION)} | own


def parse(block: bytes) -> dict[bytes, bytes]:
    """Return the variables of an environment as the kernel keeps it: ``NAME=value`` ended by NUL, any bytes in between."""
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in pairs}


def of_container(directory: Path | None = None) -> dict[bytes, bytes]:
    """Return the environment that the container's init was started with.

    It is read from the kernel, so that no file holds it; only the container's user may.

    :raises OSError: there is no such process, or it is another user's.
    """
    init = int(((directory or state.directory()) / state.INIT).read_text(encoding="ascii"))
    return parse(Path(f"/proc/{init}/environ").read_bytes())
