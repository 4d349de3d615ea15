"""The shell that sshd starts for commands, logins, scp, rsync and sftp: give it the container's environment, then become bash.

sshd starts sessions with an environment of its own. Quoting the container's into a file for sshd or a shell to read cannot
carry every value (sshd's files have no newlines), so it is taken byte by byte from the kernel.
"""

from __future__ import annotations

import os

from container import environment, notices, users


def main(arguments: list[str]) -> int:
    """Become bash: a login shell where sshd gave no command."""
    session = dict(os.environb)
    if session.get(b"SHELL") == users.SESSION.encode():  # not inside a session that has changed its environment
        session = _enriched(session)
    shell = os.fsdecode(session.get(b"SHELL", users.SHELL.encode()))
    os.execve(shell, [os.path.basename(shell), *arguments] if arguments else [f"-{os.path.basename(shell)}"], session)  # noqa: PTH119, S606


def _enriched(session: dict[bytes, bytes]) -> dict[bytes, bytes]:
    try:
        container = environment.of_container()
    except (OSError, ValueError) as error:
        notices.warn(f"the container's environment cannot be read: {error}")
        return session | {b"SHELL": users.SHELL.encode()}
    return environment.of_session(container, session)
