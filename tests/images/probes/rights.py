"""Walk the file system: files that lend rights, and what this user may write.

    rights.py OWN...

OWN are directories that are not entered: the user's own and the kernel's. Prints {"lending": [...], "writable": [...]}.
"""

import json
import os
import stat
import sys
from pathlib import Path


def lends(path, mode):
    """Tell whether a program runs with its owner's rights, or with capabilities of its own."""
    if not stat.S_ISREG(mode):
        return False
    try:
        capable = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        capable = b""
    return bool(mode & (stat.S_ISUID | stat.S_ISGID) or capable)


def walk(top, own):
    """Yield path and mode of everything below a directory, but what is in the user's own."""
    for entry in sorted(os.scandir(top), key=lambda each: each.name):
        if entry.path in own:
            continue
        yield entry.path, entry.stat(follow_symlinks=False).st_mode
        if entry.is_dir(follow_symlinks=False) and os.access(entry.path, os.R_OK | os.X_OK):
            yield from walk(entry.path, own)


found = [("/", Path("/").stat().st_mode), *walk("/", frozenset(sys.argv[1:]))]
json.dump(
    {
        "lending": [path for path, mode in found if lends(path, mode)],
        "writable": [path for path, mode in found if not stat.S_ISLNK(mode) and os.access(path, os.W_OK)],
        "seen": len(found),
    },
    sys.stdout,
)
