"""The shell that sshd starts for commands, logins, scp, rsync and sftp: give it the container's environment, then become bash.

sshd starts sessions with an environment of its own. Quoting the container's into a file for sshd or a shell to read cannot
carry every value (sshd's files have no newlines), so it is taken byte by byte from the kernel.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from container import environment, notices, users

TERMINFO: Final = (Path("/etc/terminfo"), Path("/lib/terminfo"), Path("/usr/share/terminfo"))
SPARE_TERM: Final = b"xterm-256color"
"""What every terminal of today understands; tmux, less and vim refuse one that they do not know (terminfo(5))."""


def main(arguments: list[str]) -> int:
    """Become bash: a login shell where sshd gave no command."""
    session = dict(os.environb)
    if session.get(b"SHELL") == users.SESSION.encode():  # not inside a session that has changed its environment
        session = _known_terminal(_enriched(session))
    shell = os.fsdecode(session.get(b"SHELL", users.SHELL.encode()))
    os.execve(shell, [os.path.basename(shell), *arguments] if arguments else [f"-{os.path.basename(shell)}"], session)  # noqa: PTH119, S606


def _enriched(session: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the environment of a session with the container's; with a shell alone where that cannot be read."""
    try:
        container = environment.of_container()
    except (OSError, ValueError) as error:
        notices.warn(f"the container's environment cannot be read: {error}")
        return session | {b"SHELL": users.SHELL.encode()}
    return environment.of_session(container, session)


def _known_terminal(session: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the environment with a terminal that this image knows: new ones, such as kitty's or ghostty's, bring a name of their own."""
    name = os.fsdecode(session.get(b"TERM", b""))
    home = Path(os.fsdecode(session.get(b"HOME", b"/"))) / ".terminfo"
    if not name or "/" in name:
        return session
    known = any(os.path.exists(place / name[0] / name) for place in (home, *TERMINFO))  # noqa: PTH110  # Path's raises for names that are too long
    return session if known else session | {b"TERM": SPARE_TERM}
