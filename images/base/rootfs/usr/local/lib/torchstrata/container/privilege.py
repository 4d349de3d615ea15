"""Root that looks at a container becomes its user first: what a user may write, no root believes or runs."""

from __future__ import annotations

import os
import pwd
import sys
from typing import Final

from container import notices, state

REFUSED: Final = 77
"""Exit status, EX_NOPERM of sysexits.h."""


def drop() -> None:
    """Where this is root and the container another user's, become that user, as the probe of an image does that starts as root.

    :raises SystemExit: root may not become another user here.
    """
    if os.getuid() != 0:
        return
    owner = _owner()
    if owner.st_uid == 0:
        return
    try:
        os.setgroups([0])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except OSError:
        notices.warn(f"root may not become the container's user {owner.st_uid} here", f"docker exec --user {owner.st_uid}:{owner.st_gid}")
        sys.exit(REFUSED)
    os.environ |= {"HOME": pwd.getpwuid(owner.st_uid).pw_dir}


def _owner() -> os.stat_result:
    """Return whose the services are, else whose the first process is, which need not be the container's user (``--init``)."""
    found = state.of_container()
    return found.stat() if found.exists() else state.FIRST_PROCESS.stat()
