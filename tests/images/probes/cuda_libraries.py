"""Open each CUDA library by its name, as a program would, in a process that has nothing else open.

Prints ``opened``: for each name in ``/opt/cuda/lib``, the loader's word with ``lazy`` and ``now`` binding, empty if it opens;
and ``versions`` that libraries themselves tell.
"""

import ctypes
import functools
import json
import os
import sys
from pathlib import Path

FOLDER = "/opt/cuda/lib"
TELLS = {"libnccl": "ncclGetVersion", "libcudart": "cudaRuntimeGetVersion"}
MODES = {"lazy": os.RTLD_LAZY, "now": os.RTLD_NOW}


def in_child(function):
    """Return what ``function`` returns in a child of this process, or why it does not."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read) as pipe:
            word = pipe.read()
        _, status = os.waitpid(pid, 0)
        return word if status == 0 else f"ended with {os.waitstatus_to_exitcode(status)}: {word}"
    try:
        os.write(write, str(function() or "").encode())
    except OSError as error:
        os.write(write, str(error).encode())
    finally:
        os._exit(0)


def open_it(name, mode):
    """Open a library."""
    ctypes.CDLL(name, mode=mode)


def number(library, function):
    """Return the version that a library tells."""
    value = ctypes.c_int()
    if ctypes.CDLL(library)[function](ctypes.byref(value)):
        raise OSError(f"{function} failed")
    return value.value


def main():
    """Print all results."""
    names = sorted(path.name for path in Path(FOLDER).iterdir())
    opened = {name: {word: in_child(functools.partial(open_it, name, mode)) for word, mode in MODES.items()} for name in names}
    told = [name for name in names if name.partition(".")[0] in TELLS]
    versions = {name.partition(".")[0]: in_child(functools.partial(number, name, TELLS[name.partition(".")[0]])) for name in told}
    json.dump({"opened": opened, "versions": versions}, sys.stdout)


main()
