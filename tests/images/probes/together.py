"""Run several probes, each in a child of this process, which has imported torch once for all of them: ``together.py DOCUMENT``.

The document is a JSON list: for each probe its ``name``, its ``source``, its ``arguments``, and the ``environment`` that it has
beside ours. Prints for each its exit status, and what it wrote to standard output and to standard error.
"""

import json
import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

import torch  # noqa: F401  # children take it over: nothing has used threads or a GPU yet in this process

OUTPUTS = {"out": 1, "err": 2}
"""File descriptors, by what is printed of them."""


def run(folder, name, source, arguments, environment):
    """Be the child: run a source as a program, which writes into files of the folder, as all that it makes for a while does."""
    for output, descriptor in OUTPUTS.items():
        with Path(folder, output).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    tempfile.tempdir = folder
    os.environ |= {"TMPDIR": folder} | environment
    path = Path(folder, f"{name}.py")
    path.write_text(source)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def in_child(probe):
    """Return how a probe ended, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        child = multiprocessing.get_context("fork").Process(target=run, args=(folder,), kwargs=probe, name="probe")
        child.start()
        child.join()
        return {"status": child.exitcode} | {output: Path(folder, output).read_text(errors="replace") for output in OUTPUTS}


json.dump([in_child(probe) for probe in json.loads(sys.argv[1])], sys.stdout)
