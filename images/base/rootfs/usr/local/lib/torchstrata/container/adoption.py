"""Started as root: become the owner of the mounted workspace, or ``dev``, so that no root process is left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from container import belongings, endings, mounts, notices, users
from container.workspace import WORKSPACE

ENTRYPOINT: Final = "/usr/local/bin/torchstrata-entrypoint"
SETPRIV: Final = "/usr/bin/setpriv"
UID_MAP: Final = Path("/proc/self/uid_map")
STATUS: Final = Path("/proc/self/status")

CHOWN, SETGID, SETUID = 0, 6, 7
"""Capability numbers, capabilities(7)."""

NOBODY: Final = 65534
"""How the kernel shows an owner that the user namespace does not map."""

REFUSED: Final = 77
"""Exit status, EX_NOPERM of sysexits.h."""


class Owner(NamedTuple):
    """Numeric user and group."""

    uid: int
    gid: int


def adopt(arguments: list[str]) -> int:
    """Drop root and start anew, with the same arguments.

    :return: only where that is not done: 0 where root is right (a user namespace), the exit status where root cannot be dropped.
    """
    owner = choose(_owner(WORKSPACE), in_namespace=in_user_namespace(UID_MAP.read_text(encoding="ascii")))
    if owner.uid == 0:
        return 0
    if not {SETGID, SETUID} <= capabilities(STATUS.read_text(encoding="ascii")):
        notices.warn("started as root without the capabilities to become another user", "use --user 1000:0")
        return REFUSED
    notices.inform(f"started as root, goes on as {owner.uid}:{owner.gid} (root shell: docker exec -it -u 0 CONTAINER /bin/bash -l)")
    belongings.hand_over(owner.uid, owner.gid)
    _give_terminals(owner)
    command = [SETPRIV, f"--reuid={owner.uid}", f"--regid={owner.gid}", "--groups=0", "--inh-caps=-all", "--", ENTRYPOINT, *arguments]
    endings.defer()
    return os.execve(SETPRIV, command, _environment(os.environ))  # noqa: S606


def choose(owner: Owner | None, *, in_namespace: bool) -> Owner:
    """Return whom to become.

    :param owner: of the mounted workspace; None where nothing is mounted.
    :param in_namespace: whether root here is an ordinary user of the host, whose files are shown as root's.
    """
    if owner is None or owner.uid == NOBODY:
        return Owner(*users.DEV)
    if owner.uid == 0:
        return Owner(0, 0) if in_namespace else Owner(*users.DEV)
    return owner


def in_user_namespace(uid_map: str) -> bool:
    """Return whether ``uid_map`` (user_namespaces(7)) is not the initial namespace's, which maps everything to itself."""
    return uid_map.split() != ["0", "0", "4294967295"]


def capabilities(status: str) -> set[int]:
    """Return the numbers of the effective capabilities that ``/proc/PID/status`` shows."""
    mask = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return {number for number in range(mask.bit_length()) if mask >> number & 1}


def _owner(workspace: Path) -> Owner | None:
    """Return who owns the mounted workspace; None where nothing is mounted."""
    if mounts.at(str(workspace), mounts.read()) is None:
        return None
    status = workspace.stat()
    return Owner(status.st_uid, status.st_gid)


def _give_terminals(owner: Owner) -> None:
    """Hand over the terminal, which tmux and others open by name."""
    for descriptor in range(3):
        try:
            if os.isatty(descriptor):
                os.fchown(descriptor, owner.uid, -1)
        except OSError:
            continue  # without it only programs that reopen the terminal are affected


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return ``given`` without what the engine derived from root."""
    return {name: value for name, value in given.items() if (name, value) != ("HOME", "/root")}
