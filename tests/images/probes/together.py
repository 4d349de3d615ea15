"""Run several probes, each in a child of this process, which has imported torch once for all of them: ``together.py DOCUMENT``.

The document is a JSON list: for each probe its ``name``, its ``source``, its ``arguments``, and the ``environment`` that it has
beside ours. Prints for each its exit status, and what it wrote to standard output and to standard error.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

import torch  # noqa: F401  # for the children: nothing has used threads or a GPU yet


def run(name, source, arguments, environment):
    """Run a source as a program; return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # for what torch's modules would remove at the end of an interpreter, which a child does not come to
        os.environ |= {"TMPDIR": folder} | environment
        path = Path(folder, f"{name}.py")
        path.write_text(source)
        sys.argv = [str(path), *arguments]
        try:
            runpy.run_path(str(path), run_name="__main__")
        except BaseException:  # noqa: BLE001  # whatever ends a program
            traceback.print_exc()
            return 1
    return 0


def in_child(probe):
    """Return how a probe ended, and what it wrote."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if pid := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            for file in (out, err):
                file.seek(0)
            return {"status": status, "out": out.read().decode(errors="replace"), "err": err.read().decode(errors="replace")}
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(err.fileno(), sys.stderr.fileno())
        status = run(**probe)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


json.dump([in_child(probe) for probe in json.loads(sys.argv[1])], sys.stdout)
