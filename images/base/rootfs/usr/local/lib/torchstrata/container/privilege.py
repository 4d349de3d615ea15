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
    uid, gid = state.user()
    if uid == 0:
        return
    try:
        os.setgroups([0])
        os.setgid(gid)
        os.setuid(uid)
    except OSError:
        notices.warn(f"root may not become the container's user {uid} here", f"docker exec --user {uid}:{gid}")
        sys.exit(REFUSED)
    os.environ |= {"HOME": pwd.getpwuid(uid).pw_dir}
