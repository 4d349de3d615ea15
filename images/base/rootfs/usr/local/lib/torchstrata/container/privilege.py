"""Root that looks at a container becomes its user first: what a user may write, no root believes or runs."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import threading
from typing import Final, TextIO

from container import notices, state

REFUSED: Final = 77
"""Exit status, EX_NOPERM of sysexits.h."""

LONGEST_PIECE: Final = 16 << 10
"""Characters that are kept of a line without an end."""


def drop() -> None:
    """Go on as the container's user where root looks at it: by ``docker exec -u 0``, or as the probe of an image that starts as root.

    :raises SystemExit: root may not become another user here; and in the process that stays root, when the user's has ended.
    """
    if os.getuid() != 0:
        return
    uid, gid = state.user()
    if uid == 0:
        return
    part()
    try:
        os.setgroups([0])
        os.setgid(gid)
        os.setuid(uid)
    except OSError:
        notices.warn(f"root may not become the container's user {uid} here", f"docker exec --user {uid}:{gid}")
        sys.exit(REFUSED)
    os.environ |= {"HOME": pwd.getpwuid(uid).pw_dir}


def part() -> None:
    """Go on in a child that has nothing of the caller's terminal: who controls one, or may write to one, types in it for root.

    :raises SystemExit: in the caller, with the child's status, when the child has ended.
    """
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.close(to_out)
        os.close(to_err)
        sys.exit(_relayed(child, ((out, sys.stdout), (err, sys.stderr))))
    os.setsid()
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), to_out, to_err)):
        os.dup2(descriptor, number)


def _relayed(child: int, streams: tuple[tuple[int, TextIO], ...]) -> int:
    """Pass on what a child prints, and return its exit status as a shell would; an interrupt ends the child and what it runs.

    :param streams: for each of the child's outputs the end of its pipe to read from, and where that goes.
    """
    threads = [threading.Thread(target=_copy, args=stream, daemon=True) for stream in streams]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)  # one without an end may sleep over an interrupt
    except KeyboardInterrupt:
        os.killpg(child, signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)  # Python's own end aborts where a thread still prints
    except RuntimeError:
        os.kill(child, signal.SIGKILL)
        notices.warn(*notices.NO_THREAD)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _copy(source: int, target: TextIO) -> None:
    """Pass on lines, printable, as they come; a long one in pieces."""
    with os.fdopen(source, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in iter(lambda: file.readline(LONGEST_PIECE), ""):
            target.write(notices.printable(line.removesuffix("\n")) + "\n" * line.endswith("\n"))
            target.flush()
